"""How policies come to a task.

``install`` rebinds ``run`` and ``apply_async`` on the task *instance*, once. A base class and a
decorator both end here, so they are one implementation. ``run`` and not ``__call__``: bases in the
wild (Flask's, for one) override ``__call__`` and call ``self.run`` themselves. The instance and not
the class: Celery makes one instance per task and process, and user code may call ``super().run``.

Celery wraps ``run`` with autoretry only after a task is bound, which would put retries outside the
policies; so ``install`` has Celery do it first.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from celery.app.autoretry import add_autoretry_behaviour
from celery.exceptions import Ignore
from celery.signals import task_failure, task_revoked, task_success
from celery.utils.imports import symbol_by_name

from celery_patterns.core import parking
from celery_patterns.core.acks import set_late_acks
from celery_patterns.core.policy import Policy
from celery_patterns.core.reported import reported_request
from celery_patterns.core.seam import Seam
from celery_patterns.errors import PolicyError, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.app.task import Context
    from celery.result import AsyncResult
    from celery.utils.dispatch import Signal


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
            if type(policy).succeeded is not Policy.succeeded:  # others pay nothing for what they do not hear
                _listen(task, task_success, _on_success)
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


def seam_of(task: Any) -> Seam | None:
    """The seam of a task; ``None`` where it has no policies."""
    found: Seam | None = getattr(task, "__patterns__", None)
    return found


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
    _listen(task, task_failure, _on_failure)
    _listen(task, task_revoked, _on_revoked)


def _listen(task: Any, signal: Signal, receiver: Callable[..., None]) -> None:
    signal.connect(receiver, sender=task, weak=False, dispatch_uid=f"celery-patterns-{id(task)}")


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


def _on_revoked(sender: Any, request: Context, **_: Any) -> None:
    seam: Seam = sender.__patterns__
    parking.take_ticket(request)
    parking.hand_in(seam.rebuilt(request))
    seam.failed(request, Ignore("revoked"))
