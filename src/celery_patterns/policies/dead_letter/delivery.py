"""One delivery of a task whose deaths are kept.

The death is stored inside the task's run, before Celery reports the failure and long before it
acknowledges a late-acked message: a process killed in between leaves the message with the broker.
What does not pass through the run (a hard limit, a lost process, a rejection, a result that cannot
be stored) is stored when Celery reports it.

When the store is away, the message goes back to the broker with the cause in a header. Whoever
gets it then stores the death and does not run the body again. A failing task is never lost that
way, and never run once more because of its dead letter.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from celery import signals, states
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError
from kombu.exceptions import KombuError

from celery_patterns.core.events import Event, emit
from celery_patterns.core.outcome import is_settled
from celery_patterns.core.policy import REPLAY_HEADER
from celery_patterns.core.postpone import postpone, publish_copy, put_back
from celery_patterns.core.waits import backoff, deferrals
from celery_patterns.deadletters import deliveries
from celery_patterns.deadletters.cause import Cause, restored
from celery_patterns.deadletters.message import Message
from celery_patterns.deadletters.store import KIND, Buried, Death, begin, end, life_of, put
from celery_patterns.errors import KeyArgumentError, PatternsError, PoisonMessage, StoreUnavailable

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call, Run
    from celery_patterns.policies.dead_letter.policy import DeadLetter

logger = logging.getLogger("celery_patterns")

BURIAL_HEADER = "cp-burial"
"""JSON: the cause of a death that could not be stored yet, by whom, whether Celery has reported it, tries."""

LONGEST_OUTAGE = 60.0
"""Seconds between two attempts to store a death."""
_TRACE_IN_HEADER = 4_000
_LETTER = "cp_letter"
_BURIED = "cp_buried"


class Delivery:
    """What one delivery does about its death.

    Args:
        policy: The policy.
        call: The call that is being run, or was reported.
    """

    def __init__(self, policy: DeadLetter, call: Call) -> None:
        self.policy = policy
        self.call = call
        self.request = call.request
        self.entry, self.replay = life_of(dict(call.headers), str(call.id))
        self.sign: deliveries.Sign | None = None

    # --- in the run

    def run(self, proceed: Run) -> Any:
        """Run the body, unless this delivery has nothing left to run.

        Raises:
            celery.exceptions.Ignore: It is a copy from an earlier life of its task.
            PoisonMessage: It has killed its process too often.
        """
        burial = self.call.headers.get(BURIAL_HEADER)
        if burial:
            self._bury_at_last(json.loads(burial))
        redelivered = bool((self.request.delivery_info or {}).get("redelivered"))
        if redelivered or self.replay:
            self._check()
        if self.replay:
            _watch_successes()
        if redelivered or deferrals(self.call):
            self.call.at_start.append(self._count)
        setattr(self.request, _LETTER, self._letter())
        try:
            result = proceed(self.call)
        except (Retry, Ignore, Reject):
            self._ended()
            raise
        except Exception as error:
            self._ended(poison=isinstance(error, PoisonMessage))
            if is_settled(self.call):
                setattr(self.request, _BURIED, True)
                raise
            self._bury(error)
            raise
        self._ended()
        return result

    def _check(self) -> None:
        """Let only the current life of the task go on."""
        try:
            answer = begin(self.call.app, self.entry, self.replay)
        except StoreUnavailable as error:
            self._store_error("begin", "asking again later", error)
            postpone(self.call, backoff(self.call, 30.0, 1.0), error, policy=KIND, key=self.entry)
        if isinstance(answer, Buried):
            self._tell("buried")
            if self._failure_is_stored():
                raise Ignore(f"{self.call.id} is a dead letter already")
            setattr(self.request, _BURIED, True)
            raise answer.error
        if not answer:
            self._tell("stale")
            raise Ignore(f"{self.call.id} is a copy from before its latest replay")

    def _failure_is_stored(self) -> bool:
        """Whether Celery has reported the death; where it keeps no results, nobody waits for one."""
        if self.request.ignore_result or self.call.task.ignore_result:
            return True
        try:
            return bool(self.call.task.backend.get_state(self.call.id) == states.FAILURE)
        except Exception as error:  # noqa: BLE001 - whatever the user's backend raises when it is away
            unavailable = StoreUnavailable(str(error))
            postpone(self.call, backoff(self.call, 30.0, 1.0), unavailable, policy=KIND, key=self.entry)

    def _count(self) -> None:
        """The body begins: leave a sign, unless too many have vanished."""
        most = self.policy.max_deliveries
        try:
            answer = deliveries.begin(self.call.app, str(self.call.id), self.call.owner, most)
        except StoreUnavailable as error:
            self._store_error("count", "asking again later", error)
            postpone(self.call, backoff(self.call, 30.0, 1.0), error, policy=KIND, key=self.entry)
        if isinstance(answer, int):
            raise PoisonMessage(
                f"{self.call.name}[{self.call.id}] began {answer} times, and its process vanished each time"
            )
        self.sign = answer

    def _ended(self, *, poison: bool = False) -> None:
        """The body has ended, somehow: its task does not kill processes."""
        if self.sign is None and not poison:
            return
        try:
            deliveries.end(self.call.app, str(self.call.id), self.sign)
        except StoreUnavailable as error:
            self._store_error("end", "its sign of life runs out by itself", error)

    # --- where Celery reports

    def failed(self, error: BaseException) -> None:
        """Celery reports a final end, in the child after the run or in the worker's parent."""
        if not getattr(self.request, _LETTER, None):
            self._ended(poison=True)
        if getattr(self.request, _BURIED, False):
            return
        if isinstance(error, (Ignore, TaskRevokedError)):  # revoked: a person wanted that
            if self.replay:
                self._reopen("it was revoked")
            return
        self._bury(error, told=True)

    def lost(self) -> None:
        """The process of this delivery is gone."""
        try:
            deliveries.lost(self.call.app, str(self.call.id), self.call.owner)
        except StoreUnavailable as error:
            self._store_error("lost", "this delivery is not counted", error)

    def _reopen(self, words: str) -> None:
        try:
            if end(self.call.app, self.entry, self.replay, "open", words):
                self._tell("reopened", reason=words)
        except StoreUnavailable as error:
            self._store_error("reopen", "its entry stays in replaying", error)

    # --- storing

    def _letter(self) -> Message:
        """The message as it was before the body ran."""
        kept = getattr(self.request, _LETTER, None)
        if kept is not None:
            return cast("Message", kept)
        call = self.call
        letter = Message.of_request(call.app, call.task, self.request, call.args, call.kwargs)
        headers = {name: value for name, value in letter.headers.items() if name != BURIAL_HEADER}
        return replace(letter, headers=headers)

    def _bury(self, error: BaseException, *, told: bool = False) -> None:
        """Store the death, now or later."""
        cause = Cause.of(self.call.app, error)
        try:
            self._store(cause, self.call.owner)
        except StoreUnavailable as trouble:
            self._bury_later(cause, trouble, told=told)
        except PatternsError as trouble:
            self._unstored(cause, trouble)

    def _store(self, cause: Cause, by: str) -> None:
        policy = self.policy
        stored = put(
            self.call.app,
            Death(
                letter=self._letter(),
                cause=cause,
                by=by,
                queue=cast("str", policy.queue),
                worker=self.request.hostname or "",
                retention=cast("float", policy.retention),
                redact=cast("tuple[str, ...]", policy.redact),
                secrets=self._secrets(),
            ),
        )
        setattr(self.request, _BURIED, True)
        if stored.deaths:
            self._tell(
                "dead_lettered",
                source=cause.source,
                exception=cause.exception,
                state=stored.state,
                deaths=stored.deaths,
                cause=stored.cause,
            )

    def _secrets(self) -> tuple[Any, ...]:
        """The values of the arguments that are redacted."""
        found = self._letter().decoded(self.call.app) if self.policy.redact else None
        if found is None:
            return ()
        try:
            arguments = self.call.seam.bind(tuple(found[0]), found[1])
        except KeyArgumentError:  # the call does not fit the task: that may be what it died of
            return (*found[0], *found[1].values())
        return tuple(value for name, value in arguments.items() if name in cast("Any", self.policy.redact))

    def _bury_later(self, cause: Cause, trouble: StoreUnavailable, *, told: bool, tries: int = 0) -> None:
        """The store is away: give the message, and why it died, to the broker to keep."""
        self._store_error("bury", "its message goes back to the broker until the store is there", trouble)
        if self.request.is_eager:
            self._unstored(cause, trouble)
            return
        restored_call = self.call
        found = self._letter().decoded(self.call.app)
        if found is not None:  # the body may have changed its arguments
            restored_call.args, restored_call.kwargs = tuple(found[0]), found[1]
        cause = replace(cause, traceback=cause.traceback[-_TRACE_IN_HEADER:])
        note = {"cause": asdict(cause), "by": self.call.owner, "told": told, "tries": tries + 1}
        headers = {BURIAL_HEADER: json.dumps(note)}
        delay = min(LONGEST_OUTAGE, 1.0 * 2 ** min(tries, 10))
        if not told:
            put_back(restored_call, delay, trouble, headers)
        try:
            publish_copy(restored_call, delay, headers)
        except (KombuError, OSError) as away:
            self._unstored(cause, away)

    def _bury_at_last(self, note: dict[str, Any]) -> NoReturn:
        """Store a death that could not be stored when it happened, and let Celery report it."""
        cause = Cause(**{**note["cause"], "where": tuple(note["cause"]["where"])})
        try:
            self._store(cause, note["by"])
        except StoreUnavailable as trouble:
            told = bool(note["told"])
            self._store_error("bury", "trying again later", trouble)
            delay = min(LONGEST_OUTAGE, 2.0 ** min(note["tries"], 10))
            headers = {BURIAL_HEADER: json.dumps({**note, "tries": note["tries"] + 1, "told": told})}
            put_back(self.call, delay, trouble, headers)
        except PatternsError as trouble:
            self._unstored(cause, trouble)
        if note["told"]:
            raise Ignore(f"{self.call.id} is a dead letter now")
        setattr(self.request, _BURIED, True)
        raise restored(self.call.app, cause.error, f"{cause.exception}: {cause.message}")

    def _unstored(self, cause: Cause, trouble: Exception) -> None:
        """Nothing takes it: say all that is needed to send it again by hand."""
        letter = self._letter()
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
        self._tell("unstored", error=str(trouble))

    def _store_error(self, at: str, then: str, error: Exception) -> None:
        logger.warning(
            "%s[%s], dead letters, at its %s: %s; %s", self.call.name, self.call.id, at, error, then
        )
        self._tell("store_error", at=at, error=str(error))

    def _tell(self, kind: str, **detail: Any) -> None:
        call = self.call
        emit(Event(kind=kind, policy=KIND, task=call.name, task_id=call.id, key=self.entry, detail=detail))


_LONGEST_LOGGED = 100_000


def _watch_successes() -> None:
    """Hear of successes from now on: a process that gets no replays need not."""
    signals.task_success.connect(_on_success, weak=False, dispatch_uid="celery-patterns-dead-letters")


def _on_success(sender: Any, **_: Any) -> None:
    """A replay has ended well: its result is stored, and all that follows it is published."""
    request = sender.request
    headers = request.headers or {}
    if not headers.get(REPLAY_HEADER):
        return
    entry, replay = life_of(headers, request.id)
    try:
        if end(sender.app, entry, replay, "resolved", f"replay {replay} succeeded"):
            _tell_resolved(sender, request, entry)
    except StoreUnavailable as error:
        logger.warning(
            "%s[%s] succeeded, but dead letter %s could not be resolved (%s); resolve it by hand",
            sender.name,
            request.id,
            entry,
            error,
        )


def _tell_resolved(task: Any, request: Any, entry: str) -> None:
    emit(Event(kind="resolved", policy=KIND, task=task.name, task_id=request.id, key=entry))
