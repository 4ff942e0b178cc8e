"""One delivery of a call whose body runs under a lease: what such policies have in common.

Waiting, refusing, telling, and above all: how a run under a lease ends (``ending.py``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from celery_patterns.core import parking
from celery_patterns.core.ending import Ending, ending_of
from celery_patterns.core.events import Event, emit
from celery_patterns.core.lease import Lease, keeper, task_id_of
from celery_patterns.core.outcome import Outcome, acknowledge_copy, is_counted, keeps_results, outcome_of
from celery_patterns.core.partings import Parting, part
from celery_patterns.core.postpone import postpone, postpone_copy
from celery_patterns.core.store import store_of
from celery_patterns.core.waits import backoff
from celery_patterns.errors import PatternsError, Refused, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_patterns.core.policy import Call, Run
    from celery_patterns.core.script import Ask
    from celery_patterns.core.store import Store

logger = logging.getLogger("celery_patterns")

PATIENCE = 10.0
"""Seconds after the end of a body within which its result is stored, if ever."""
LONGEST_OUTAGE = 30.0
"""Seconds between two looks for a store that is away."""


Woken = Literal["turn", "result"]
"""For what a call is woken: it may have its turn, which one at a time can, or there is a result for all."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One delivery at the door of something that only so many may hold.

    Args:
        call: The call that is being run, or was.
        kind: The policy's kind.
        key: What it asks for, as operators write it.
        on_store_error: ``"defer"`` or ``"raise"``: what the call does when nobody can be asked.
    """

    call: Call
    kind: str
    key: str
    on_store_error: str

    def run(
        self, lease: Lease, proceed: Run, end: Callable[[Ending], Ask[str | None] | None], marker: str
    ) -> Any:
        """Run the body under ``lease``, which is held until it is known what becomes of the run.

        Args:
            lease: It is renewed meanwhile.
            proceed: The rest of the onion.
            end: Gives the lease back, unless it was given back before; its answer is the owner that has
                taken it over, if one has.
            marker: The key that says that the task has ended, if it has.
        """

        def leave(outcome: BaseException | None) -> None:
            ask = end(ending_of(self.call.app, outcome))
            if ask is not None:
                back = (lambda: self._forget(marker)) if outcome is None else None
                self.call.partings.append(self._giving_back(lease, ask, back))

        self.hold(lease)
        self.call.at_exit.append(leave)
        return proceed(self.call)

    def hold(self, lease: Lease) -> None:
        """Renew ``lease`` from now on, and look whether it is still this call's when the body begins."""
        keeper.hold(lease)
        self.call.at_start.insert(0, lambda: self._look_at(lease))

    def _look_at(self, lease: Lease) -> None:
        """A process that stood still for as long as its lease begins nothing beside its successor.

        Raises:
            celery.exceptions.Retry: Another has taken the lease, or nobody knows: the call comes again.
            StoreUnavailable: Nobody knows, and ``on_store_error`` is ``"raise"``.
        """
        if not lease.lost:
            return
        try:
            if lease.renew():
                return
        except StoreUnavailable as error:
            self.out_of_reach(error)
        reason = Refused(f"lost the lease on {self.key} before its body began", None)
        postpone(self.call, backoff(self.call, LONGEST_OUTAGE), reason, policy=self.kind, key=self.key)

    def give_back(self, lease: Lease, ask: Ask[str | None]) -> None:
        """Give the lease back here and now. What fails does not fail the task."""
        part([self._giving_back(lease, ask)])

    def _giving_back(
        self, lease: Lease, ask: Ask[str | None], taken_back: Callable[[], None] | None = None
    ) -> Parting:
        def told(successor: str | None) -> None:
            if successor is not None:
                self.tell("superseded", by=task_id_of(successor) or None, fence=lease.fence)

        def unheard(error: StoreUnavailable) -> None:
            self.store_error("release", "trying again until its lease ends", error)
            keeper.finish(lease, lambda: told(ask.now()), lambda: None)

        return Parting(ask, told, unheard, lease, taken_back)

    def _forget(self, marker: str) -> None:
        """The task has not ended after all."""
        store = store_of(self.call.app)
        try:
            with store.reporting():
                store.client.delete(marker)
        except StoreUnavailable as error:
            self.store_error("release", "its next delivery is taken for a copy at first", error)

    def begin_anew(self, store: Store, marker: str) -> None:
        """Somebody publishes the call under an id of his choice: what ended under it before is history.

        Raises:
            StoreUnavailable: If ``on_store_error`` says so.
        """
        try:
            with store.reporting():
                store.client.delete(marker)
        except StoreUnavailable as error:
            if self.on_store_error == "raise":
                raise
            self.store_error("publish", "it is taken for a copy if a task of this id has ended", error)

    def is_own(self, owner: str) -> bool:
        """Whether ``owner`` is another delivery of this very task."""
        return task_id_of(owner) == self.call.id

    def wait(
        self,
        owner: str | None,
        delay: float,
        reason: Refused,
        headers: Mapping[str, Any] | None = None,
        *,
        woken: Woken | None = None,
        countdown: float | None = None,
    ) -> NoReturn:
        """Put the call off; unseen where it is a copy of the task that ``owner`` runs.

        Args:
            owner: Who is in the way, if that is one.
            delay: Seconds until the next look.
            reason: Why.
            headers: What is to be remembered.
            woken: For what somebody who lets go wakes it; then ``delay`` is for when nobody does.
            countdown: The delay where there is no waiting room, if it is another one.

        Raises:
            celery.exceptions.Retry: Or whatever else ends this delivery.
        """
        if owner is not None and self.is_own(owner):
            postpone_copy(self.call, delay, reason, policy=self.kind, key=self.key)
        if owner is not None and self.call.request.is_eager and keeper.holds(owner):
            self.refuse(type(reason)(f"{reason}, in this very process, and cannot end", None))
        postpone(
            self.call,
            delay,
            reason,
            policy=self.kind,
            key=self.key,
            headers=headers,
            spot=parking.Spot(line=self._line(woken)) if woken else None,
            countdown=None if countdown is None else lambda: countdown,
        )

    def wake(self, *who: str, woken: Woken = "turn") -> None:
        """Have those tasks look at once that wait in the waiting room: or the first of all, or ``ALL``."""
        parking.wake(self.call, self._line(woken), *who)

    @property
    def was_woken(self) -> bool:
        """Whether it was woken itself: others may wait behind it of whom nobody knows but the room."""
        return parking.was_woken(self.call)

    @property
    def has_room(self) -> bool:
        """Whether the call would wait in the room, where nobody needs to look at short intervals."""
        return parking.serves(self.call)

    def _line(self, woken: Woken) -> str:
        return f"{self.kind}{'' if woken == 'turn' else '>'}|{self.key}"

    def outcome_of(self, task_id: str | None) -> Outcome | None:
        """How a task ended, as far as that can be known; else the call waits until one can ask."""
        if not keeps_results(self.call):
            return None
        try:
            return outcome_of(self.call, task_id)
        except StoreUnavailable as error:
            self.out_of_reach(error)

    def ended_as(self, age: float, reason: Refused) -> Outcome | None:
        """How this very task ended, ``age`` seconds ago, in an earlier delivery.

        ``None`` says that its process was killed before the result was stored, so that it has to run
        again. An end that may still be on its way to the result backend is waited for, unseen; so is
        one that may still be on its way to its chord.
        """
        outcome = self.outcome_of(self.call.id)
        if keeps_results(self.call) and age < PATIENCE and (outcome is None or self._is_counted() is False):
            postpone_copy(self.call, backoff(self.call, 1.0, 0.2), reason, policy=self.kind, key=self.key)
        return outcome

    def acknowledge_copy(self, outcome: Outcome | None) -> Any:
        """End a copy of a task that has ended: see :func:`~celery_patterns.core.outcome.acknowledge_copy`.

        Raises:
            celery.exceptions.Ignore: Outside a chord.
        """
        return acknowledge_copy(self.call, outcome, is_counted=self._is_counted())

    def _is_counted(self) -> bool | None:
        try:
            return is_counted(self.call)
        except StoreUnavailable as error:
            self.out_of_reach(error)

    def out_of_reach(self, error: StoreUnavailable) -> NoReturn:
        """Nobody knows who holds the key: never go ahead blind.

        Raises:
            celery.exceptions.Retry: The call is put off, or
            StoreUnavailable: it is refused, as ``on_store_error`` says.
        """
        self.store_error("begin", self.on_store_error, error)
        if self.on_store_error == "raise":
            raise error
        postpone(self.call, backoff(self.call, LONGEST_OUTAGE, 1.0), error, policy=self.kind, key=self.key)

    def refuse(self, error: PatternsError) -> NoReturn:
        """Fail the call."""
        self.tell("refused", error=type(error).__name__)
        raise error

    def store_error(self, at: str, then: str, error: Exception) -> None:
        """Say that the store was out of reach, and what happens next."""
        logger.warning(
            "%s[%s], key %s, at its %s: %s; %s", self.call.name, self.call.id, self.key, at, error, then
        )
        self.tell("store_error", at=at, error=str(error))

    def tell(self, event: str, **detail: Any) -> None:
        """Emit an event about this call."""
        emit(
            Event(
                kind=event,
                policy=self.kind,
                task=self.call.name,
                task_id=self.call.id,
                key=self.key,
                detail=detail,
            )
        )
