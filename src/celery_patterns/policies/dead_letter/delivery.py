"""One delivery of a task whose deaths are kept.

The death is stored inside the task's run, before Celery reports the failure and long before it
acknowledges a late-acked message: a process killed in between leaves the message with the broker.
What does not pass through the run (a hard limit, a lost process, a rejection, a result that cannot
be stored) is stored when Celery reports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError

from celery_patterns.core.copies import EndedBefore
from celery_patterns.core.outcome import is_settled
from celery_patterns.core.partings import Parting
from celery_patterns.core.postpone import postpone, postpone_copy
from celery_patterns.core.waits import backoff, deferrals
from celery_patterns.deadletters import deliveries
from celery_patterns.deadletters.store import KIND
from celery_patterns.errors import PoisonMessage, Refused, StoreUnavailable
from celery_patterns.policies.dead_letter.burial import Burial
from celery_patterns.policies.dead_letter.life import Life

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call, Run
    from celery_patterns.policies.dead_letter.policy import DeadLetter


class Delivery:
    """What one delivery does about its death.

    Args:
        policy: The policy.
        call: The call that is being run, or was reported.
    """

    def __init__(self, policy: DeadLetter, call: Call) -> None:
        self.policy = policy
        self.call = call
        self.life = Life(call)
        self.teller = self.life.teller
        self.burial = Burial(policy, call, self.teller)
        self.sign: deliveries.Sign | None = None

    # --- in the run

    def run(self, proceed: Run) -> Any:
        """Run the body, unless this delivery has nothing left to run.

        Raises:
            celery.exceptions.Ignore: It is a copy from an earlier life of its task.
            PoisonMessage: It has killed its process too often.
        """
        note = self.burial.note()
        if note is not None:
            self.burial.at_last(note)
        if self._is_redelivered or deferrals(self.call) or self.life.replay:
            died_of = self.life.check()
            if died_of is not None:
                self.burial.know()
                raise died_of
        if self._may_come_again:
            self.call.at_start.append(self._begin)
        self.burial.capture()
        try:
            result = proceed(self.call)
        except Ignore as error:
            self._end()
            self.life.ignored(error)
            raise
        except (Retry, Reject):
            self._end_on_leaving()
            raise
        except Exception as error:
            self._end(poison=isinstance(error, PoisonMessage))
            self._die(error)
            raise
        self._end_on_leaving()
        return result

    @property
    def _is_redelivered(self) -> bool:
        return bool((self.call.request.delivery_info or {}).get("redelivered"))

    @property
    def _may_come_again(self) -> bool:
        """Whether the broker delivers the message once more if this process vanishes."""
        return bool(self.call.task.acks_late and not self.call.request.is_eager)

    def _die(self, error: Exception) -> None:
        """The body failed for good; unless the failure, or the task's end, is another delivery's."""
        if is_settled(self.call):
            self.burial.know()
            return
        if self._is_redelivered and self.life.has_succeeded:
            self.teller.tell("stale")
            raise EndedBefore(f"{self.call.id} has succeeded in another delivery") from error
        self.burial.bury(error)

    def _begin(self) -> None:
        """The body begins: leave a sign, unless too many deliveries have vanished.

        A delivery that is the first goes ahead without a sign while the store is away.
        """
        call, most = self.call, self.policy.max_deliveries
        is_first = not self._is_redelivered and not deferrals(call)
        if is_first and deliveries.is_away():
            return
        try:
            begun = deliveries.begin(call.app, str(call.id), call.owner, most)
        except StoreUnavailable as error:
            then = "going ahead uncounted" if is_first else "asking again later"
            self.teller.store_error("count", then, error)
            if is_first:
                return
            postpone(call, backoff(call, 30.0, 1.0), error, policy=KIND, key=self.life.entry)
        if isinstance(begun, deliveries.Poison):
            raise PoisonMessage(
                f"{call.name}[{call.id}] began {begun.vanished} times, and its process vanished each time"
            )
        if isinstance(begun, deliveries.Unsure):
            delay = max(begun.seconds, backoff(call, 60.0))
            reason = Refused(f"{call.id}: whether another delivery lives is not known yet", delay)
            postpone_copy(call, delay, reason, policy=KIND, key=self.life.entry)
        self.sign = begun

    def _end(self, *, poison: bool = False) -> None:
        """The body has ended, somehow: its task does not kill processes."""
        if self.sign is None and not poison:
            return
        try:
            deliveries.end(self.call.app, str(self.call.id), self.call.owner, self.sign)
        except StoreUnavailable as error:
            self._not_ended(error)

    def _end_on_leaving(self) -> None:
        """As :meth:`_end`, with what others have to tell the store then."""
        if self.sign is not None:
            ask = deliveries.ending(self.call.app, str(self.call.id), self.call.owner)
            self.call.partings.append(Parting(ask, lambda _: None, self._not_ended, self.sign))

    def _not_ended(self, error: StoreUnavailable) -> None:
        self.teller.store_error("end", "its sign of life runs out by itself", error)

    # --- where Celery reports

    def succeeded(self) -> None:
        """The result is stored, and all that follows it is published."""
        self.life.succeeded()

    def failed(self, error: BaseException) -> None:
        """Celery reports a final end, in the child after the run or in the worker's parent."""
        if not self.burial.has_letter:
            self._end(poison=True)
        if self.burial.is_known:
            return
        if isinstance(error, (Ignore, TaskRevokedError)):  # revoked: a person wanted that
            if self.life.replay:
                self.life.reached("open", "it was revoked")
            return
        self.burial.bury(error, told=True)

    def lost(self) -> None:
        """The process of this delivery is gone."""
        try:
            deliveries.lost(self.call.app, str(self.call.id), self.call.owner)
        except StoreUnavailable as error:
            self.teller.store_error("lost", "this delivery counts when its sign of life has run out", error)
        if self.life.replay and self.life.has_succeeded:  # it was lost before it could say so
            self.life.reached("resolved", f"replay {self.life.replay} succeeded before its process was lost")
