"""The seam: where policies meet a task, when it is published, while it runs, and when it is over."""

from __future__ import annotations

import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Reject, Retry

from celery_patterns.core import parking
from celery_patterns.core.keys import KeyMaker, KeySpec
from celery_patterns.core.nonce import new_nonce
from celery_patterns.core.partings import part, take_back
from celery_patterns.core.policy import NONCE_HEADER, Call, Policy, onion, publish_onion
from celery_patterns.core.postpone import EagerWait, PutOff, hop, still_waiting, wait_in_place
from celery_patterns.core.reported import reported_request
from celery_patterns.core.settings import disabled_kinds
from celery_patterns.core.waits import leave_line
from celery_patterns.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        call.active = active
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
        if len(call.reached) < len(active) or call.answers:
            missed = [one for one in active[::-1] if one not in call.reached or one.kind in call.answers]
            tellers[:0] = [functools.partial(one.passed_over, call) for one in missed]
        call.at_start.clear()
        call.at_exit.clear()
        call.reached.clear()
        for tell in tellers:
            try:
                tell(outcome)
            except Exception:
                logger.exception("%s[%s]: could not clean up at its exit", self.name, call.id)
        call.answers.clear()
        call.kept.clear()
        if call.partings:
            partings, call.partings = call.partings, []
            instead = part(partings)
            if instead is not None and outcome is None:
                take_back(partings)
                instead()

    def _begin_body(self, call: Call) -> Any:
        for tell in call.at_start:
            tell()
        leave_line(call)
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


def _is_final(error: Exception) -> bool:
    """Whether a call that ended so will not run again."""
    if isinstance(error, Reject):
        return not error.requeue  # type: ignore[attr-defined]
    return not isinstance(error, (Retry, Ignore))


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
