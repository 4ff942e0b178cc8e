"""The two ways in: subclass a base task, or put a decorator on a task that exists.

Both hand policies to :func:`~celery_patterns.core.seam.install`. A class attribute that is a
:class:`~celery_patterns.core.policy.Policy` is obeyed, wherever in the bases it stands: mixins
carry data, never control flow, so there is no ``super()`` chain and no order by inheritance.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from celery import Celery, Task
from celery._state import _get_active_apps, connect_on_app_finalize  # type: ignore[attr-defined]
from celery.local import PromiseProxy, Proxy

from celery_patterns.core import startup as _startup  # noqa: F401 - it listens to the start of a worker
from celery_patterns.core.install import install, refusing, seam_of
from celery_patterns.core.policy import Policy
from celery_patterns.core.seam import check_kinds
from celery_patterns.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    BaseTask = Task[Any, Any]
else:
    BaseTask = Task

P = ParamSpec("P")
T = TypeVar("T")


class PolicyTask(BaseTask):
    """A task that obeys the policies among its class attributes.

    The bases of the patterns (``IdempotentTask``...) derive from it; use it directly as ``base=``
    or ``task_cls=`` when a task brings its policies as plain attributes.
    """

    abstract = True

    needs_policy: ClassVar[str | None] = None
    """The attribute without which a base class makes no sense; set by the patterns' own bases."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_kinds(cls.__qualname__, list(_policies_of(cls)))

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Install the policies: Celery calls this when a task is bound to its app."""
        super().on_bound(app)
        for task in _instances_of(cls, app):
            with refusing(task):
                _check_complete(cls, task.name)
            install(task, *_policies_of(cls))


def _instances_of(cls: type, app: Celery) -> list[Any]:
    """The tasks of a class: one if it was made of a function, any number of a class-based task."""
    tasks = app._tasks  # type: ignore[attr-defined]
    if vars(cls).get("_decorated"):
        return [tasks[cls.name]] if type(tasks.get(cls.name)) is cls else []  # type: ignore[attr-defined]
    return [task for task in list(tasks.values()) if type(task) is cls]


def _policies_of(cls: type) -> Iterator[Policy]:
    """The policies among a class's attributes; the nearest class wins, as in Python.

    Raises:
        PolicyError: One stands where Celery has an attribute of its own.
    """
    for name, value in _attributes_of(cls):
        if isinstance(value, Policy):
            if hasattr(Task, name):
                raise PolicyError(
                    f"{cls.__name__}.{name} is Celery's own attribute and cannot hold a policy: "
                    f"name it {value.kind} instead"
                )
            yield value


def _attributes_of(cls: type) -> Iterator[tuple[str, Any]]:
    """All attributes of a class; the nearest of those with one name."""
    seen: set[str] = set()
    for one in cls.__mro__:
        yield from ((name, value) for name, value in vars(one).items() if name not in seen)
        seen.update(vars(one))


def _check_complete(cls: type, task: str) -> None:
    for one in cls.__mro__:
        name = vars(one).get("needs_policy")
        value = getattr(cls, name, None) if name else None
        if name and isinstance(value, Policy) and value.kind != name:
            raise PolicyError(
                f"{task}: {name}={value!r} is a policy of another kind: name the attribute {value.kind}, "
                "and give the task a base that has it"
            )
        if name and not isinstance(value, Policy):
            raise PolicyError(
                f"{task}: base {one.__name__} needs the attribute {name!r}, "
                f"as in @app.task(base={one.__name__}, {name}=...); it is {value!r}"
            )


def as_decorator(policy: Callable[P, Policy]) -> Callable[P, Callable[[T], T]]:
    """The decorator that takes a policy's own arguments, to stand above ``@app.task``."""

    def decorator(*args: P.args, **kwargs: P.kwargs) -> Callable[[T], T]:
        value = policy(*args, **kwargs)

        def decorate(task: T) -> T:
            return attach(task, value)

        return decorate

    decorator.__name__ = policy.__name__
    decorator.__doc__ = (
        f"Put {policy.__name__}(...) around a task: write it above ``@app.task`` or ``@shared_task``."
    )
    return decorator


@dataclass(frozen=True, slots=True)
class _Attached:
    """A policy that was put on a task: every app of a process makes a task of its own from a function.

    Args:
        function: What the task was made of.
        name: The task's name, where its author gave it one.
        policy: The policy.
    """

    function: Any
    name: str | None
    policy: Policy

    def name_in(self, app: Celery) -> str:
        """What the task is called in an app."""
        return self.name or app.gen_task_name(self.function.__name__, self.function.__module__)


