"""The one abstraction: a policy is one concern around a task, with a few hooks, and an onion of them.

Whoever adds a pattern writes a frozen dataclass that derives from :class:`Policy`;
``install.py`` puts it around a task. The order around the body is fixed by :attr:`Policy.order`, low outside,
and does not depend on where or in which order policies were written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from celery_patterns.core.keys import KEY_HEADER, KeySpec
from celery_patterns.errors import KeyArgumentError

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import AsyncResult

    from celery_patterns.core.keys import KeyMaker
    from celery_patterns.core.partings import Parting
    from celery_patterns.core.script import Ask
    from celery_patterns.core.seam import Seam

NONCE_HEADER = "cp-delivery"
"""The nonce of one delivery, written into the request by the worker's parent on receipt."""
CONTENT_HEADER = "cp-content-type"
"""How the message was serialised, written there likewise: the next message must be as well."""

REPLAY_HEADER = "cp-replay"
"""Which replay of which dead letter a message is: ``"<entry>/<number>"``."""

REPLAY_STEP = 1_000_000
"""What one replay adds to the number of an attempt: more than any task is retried."""


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One call of a task, being published or being run.

    Args:
        seam: Where policies meet the task.
        args: Positional arguments.
        kwargs: Keyword arguments.
        options: What ``apply_async`` was given; empty while the call runs.
        request: The running request, a Celery ``Context``; ``None`` while the call is being published.
        has_new_id: Whether a policy has made the task id for this publication.
        at_start: Called, in order, when all policies have let the call through and its body begins.
        at_exit: Called, the last one first, when the outermost policy has been left, with what left
            it: an exception, or ``None`` for a result. Only there one knows whether that is final.
        partings: What policies tell the store when the outermost one has been left, in one round trip
            and in this order.
        active: The policies that this delivery has to pass, outermost first.
        reached: Those that it has come to.
        answers: What the store has said to policies that have yet to ask, by their kind; see
            :mod:`celery_patterns.core.entering`.
        asked_at: When it was asked that, on this process's clock.
        kept: What policies know already of their part in this delivery, by their kind.
        at_parking: Called when the call was parked instead of published, with the seconds that it will wait,
            as it looks; that may be when ``apply_async`` has returned, for calls of a group.
    """

    seam: Seam
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    request: Any = None
    has_new_id: bool = False
    at_start: list[Callable[[], None]] = field(default_factory=list)
    at_exit: list[Callable[[BaseException | None], None]] = field(default_factory=list)
    partings: list[Parting] = field(default_factory=list)
    active: tuple[Policy, ...] = ()
    reached: list[Policy] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    asked_at: float = 0.0
    kept: dict[str, Any] = field(default_factory=dict)
    at_parking: list[Callable[[float], None]] = field(default_factory=list)
    _arguments: Mapping[str, Any] | None = field(default=None, init=False)  # not for a replaced call
    _keys: dict[KeySpec, str] = field(default_factory=dict, init=False)  # likewise

    @property
    def task(self) -> Any:
        """The task instance. It is shared by all threads: keep no state on it."""
        return self.seam.task

    @property
    def app(self) -> Celery:
        """The app that the task is bound to."""
        return self.seam.app

    @property
    def name(self) -> str:
        """The task's name."""
        return self.seam.name

    @property
    def id(self) -> str | None:
        """The task id; ``None`` for a publication that has none yet."""
        task_id: str | None = self.options.get("task_id") if self.request is None else self.request.id
        return task_id

    @property
    def headers(self) -> Mapping[str, Any]:
        """The custom headers of the message."""
        found: Mapping[str, Any] | None = (
            self.options.get("headers") if self.request is None else self.request.headers
        )
        return found or {}

    @property
    def has_chosen_id(self) -> bool:
        """Whether its publisher has chosen the task id: it may be one that has been there before."""
        options = self.options
        chosen = options.get("task_id") and not self.has_new_id
        return bool(chosen and not (options.get("root_id") or options.get("group_id")))

    @property
    def replay(self) -> int:
        """Which replay of a dead letter this is; 0 for none."""
        return int(str(self.headers.get(REPLAY_HEADER) or "/0").rpartition("/")[2])

    @property
    def attempt(self) -> int:
        """A number that grows with each retry and each replay of a task, and with nothing else."""
        retries = self.options.get("retries") if self.request is None else self.request.retries
        return self.replay * REPLAY_STEP + int(retries or 0)

    @property
    def owner(self) -> str:
        """Who this delivery is: task id and nonce. Another delivery of the same task is another owner.

        An eager call is nobody's second delivery, so there the nonce is part of the id as well.
        """
        nonce = getattr(self.request, NONCE_HEADER)
        return f"{self.id}~{nonce}/{nonce}" if self.request.is_eager else f"{self.id}/{nonce}"

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by name, defaults included."""
        if self._arguments is None:
            self._arguments = self.seam.bind(self.args, self.kwargs)
        return self._arguments

    @property
    def is_serialised(self) -> bool:
        """Whether the task serializer has carried the arguments."""
        return self.request is not None and not self.request.is_eager

    @property
    def in_canvas(self) -> bool:
        """Whether something waits for this very call: a chord, a chain, a group or a link."""
        request = self.request
        return request is not None and bool(
            request.chord or request.chain or request.callbacks or request.group or request.errbacks
        )

    def key(self, spec: KeySpec) -> str:
        """The key that the call falls under; the header ``cp-key`` overrides the specification.

        Raises:
            KeyArgumentError: An argument cannot be part of a key.
        """
        override = self.headers.get(KEY_HEADER)
        if override is None:
            key = self._keys.get(spec)
            if key is None:
                key = self._keys[spec] = self._maker(spec).key(self.arguments, serialised=self.is_serialised)
            return key
        if not isinstance(override, str) or not override:
            raise KeyArgumentError(
                f"{self.name}: header {KEY_HEADER}={override!r} must be a string that is not empty"
            )
        return override

    def fingerprint(self, spec: KeySpec) -> str:
        """A digest of all arguments of the call."""
        return self._maker(spec).fingerprint(self.arguments, serialised=self.is_serialised)

    def _maker(self, spec: KeySpec) -> KeyMaker:
        return self.seam.keys(spec, self.options.get("serializer"))


Run = Callable[[Call], Any]
Publish = Callable[[Call], "AsyncResult[Any]"]


class Policy:
    """One concern around a task: subclass as a frozen dataclass and override what the concern needs.

    A policy is a value: it does no I/O when it is made, holds no state, and may be shared by
    several tasks. What it needs per run it keeps on the stack of :meth:`run`.
    """

    __slots__ = ()

    kind: ClassVar[str]
    """The pattern's name, as ``patterns_disabled`` and events say it."""

    order: ClassVar[int]
    """Where it stands around the body: low is outside."""

    late_acks: ClassVar[Literal["set", "warn"]] = "warn"
    """What to do where a task is acknowledged early: set late acks, or warn at worker start."""

    keys: ClassVar[tuple[str, ...]] = ("key",)
    """The attributes that hold key specifications, checked against the task when installed."""

    remedy: ClassVar[str] = "keep one"
    """What to do instead of putting two policies of this kind on one task."""

    def specs(self) -> tuple[KeySpec, ...]:
        """All key specifications that the task's arguments must be able to answer."""
        found = (getattr(self, attribute, None) for attribute in self.keys)
        return tuple(spec for spec in found if spec is not None)

    def publish(self, call: Call, proceed: Publish) -> AsyncResult[Any]:
        """Around ``apply_async``. It may not run at all (``send_task``): rely on :meth:`run`."""
        return proceed(call)

    def run(self, call: Call, proceed: Run) -> Any:
        """Around the body, in the process that runs it. ``Retry`` leaving it is not a failure."""
        return proceed(call)

    def entering(self, call: Call) -> Ask[Any] | None:  # noqa: ARG002 - the hook's signature
        """What :meth:`run` will ask the store first, and :func:`~celery_patterns.core.entering.enter` for.

        Only if nothing else decides whether the call goes on. ``None`` says that this is not known: then
        what the policies further in will ask is not asked ahead either.
        """
        return None

    def passed_over(self, call: Call, outcome: BaseException | None) -> None:
        """A policy further out has ended the run before it came to this one.

        ``outcome`` is what has left the outermost policy: an exception, or ``None`` for a result.
        Whoever took something when the call was published lets go of it here.
        """

    def succeeded(self, call: Call) -> None:
        """The call's result is stored, and what follows it is published."""

    def failed(self, call: Call, error: BaseException) -> None:
        """The call failed or was revoked and will not run again: let go of what it holds."""

    def lost(self, call: Call, grace: float) -> None:
        """The process that ran this delivery is gone, in ``grace`` seconds at the latest.

        Called in the worker's parent, whether or not the message will be delivered again.
        """


def onion(policies: Iterable[Policy], body: Run) -> Run:
    """``body`` inside the ``run`` of all policies, which are given outermost first."""
    proceed = body
    for policy in reversed(tuple(policies)):
        proceed = partial(_enter, policy, proceed=proceed)
    return proceed


def _enter(policy: Policy, call: Call, proceed: Run) -> Any:
    call.reached.append(policy)
    return policy.run(call, proceed)


def publish_onion(policies: Iterable[Policy], send: Publish) -> Publish:
    """``send`` inside the ``publish`` of all policies, which are given outermost first."""
    proceed = send
    for policy in reversed(tuple(policies)):
        proceed = partial(policy.publish, proceed=proceed)
    return proceed
