"""One delivery of a singleton, at the door of its key's lock.

=============================  ==============================================================
the lock is                    this delivery
=============================  ==============================================================
free, lapsed, or queued for    runs the body under a lease
this very task
running, another delivery of   is a redelivered copy: waits unseen, in case the other dies
this very task
free, this task has ended      is a late copy: only acknowledges, unless nothing was stored
another task's                 waits for that task's result and ends with it (``use_existing``,
                               and ``skip`` in a canvas), ends with ``None`` (``skip``), fails
                               (``raise``) or waits for its turn (the others)
another's since this one was   ends with ``None``; in a canvas with the newer one's result
replaced
=============================  ==============================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

from celery import states

from celery_patterns.core.ending import Ending, ending_of
from celery_patterns.core.entering import enter
from celery_patterns.core.guard import PATIENCE, Guard
from celery_patterns.core.lease import KILL_GRACE, Lease, task_id_of
from celery_patterns.core.outcome import Outcome, keeps_results
from celery_patterns.core.parking import ALL
from celery_patterns.core.waits import PACE, backoff, waited
from celery_patterns.errors import SingletonConflict, StoreUnavailable
from celery_patterns.policies.singleton.headers import AT_HEADER, SKIP_HEADER, followed, following
from celery_patterns.policies.singleton.lock import (
    KIND,
    Beginning,
    Ended,
    GivenBack,
    Held,
    Lock,
    Moved,
    Over,
    Replaced,
    Started,
)

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call, Run
    from celery_patterns.core.script import Ask
    from celery_patterns.policies.singleton.policy import Singleton

SHORTEST_POLL, LONGEST_POLL = 0.2, 15.0
"""Seconds between two looks of a call that waits."""
TURN_POLL = 1.0
"""Seconds between two looks of the call whose turn is next."""
PARKED_POLL = 3_600.0
"""For how long a call that is woken keeps its place in the line without a look."""
TURN_SLACK = 5.0
"""Seconds past the time of its next look for which a place in the line is kept."""


class Delivery:
    """What one delivery does about its key.

    Args:
        policy: The policy.
        call: The call that is being run, or that has failed, or whose process was lost.
        lock: The lock of its key.
        key: The key, as operators write it.
    """

    def __init__(self, policy: Singleton, call: Call, lock: Lock, key: str) -> None:
        self.policy = policy
        self.call = call
        self.lock = lock
        self.guard = Guard(call, KIND, key, policy.on_store_error)
        self.queued_ttl = cast("float", policy.queued_ttl)
        self._let_go = False

    def run(self, proceed: Run) -> Any:  # noqa: C901 - the table of the module, row by row
        """Run the body if the lock can be had; else do what the policy says.

        Raises:
            celery.exceptions.Retry: The call waits.
            celery.exceptions.Ignore: It is a copy that has nothing to do.
            PatternsError: It is refused.
        """
        if SKIP_HEADER in self.call.headers:
            return self._skip(self.call.headers[SKIP_HEADER])
        follows, again = followed(self.call), False
        while True:
            match self._begin(follows, again=again):
                case Started() as started:
                    return self._run(started, proceed)
                case Held() as held:
                    return self._conflict(held, follows, proceed)
                case Ended() as ended if self.call.replay > ended.replay:
                    again = True  # no copy of what ended, but its replay
                case Ended() as ended:
                    outcome = self.guard.ended_as(ended.age, self._handing_on(self.call.id))
                    if outcome or not keeps_results(self.call):
                        return self.guard.acknowledge_copy(outcome)
                    again = True
                case Over() as over:
                    outcome = self._outcome_followed(follows, over.age)
                    if outcome:
                        self.guard.tell("joined", holder=follows)
                        return outcome.hand_on()
                    follows = None
                case Moved(by=by):
                    follows = by
                case Replaced(by=by):
                    if not self._completes_a_place:
                        self.guard.tell("replaced", by=by)
                        return None
                    follows = by

    def entering(self) -> Ask[Beginning] | None:
        """What it asks the store first."""
        return None if SKIP_HEADER in self.call.headers else self._beginning(followed(self.call), again=False)

    def passed_over(self, outcome: BaseException | None) -> None:
        """The call was answered, or put off, before it came here: let go, or keep the lock for as long."""
        ending, owner = ending_of(self.call.app, outcome), self.call.owner
        try:
            if self.policy.scope == "while_executing":  # it holds a place in the line at most
                self._wake(self.lock.give_back(owner, None, ended=False))
            elif ending.kind == "again":
                self.lock.hand_back(owner, None, self.queued_ttl + ending.delay)
            elif ending.kind == "done":
                self._wake(self.lock.give_back(owner, None, ended=True, replay=self.call.replay))
        except StoreUnavailable as error:
            self.guard.store_error("release", "what it holds ends by itself", error)

    def failed(self) -> None:
        """The call will not run again: let go of what it holds, in the queue or as this delivery."""
        try:
            self._wake(
                self.lock.give_back(
                    self.call.owner, None, ended=True, replay=self.call.replay, grace=KILL_GRACE
                )
            )
        except StoreUnavailable as error:
            self.guard.store_error("failed", "what it holds ends by itself", error)

    def lost(self, grace: float) -> None:
        """The process of this delivery is gone, and the task may well come again; or it will be, for good.

        That is remembered before its end can be seen: who sees it, and calls, must not join it.
        """
        owner = self.call.owner
        try:
            if grace:
                self._wake(self.lock.give_back(owner, None, ended=True, replay=self.call.replay, grace=grace))
            elif self.policy.scope == "while_executing":
                self.lock.lapse(owner, grace)
                self.guard.wake()
            else:
                self.lock.hand_back(owner, None, self.queued_ttl)
        except StoreUnavailable as error:
            self.guard.store_error("lost", "its lease runs out by itself", error)

    # --- the lock is ours

    def _begin(self, follows: str | None, *, again: bool) -> Beginning:
        try:
            return enter(self.call, KIND, lambda: self._beginning(follows, again=again))
        except StoreUnavailable as error:
            self.guard.out_of_reach(error)

    def _beginning(self, follows: str | None, *, again: bool) -> Ask[Beginning]:
        return self.lock.beginning(
            self.call.owner,
            follows=follows,
            again=again,
            at=self.call.headers.get(AT_HEADER),
            waited=waited(self.call),
            **self._kept(),
        )

    def _run(self, started: Started, proceed: Run) -> Any:
        if started.lapsed:
            self.guard.tell("lapsed", holder=task_id_of(started.lapsed), fence=started.fence)
        lease = Lease(
            store=self.lock.store,
            key=self.lock.key,
            owner=self.call.owner,
            fence=started.fence,
            length=self.lock.lease,
            keep=self.lock.keep,
            asked=self.call.asked_at,
        )
        if self.policy.scope == "until_executing":
            self.call.at_start.append(lambda: self._let_go_of(lease))
        else:
            self.call.request.fence, self.call.request.lease = started.fence, lease
        marker = self.lock.marker(task_id_of(lease.owner))
        return self.guard.run(lease, proceed, lambda ending: self._end(lease, ending), marker)

    def _let_go_of(self, lease: Lease) -> None:
        """The body begins: from here on the next call may be queued."""
        if not self._let_go:
            self._let_go = True
            self.guard.give_back(lease, self._giving_back(lease, ended=False))

    def _end(self, lease: Lease, ending: Ending) -> Ask[str | None] | None:
        """How to give the lock back as the scope says."""
        if self._let_go:
            return None
        comes_again = ending.kind == "again" and not self.call.request.is_eager
        if comes_again and self.policy.scope != "while_executing":
            return self.lock.handing_back(lease.owner, lease.fence, self.queued_ttl + ending.delay).then(
                lambda back: back.successor
            )
        return self._giving_back(lease, ended=ending.is_end)

    def _giving_back(self, lease: Lease, *, ended: bool) -> Ask[str | None]:
        def given(back: GivenBack) -> str | None:
            self._wake(back)
            return back.successor

        ask = self.lock.giving_back(lease.owner, lease.fence, ended=ended, replay=self.call.replay)
        return ask.then(given)

    def _wake(self, back: GivenBack) -> None:
        """Have who waits in the room look at once: whose turn is next, and all who wait for this result."""
        if back.next:
            self.guard.wake(back.next)
        elif back.awaited or self.guard.was_woken:
            self.guard.wake()
        if back.awaited and self.policy.scope != "until_executing":
            self.guard.wake(ALL, woken="result")

    # --- the lock is another's

    def _conflict(self, held: Held, follows: str | None, proceed: Run) -> Any:
        on_conflict, holder = self.policy.on_conflict, task_id_of(held.owner)
        if self.guard.is_own(held.owner):
            self._wait(held, None)
        if held.ended:  # there is nothing to be had of it but the lock, when its process is gone
            self._wait(held, None)
        if follows:  # whoever was replaced waits for the newer call, whoever has the lock meanwhile
            self._wait(held, follows if on_conflict in {"replace", "keep_latest"} else holder)
        if self.policy.scope == "until_executing" and self.call.request.retries:
            return proceed(self.call)  # it began before, and its retry is no new call
        if on_conflict == "raise":
            self.guard.refuse(self._reason(held))
        if on_conflict != "skip" or self.call.in_canvas:
            self._wait(held, holder if on_conflict in {"use_existing", "skip"} else None)
        return self._skip(holder)

    def _wait(self, held: Held, follow: str | None) -> NoReturn:
        longest = self._poll if held.ahead is None else min(self._poll, self._turn_poll + held.ahead * PACE)
        headers: dict[str, str] | None = None
        if follow and self.policy.scope != "until_executing":
            headers = following(self.call, follow)
        if held.is_queued and not self.guard.is_own(held.owner):
            self.guard.wake(task_id_of(held.owner))  # it may wait for its turn, and not know that it has come
        self.guard.wait(
            held.owner,
            min(held.left + 0.01, self._poll),
            self._reason(held),
            headers,
            woken="result" if headers else "turn",
            countdown=min(held.left + 0.01, longest),
        )

    def _skip(self, holder: str) -> None:
        self.guard.tell("skipped", holder=holder)

    def _reason(self, held: Held) -> SingletonConflict:
        return SingletonConflict(f"key {self.guard.key} is held by {task_id_of(held.owner)}", held.left)

    def _handing_on(self, task_id: str | None) -> SingletonConflict:
        return SingletonConflict(f"key {self.guard.key}: {task_id} is handing its result on")

    def _kept(self) -> dict[str, float]:
        """For how long a turn, or a place in the line, is kept for this call."""
        if self.policy.on_conflict != "defer":
            return {"turn": self.queued_ttl}
        if self.guard.has_room:
            return {"turn": PARKED_POLL}
        return {"turn": self._turn_poll + TURN_SLACK, "most": self._poll + TURN_SLACK}

    @property
    def _poll(self) -> float:
        return backoff(self.call, LONGEST_POLL, SHORTEST_POLL)

    @property
    def _turn_poll(self) -> float:
        return backoff(self.call, TURN_POLL, SHORTEST_POLL)

    @property
    def _completes_a_place(self) -> bool:
        """Whether something waits for a result that another task may have given."""
        return self.call.in_canvas and self.policy.scope != "until_executing"

    # --- another's result

    def _outcome_followed(self, task_id: str | None, age: float) -> Outcome | None:
        """What the followed task ended with; ``None`` if that is nothing, so that this one has to run."""
        if not keeps_results(self.call):
            return Outcome(states.SUCCESS, None)
        outcome = self.guard.outcome_of(task_id)
        if outcome is None and age < PATIENCE:
            delay = backoff(self.call, 1.0, SHORTEST_POLL)
            self.guard.wait(None, delay, self._handing_on(task_id), following(self.call, task_id))
        return None if outcome is None or outcome.state == states.REVOKED else outcome