_attached: dict[Any, list[_Attached]] = {}
"""What was attached, by the innermost function of the task."""


def attach(task: T, policy: Policy) -> T:
    """Put ``policy`` around a task, in every app of this process that has it; returns the task.

    Args:
        task: What ``@app.task``, ``@shared_task`` or ``app.register_task`` returned.
        policy: The policy.

    Raises:
        PolicyError: ``task`` is not a task (a decorator below ``@app.task``), or the worker has
            already built it.
    """
    kind = type(task)  # isinstance() would make a task whose app is not ready
    if kind is PromiseProxy and not task.__evaluated__():  # type: ignore[attr-defined]
        _remember(*_promised(task), policy)
        task.__then__(lambda: install(task._get_current_object(), policy))  # type: ignore[attr-defined]
    elif kind is PromiseProxy:
        attach(task._get_current_object(), policy)  # type: ignore[attr-defined]
    elif kind is Proxy:
        _remember(*_shared(task), policy)
    elif isinstance(task, Task):
        install(task, policy)
        _remember(*_made(task), policy)
    else:
        raise PolicyError(
            f"{policy.kind} was put on {task!r}, which is not a Celery task: "
            "write it above @app.task or @shared_task, not below"
        )
    return task


def _remember(function: Any, name: str | None, policy: Policy) -> None:
    """Attach to the tasks that apps have made of ``function``, and to those that they will make."""
    if function is None:
        return
    one = _Attached(function, name, policy)
    _attached.setdefault(inspect.unwrap(function), []).append(one)
    for app in list(_get_active_apps()):
        if app.finalized:
            _attach_in(app, one)


def _attach_in(app: Celery, only: _Attached | None = None) -> None:
    """Attach what was put on the functions of an app's tasks, or ``only`` one of it.

    Raises:
        PolicyError: Of the first task that a policy does not fit; the others have theirs by then.
    """
    errors = []
    for task in list(app._tasks.values()):  # type: ignore[attr-defined]
        for one in _attached.get(_innermost(task), ()):
            if (only is None or one is only) and task.name == one.name_in(app):
                try:
                    install(task, one.policy)
                except PolicyError as error:
                    errors.append(error)
        try:
            if only is None:
                _check_obeyed(task)
        except PolicyError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _check_obeyed(task: Any) -> None:
    """Refuse a policy among the attributes of a task whose base knows of none.

    Raises:
        PolicyError: Nothing would obey it.
    """
    seam = seam_of(task)
    obeyed = seam.policies if seam is not None else ()
    with refusing(task):
        policy = next((one for one in _policies_of(type(task)) if one not in obeyed), None)
        if policy is not None:
            raise PolicyError(
                f"{task.name}: {policy!r} would not be obeyed; give the task a base, "
                "as in @app.task(base=PolicyTask, ...), or use the decorator"
            )


@connect_on_app_finalize
def _watch(app: Celery) -> None:
    """When an app has made all its tasks, attach what was put on their functions.

    As the last of its pending tasks and not by a signal: an error must leave ``finalize``.
    """
    app._pending.append(PromiseProxy(_attach_in, (app,)))  # type: ignore[attr-defined, arg-type]


def _promised(task: Any) -> tuple[Any, str | None]:
    """The function and the name of a task that is not made yet, without making it."""
    (function,) = object.__getattribute__(task, "_Proxy__args")
    return function, object.__getattribute__(task, "_Proxy__kwargs").get("name")


def _shared(task: Any) -> tuple[Any, str | None]:
    """The function and the name of a shared task, without finalizing the current app."""
    by_name = object.__getattribute__(task, "_Proxy__local")
    cells = inspect.getclosurevars(by_name).nonlocals
    if "fun" not in cells:
        raise PolicyError(f"cannot tell which function {by_name!r} is made of: use a base class instead")
    return cells["fun"], cells.get("name")


def _made(task: Any) -> tuple[Any, str | None]:
    """The function that a task was made of, and its name where that was not made of the function's."""
    run = vars(type(task))["run"] if vars(type(task)).get("_decorated") else None
    function = getattr(run, "__func__", run)
    is_given = function and task.name != task.app.gen_task_name(function.__name__, function.__module__)
    return function, task.name if is_given else None


def _innermost(task: Any) -> Any:
    """The function inside all that decorates it; ``None`` for a class-based task."""
    made = vars(type(task))
    return inspect.unwrap(made["run"]) if made.get("_decorated") else None
