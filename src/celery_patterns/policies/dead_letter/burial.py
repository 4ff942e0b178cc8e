"""Storing one death, now or later.

When the store is away, the message goes back to the broker with the cause in a header. Whoever
gets it then stores the death and does not run the body again. A failing task is never lost that
way, and never run once more because of its dead letter.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from celery.app.task import Context
from celery.exceptions import Ignore
from kombu.exceptions import KombuError

from celery_patterns.core.postpone import publish_copy, put_back
from celery_patterns.deadletters.cause import Cause, restored
from celery_patterns.deadletters.message import Message
from celery_patterns.deadletters.store import Death, put
from celery_patterns.errors import KeyArgumentError, PatternsError, StoreUnavailable

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call
    from celery_patterns.policies.dead_letter.policy import DeadLetter
    from celery_patterns.policies.dead_letter.telling import Teller

logger = logging.getLogger("celery_patterns")

BURIAL_HEADER = "cp-burial"
"""JSON: the cause of a death that could not be stored yet, by whom, whether Celery has reported it, tries."""

LONGEST_OUTAGE = 60.0
"""Seconds between two attempts to store a death."""
_TRACE_IN_HEADER = 4_000
_LONGEST_LOGGED = 100_000
_LETTER = "cp_letter"
_UNCHANGING = frozenset({str, bytes, int, float, bool, type(None)})
_BURIED = "cp_buried"


class Burial:
    """Stores the death of one delivery, or sees to it that another delivery does.

    Args:
        policy: The policy.
        call: The call that is being run, or was reported.
        teller: Says what happens.
    """

    def __init__(self, policy: DeadLetter, call: Call, teller: Teller) -> None:
        self.policy = policy
        self.call = call
        self.request = call.request
        self.teller = teller

    @property
    def is_known(self) -> bool:
        """Whether the death of this delivery is stored, or was known before."""
        return bool(getattr(self.request, _BURIED, False))

    def know(self) -> None:
        """There is nothing to store any more."""
        setattr(self.request, _BURIED, True)

    def note(self) -> dict[str, Any] | None:
        """What the message says of a death that could not be stored when it happened."""
        burial = self.call.headers.get(BURIAL_HEADER)
        return json.loads(burial) if burial else None

    @property
    def has_letter(self) -> bool:
        """Whether the message was captured before the body ran, in this very process."""
        return getattr(self.request, _LETTER, None) is not None

    def capture(self) -> None:
        """Keep the message as it is before the body runs, which may change its arguments.

        It is written only when it is needed, where there is nothing in it that could change.
        """
        call, request = self.call, self.request
        values = (*call.args, *call.kwargs.values())
        if call.in_canvas or not all(type(value) in _UNCHANGING for value in values):
            setattr(request, _LETTER, self.letter())
            return
        seen = Context(vars(request), headers=dict(request.headers or {}))
        setattr(request, _LETTER, (seen, call.args, dict(call.kwargs)))

    def letter(self) -> Message:
        """The message as it was before the body ran."""
        kept = getattr(self.request, _LETTER, None)
        if isinstance(kept, Message):
            return kept
        letter = self._written(*(kept or (self.request, self.call.args, self.call.kwargs)))
        if kept:
            setattr(self.request, _LETTER, letter)
        return letter

    def _written(self, request: Context, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Message:
        letter = Message.of_request(self.call.app, self.call.task, request, args, kwargs)
        headers = {name: value for name, value in letter.headers.items() if name != BURIAL_HEADER}
        return replace(letter, headers=headers)

    def bury(self, error: BaseException, *, told: bool = False) -> None:
        """Store the death, now or later.

        Args:
            error: What it died of.
            told: Whether Celery has reported the failure.

        Raises:
            celery.exceptions.Retry: The store is away: the message is with the broker again.
        """
        cause = Cause.of(self.call.app, error)
        try:
            self._store(cause, self.call.owner)
        except StoreUnavailable as trouble:
            self._later(cause, trouble, told=told)
        except PatternsError as trouble:
            self._unstored(cause, trouble)

    def at_last(self, note: dict[str, Any]) -> NoReturn:
        """Store a death that could not be stored when it happened, and let Celery report it.

        Raises:
            Exception: What the task died of, or
            celery.exceptions.Ignore: Celery has reported that before, or
            celery.exceptions.Retry: the store is still away.
        """
        cause = Cause(**{**note["cause"], "where": tuple(note["cause"]["where"])})
        try:
            self._store(cause, note["by"])
        except StoreUnavailable as trouble:
            self.teller.store_error("bury", "trying again later", trouble)
            headers = {BURIAL_HEADER: json.dumps({**note, "tries": note["tries"] + 1})}
            put_back(self.call, _pause(note["tries"]), trouble, headers, unseen=note["told"])
        except PatternsError as trouble:
            self._unstored(cause, trouble)
        if note["told"]:
            raise Ignore(f"{self.call.id} is a dead letter now")
        self.know()
        raise restored(self.call.app, cause.error, f"{cause.exception}: {cause.message}")

    def _store(self, cause: Cause, by: str) -> None:
        policy = self.policy
        stored = put(
            self.call.app,
            Death(
                letter=self.letter(),
                cause=cause,
                by=by,
                queue=cast("str", policy.queue),
                worker=self.request.hostname or "",
                retention=cast("float", policy.retention),
                redact=cast("tuple[str, ...]", policy.redact),
                secrets=self._secrets(),
            ),
        )
        self.know()
        if stored.deaths:
            self.teller.tell(
                "dead_lettered",
                source=cause.source,
                exception=cause.exception,
                state=stored.state,
                deaths=stored.deaths,
                cause=stored.cause,
            )

    def _secrets(self) -> tuple[Any, ...]:
        """The values of the arguments that are redacted."""
        found = self.letter().decoded(self.call.app) if self.policy.redact else None
        if found is None:
            return ()
        try:
            arguments = self.call.seam.bind(tuple(found[0]), found[1])
        except KeyArgumentError:  # the call does not fit the task: that may be what it died of
            return (*found[0], *found[1].values())
        return tuple(value for name, value in arguments.items() if name in cast("Any", self.policy.redact))

    def _later(self, cause: Cause, trouble: StoreUnavailable, *, told: bool) -> None:
        """The store is away: give the message, and why it died, to the broker to keep."""
        self.teller.store_error(
            "bury", "its message goes back to the broker until the store is there", trouble
        )
        if self.request.is_eager:
            self._unstored(cause, trouble)
            return
        call = self.call
        found = self.letter().decoded(call.app)
        if found is not None:  # the body may have changed its arguments
            call.args, call.kwargs = tuple(found[0]), found[1]
        cause = replace(cause, traceback=cause.traceback[-_TRACE_IN_HEADER:])
        note = {"cause": asdict(cause), "by": call.owner, "told": told, "tries": 1}
        headers = {BURIAL_HEADER: json.dumps(note)}
        if not told:
            put_back(call, _pause(0), trouble, headers)
        try:
            publish_copy(call, _pause(0), headers)
        except (KombuError, OSError) as away:
            self._unstored(cause, away)

    def _unstored(self, cause: Cause, trouble: Exception) -> None:
        """Nothing takes it: say all that is needed to send it again by hand."""
        letter = self.letter()
        logger.critical(
            "No dead letter of %s[%s] could be stored (%s); it died of %s: %s; headers %r, body %r",
            self.call.name,
            self.call.id,
            trouble,
            cause.exception,
            cause.message,
            letter.headers,
            letter.body if len(letter.body) <= _LONGEST_LOGGED else f"{len(letter.body)} bytes",
        )
        self.teller.tell("unstored", error=str(trouble))


def _pause(tries: int) -> float:
    """Seconds until the next attempt to store a death."""
    return float(min(LONGEST_OUTAGE, 2.0 ** min(tries, 10)))
