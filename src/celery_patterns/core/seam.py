"""The seam: where policies meet a task.

``install`` rebinds ``run`` and ``apply_async`` on the task *instance*, once. A base class and a
decorator both end here, so they are one implementation. ``run`` and not ``__call__``: bases in the
wild (Flask's, for one) override ``__call__`` and call ``self.run`` themselves. The instance and not
the class: Celery makes one instance per task and process, and user code may call ``super().run``.

Celery wraps ``run`` with autoretry only after a task is bound, which would put retries outside the
policies; so the seam has Celery do it first.
"""

from __future__ import annotations

import functools
import inspect
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from celery.app.autoretry import add_autoretry_behaviour
from celery.exceptions import Ignore, Reject, Retry
from celery.signals import task_failure, task_revoked, task_success
from celery.utils.imports import symbol_by_name

from celery_patterns.core import parking
from celery_patterns.core.acks import set_late_acks
from celery_patterns.core.keys import KeyMaker, KeySpec
from celery_patterns.core.nonce import new_nonce
from celery_patterns.core.partings import part, take_back
from celery_patterns.core.policy import NONCE_HEADER, Call, Policy, onion, publish_onion
from celery_patterns.core.postpone import EagerWait, PutOff, hop, still_waiting, wait_in_place
from celery_patterns.core.reported import reported_request
from celery_patterns.core.settings import disabled_kinds
from celery_patterns.core.waits import leave_line
from celery_patterns.errors import PolicyError, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from celery import Celery
    from celery.app.task import Context
    from celery.result import AsyncResult

    from celery_patterns.core.policy import Run

logger = logging.getLogger("celery_patterns")

_BEGUN = "cp_begun"
_TOLD = "cp_told"
_ACTIVE = "cp_active"


