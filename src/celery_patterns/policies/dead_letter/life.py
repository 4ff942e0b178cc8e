"""Which life of its task a delivery belongs to, and how a replay, which is a later life, ends.

A replay that ends is reported to its entry at once. Where that fails (the store is away, the
process dies), the entry stays *replaying* until its lease has run out; then a later replayer asks
the result backend, and opens the entry again if that knows of no success.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celery import states

from celery_patterns.core.copies import EndedBefore, PutOffUnseen
from celery_patterns.core.lease import Lease, keeper
from celery_patterns.core.outcome import keeps_results, outcome_of
from celery_patterns.core.postpone import postpone
from celery_patterns.core.store import store_of
from celery_patterns.core.waits import backoff
from celery_patterns.deadletters.store import KIND, Buried, begin, end, life_of
from celery_patterns.errors import StoreUnavailable
from celery_patterns.policies.dead_letter.telling import Teller

if TYPE_CHECKING:
    from typing import Literal

    from celery.exceptions import Ignore

    from celery_patterns.core.policy import Call

logger = logging.getLogger("celery_patterns")

PATIENCE = 3_600.0
"""Seconds for which a process keeps trying to report how a replay ended."""


class Life:
    """The life that one delivery belongs to.

    Args:
        call: The call that is being run, or was reported.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.entry, self.replay = life_of(call.headers, str(call.id))
        self.teller = Teller(call, self.entry)

    def check(self) -> Exception | None:
        """Let only the current life go on; or return what it has died of, if Celery was not told yet.

        Raises:
            celery.exceptions.Ignore: It is over.
            celery.exceptions.Retry: The store is away.
        """
        try:
            answer = begin(self.call.app, self.entry, self.replay)
        except StoreUnavailable as error:
            self._ask_later(error)
        if isinstance(answer, Buried):
            self.teller.tell("buried")
            if self._is_reported():
                raise EndedBefore(f"{self.call.id} is a dead letter already")
            return answer.error
        if not answer:
            self.teller.tell("stale")
            raise EndedBefore(f"{self.call.id} is a copy from before its latest replay")
        return None

    def _is_reported(self) -> bool:
        """Whether Celery has reported the death; where it keeps no results, nobody waits for one."""
        if not keeps_results(self.call) or self.call.task.ignore_result:
            return True
        try:
            outcome = outcome_of(self.call, self.call.id)
        except StoreUnavailable as error:
            self._ask_later(error)
        return outcome is not None and outcome.state == states.FAILURE

    def _ask_later(self, error: StoreUnavailable) -> None:
        self.teller.store_error("begin", "asking again later", error)
        postpone(self.call, backoff(self.call, 30.0, 1.0), error, policy=KIND, key=self.entry)

    @property
    def has_succeeded(self) -> bool:
        """Whether some delivery of this task has succeeded, as far as the result backend knows."""
        if not keeps_results(self.call):
            return False
        try:
            outcome = outcome_of(self.call, self.call.id)
        except StoreUnavailable:
            return False
        return outcome is not None and outcome.state == states.SUCCESS

    def ignored(self, error: Ignore) -> None:
        """The run of a replay ended with ``Ignore``: by itself, or because it is a copy."""
        if not self.replay or isinstance(error, PutOffUnseen):
            return
        if self.has_succeeded:
            self.report("resolved", f"replay {self.replay} succeeded in an earlier delivery")
        elif not isinstance(error, EndedBefore):
            self.report("open", f"replay {self.replay} ended with Ignore")

    def succeeded(self) -> None:
        """The run of a replay ended well."""
        if self.replay:
            self.report("resolved", f"replay {self.replay} succeeded")

    def report(self, state: Literal["resolved", "open"], words: str) -> None:
        """Report how a replay ended; in the background, if the store is away."""

        def attempt() -> None:
            self._report(state, words)

        try:
            attempt()
        except StoreUnavailable as error:
            self.teller.store_error(state, "trying again while this process lives", error)
            store = store_of(self.call.app)
            unending = Lease(
                store=store, key=self.entry, owner=self.call.owner, fence=0, length=PATIENCE, keep=PATIENCE
            )
            keeper.finish(unending, attempt, lambda: self._unreported(state))

    def reached(self, state: Literal["resolved", "open"], words: str) -> None:
        """Report how a replay ended, in the worker's parent, which has no thread that tries again."""
        try:
            self._report(state, words)
        except StoreUnavailable as error:
            self.teller.store_error(state, "its entry stays in replaying until its lease ends", error)

    def _report(self, state: Literal["resolved", "open"], words: str) -> None:
        if end(self.call.app, self.entry, self.replay, state, words):
            self.teller.tell("resolved" if state == "resolved" else "reopened", reason=words)

    def _unreported(self, state: str) -> None:
        logger.error(
            "Dead letter %s is %s, which could not be recorded; it stays in replaying until its lease ends",
            self.entry,
            state,
        )