class Seam:
    """What ``install`` keeps about one task: its policies, and what it was before them.

    Args:
        task: The task instance, bound to its app, autoretry added.
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        self.app: Celery = task.app
        self.name: str = task.name
        self.body: Callable[..., Any] = task.run
        self.send: Callable[..., AsyncResult[Any]] = task.apply_async
        self.signature = inspect.signature(task.run)
        self.policies: tuple[Policy, ...] = ()
        self._layers: Run = self._begin_body
        self._keys: dict[tuple[KeySpec, str], KeyMaker] = {}

    def add(self, policy: Policy) -> None:
        """One more policy.

        Raises:
            PolicyError: It names arguments that the task does not have, or its kind is there already.
        """
        if policy in self.policies:
            return
        check_kinds(self.name, [*self.policies, policy])
        for spec in policy.specs():
            self.keys(spec)
        self.policies = tuple(sorted((*self.policies, policy), key=lambda one: one.order))
        self._layers = onion(self.policies, self._begin_body)
        if _hears_of_successes(policy):
            uid = f"celery-patterns-{id(self.task)}"
            task_success.connect(_on_success, sender=self.task, weak=False, dispatch_uid=uid)

    def keys(self, spec: KeySpec, serializer: str | None = None) -> KeyMaker:
        """The maker of this task's keys by one specification, for calls carried by a serializer."""
        carrier: str = serializer or self.task.serializer or self.app.conf.task_serializer
        maker = self._keys.get((spec, carrier))
        if maker is None:
            maker = self._keys[spec, carrier] = KeyMaker(spec, self.name, self.signature, carrier)
        return maker

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """A call's arguments by name."""
        any_maker = next(iter(self._keys.values()), None) or self.keys(lambda: None)
        return any_maker.bind(args, kwargs)

    def active(self) -> tuple[Policy, ...]:
        """The policies that are not switched off here and now."""
        off = disabled_kinds(self.app)
        if not off:
            return self.policies
        return tuple(one for one in self.policies if "*" not in off and one.kind not in off)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The task's ``run``: the body inside its policies, where a worker (or eager mode) runs it.

        A direct call ``task(...)`` is the body alone, also from inside the body, or in ``on_success``.
        """
        request = self.task.request
        if request.called_directly or getattr(request, _BEGUN, False):
            return self.body(*args, **kwargs)
        if not hasattr(request, NONCE_HEADER):  # eager, or a worker without our Request
            setattr(request, NONCE_HEADER, new_nonce())
        parking.take_ticket(request)
        call = Call(seam=self, args=args, kwargs=kwargs, request=request)
        parking.withdraw(call)
        wait = still_waiting(call)
        if wait > 0:
            hop(call, wait)
        setattr(request, _BEGUN, True)
        try:
            return self._run_through(call)
        except PutOff as put_off:
            put_off.__traceback__ = None  # Celery would describe each frame of it
            raise
        except Exception as error:
            if request.is_eager and _is_final(error):  # Celery sends no signal where errors propagate
                self.failed(request, error)
            raise

    def _run_through(self, call: Call) -> Any:
        active = self.active()
        setattr(call.request, _ACTIVE, active)
        run = self._layers if active is self.policies else onion(active, self._begin_body)
        while True:
            try:
                return self._attempt(call, active, run)
            except EagerWait as wait:
                wait_in_place(wait.delay)

    def _attempt(self, call: Call, active: tuple[Policy, ...], run: Run) -> Any:
        try:
            result = run(call)
        except BaseException as error:
            self._leave(call, active, error)
            raise
        self._leave(call, active, None)
        return result

    def _leave(self, call: Call, active: tuple[Policy, ...], outcome: BaseException | None) -> None:
        """Tell the policies how the call ended, inner ones first; one that fails changes nothing of that.

        Raises:
            celery.exceptions.Retry: It has not ended: another run's result counts.
        """
        tellers = call.at_exit[::-1]
        if len(call.reached) < len(active):
            missed = [one for one in active[::-1] if one not in call.reached]
            tellers[:0] = [functools.partial(one.passed_over, call) for one in missed]
        call.at_start.clear()
        call.at_exit.clear()
        call.reached.clear()
        for tell in tellers:
            try:
                tell(outcome)
            except Exception:
                logger.exception("%s[%s]: could not clean up at its exit", self.name, call.id)
        if call.partings:
            partings, call.partings = call.partings, []
            instead = part(partings)
            if instead is not None and outcome is None:
                take_back(partings)
                instead()

    def _begin_body(self, call: Call) -> Any:
        leave_line(call)
        for tell in call.at_start:
            tell()
        return self.body(*call.args, **call.kwargs)

    def publish(self, args: Any, kwargs: Any, options: dict[str, Any]) -> AsyncResult[Any]:
        """The task's ``apply_async``."""
        if self._is_own_continuation(options):
            return self.send(args, kwargs, **options)
        dump_models = getattr(self.task, "_dump_pydantic_arguments", None)  # Celery 5.7, with pydantic=True
        if dump_models is not None and options.get("serializer") != "pickle":
            args, kwargs = dump_models(args, kwargs)  # it leaves alone what it has dumped before
        call = Call(seam=self, args=tuple(args or ()), kwargs=dict(kwargs or {}), options=options)
        return publish_onion(
            self.active(), lambda inner: self.send(inner.args, inner.kwargs, **inner.options)
        )(call)

    def _is_own_continuation(self, options: Mapping[str, Any]) -> bool:
        """Whether the running task publishes itself: a retry or a postponement, not a new call.

        ``self.replace`` with the same task is one level deeper in its nesting, and is a new call.
        """
        task_id = options.get("task_id")
        if not task_id:
            return False
        request = reported_request() or self.task.request
        nesting = options.get("replaced_task_nesting") or 0
        return bool(
            request.id == task_id
            and getattr(request, "task", self.name) == self.name
            and nesting == (request.replaced_task_nesting or 0)
        )

    def succeeded(self, request: Context) -> None:
        """Tell the policies that want to know, outermost first, that a call's result is stored."""
        self._tell(request, "succeeded")

    def failed(self, request: Context, error: BaseException) -> None:
        """Tell the policies, outermost first and once per delivery, that a call will not run again."""
        if not getattr(request, _TOLD, False):  # a hard time limit is reported twice
            setattr(request, _TOLD, True)
            self._tell(request, "failed", error)

    def lost(self, request: Context, grace: float) -> None:
        """Tell the policies that the process which ran a delivery is gone."""
        self._tell(request, "lost", grace)

    def _tell(self, request: Context, hook: str, *detail: Any) -> None:
        """Call a hook of each policy. One that fails neither stops the others nor what Celery reports."""
        call = self.rebuilt(request)
        active: tuple[Policy, ...] | None = getattr(request, _ACTIVE, None)  # in the process that ran it
        for policy in self.active() if active is None else active:
            try:
                getattr(policy, hook)(call, *detail)
            except Exception:
                logger.exception(
                    "%s[%s]: %s could not clean up in %r; what it holds ends by itself",
                    self.name,
                    request.id,
                    policy.kind,
                    hook,
                )

    def rebuilt(self, request: Context) -> Call:
        """The call of a delivery that the parent reports about."""
        return Call(
            seam=self, args=tuple(request.args or ()), kwargs=dict(request.kwargs or {}), request=request
        )


def install(task: Any, *policies: Policy) -> None:
    """Put ``policies`` around a task; what is there already stays.

    Args:
        task: A task instance that is bound to its app.
        policies: In any order.

    Raises:
        PolicyError: A policy does not fit the task, or the worker has already started to use it.
    """
    seam: Seam | None = getattr(task, "__patterns__", None)
    present = seam.policies if seam is not None else ()
    if all(policy in present for policy in policies):
        return
    if task.__trace__ is not None:
        raise PolicyError(
            f"{task.name}: a policy was attached after the worker had built the task; attach it where the "
            "task is defined, or in a module that the worker imports before it starts"
        )
    with refusing(task):
        if seam is None:
            task.dont_autoretry_for = (*getattr(task, "dont_autoretry_for", ()), Throttled)
            add_autoretry_behaviour(task)
            seam = task.__patterns__ = Seam(task)
            _rebind(task, seam)
        for policy in policies:
            seam.add(policy)
            if policy.late_acks == "set":
                set_late_acks(task)


@contextmanager
def refusing(task: Any) -> Iterator[None]:
    """Have a task that turns out to be declared wrongly fail whenever it is used.

    Celery registers a task before it binds it. One whose declaration failed would stay, and run
    without the policies that it was meant to have.
    """
    try:
        yield
    except Exception as error:
        message = f"{task.name} was declared wrongly: {error}"

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise PolicyError(message)

        task.run = task.apply_async = refuse
        raise


def _rebind(task: Any, seam: Seam) -> None:
    @functools.wraps(seam.body)
    def run(*args: Any, **kwargs: Any) -> Any:
        return seam.run(args, kwargs)

    @functools.wraps(seam.send)
    def apply_async(
        args: Any = None, kwargs: Any = None, *positional: Any, **options: Any
    ) -> AsyncResult[Any]:
        options.update(zip(_POSITIONAL, positional, strict=False))
        return seam.publish(args, kwargs, options)

    task.run = run
    task.apply_async = apply_async
    task.Request = _request_class(task.Request)
    task_failure.connect(_on_failure, sender=task, weak=False, dispatch_uid=f"celery-patterns-{id(task)}")
    task_revoked.connect(_on_revoked, sender=task, weak=False, dispatch_uid=f"celery-patterns-{id(task)}")


def _request_class(found: Any) -> Any:
    """What a worker makes of a task's messages; instead of Celery's own a name, for the worker to import."""
    if found == _CELERYS_REQUEST:
        return "celery_patterns.core.request:PolicyRequest"
    from celery_patterns.core.request import with_policies  # noqa: PLC0415 - few tasks have a class of their own

    return with_policies(symbol_by_name(found))


_CELERYS_REQUEST = "celery.worker.request:Request"
"""What tasks name that bring no class of their own, unless somebody has given all tasks another one."""

_POSITIONAL = ("task_id", "producer", "link", "link_error", "shadow")
"""What ``apply_async`` also takes by position."""


def _on_failure(sender: Any, exception: BaseException, **_: Any) -> None:
    """A final failure: in the child under its own request, in the parent under the reported one."""
    request = reported_request() or sender.request
    if request.id is not None and not request.is_eager:
        sender.__patterns__.failed(request, exception)


def _on_success(sender: Any, **_: Any) -> None:
    sender.__patterns__.succeeded(sender.request)


def _hears_of_successes(policy: Policy) -> bool:
    """Whether a policy has the hook: a task whose policies have not pays nothing for it."""
    return type(policy).succeeded is not Policy.succeeded


def _is_final(error: Exception) -> bool:
    """Whether a call that ended so will not run again."""
    if isinstance(error, Reject):
        return not error.requeue  # type: ignore[attr-defined]
    return not isinstance(error, (Retry, Ignore))


def _on_revoked(sender: Any, request: Context, **_: Any) -> None:
    seam: Seam = sender.__patterns__
    parking.take_ticket(request)
    parking.hand_in(seam.rebuilt(request))
    seam.failed(request, Ignore("revoked"))


def check_kinds(task: str, policies: list[Policy]) -> None:
    """Refuse two policies of one kind on one task.

    Raises:
        PolicyError: Naming both.
    """
    seen: dict[str, Policy] = {}
    for policy in policies:
        other = seen.setdefault(policy.kind, policy)
        if other is not policy:
            raise PolicyError(
                f"{task}: two {policy.kind} policies on one task, {other!r} and {policy!r}; {policy.remedy}"
            )


def seam_of(task: Any) -> Seam | None:
    """The seam of a task; ``None`` where it has no policies."""
    found: Seam | None = getattr(task, "__patterns__", None)
    return found
