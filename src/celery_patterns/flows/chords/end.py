"""The end of a partial chord, handed on once: the body runs with all outcomes, or fails with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import states
from celery.exceptions import ChordError
from celery.utils.log import get_task_logger

from celery_patterns.errors import ChordFailed
from celery_patterns.flows.chords.fail import fail, failing_requests
from celery_patterns.flows.chords.fetch import metas_of
from celery_patterns.flows.chords.mark import unmarked
from celery_patterns.flows.chords.outcomes import Outcomes
from celery_patterns.flows.chords.record import ChordRecord, Slot
from celery_patterns.flows.chords.watch import watch_later

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.canvas import Signature

    from celery_patterns.flows.chords.mark import Mark

logger = get_task_logger(__name__)

MARGIN = 1.0
"""Seconds after a claim's end until it is looked at again."""


def end_if_complete(backend: Any, body: Mapping[str, Any], mark: Mark) -> None:
    """Hand the end of a complete chord on, unless another process does.

    Args:
        backend: The result backend.
        body: The chord's body, as the parts carry it.
        mark: That of the chord.
    """
    record, token = ChordRecord(backend, str(mark.id)), uuid4().hex
    claimed = record.claim(token)
    if claimed == "ended":
        return
    if claimed != "claimed":  # whoever holds the claim may have been killed
        watch_later(backend.app, record.id, body, claimed + MARGIN)
        return
    results = [_result(backend, slot) for slot in record.slots()]
    again = record.body_id()
    if record.claim(token) != "claimed":  # this process stood still, and another one has taken over
        return
    signature = unmarked(body, backend.app)
    ran = _hand_on(backend, signature.clone(task_id=again) if again else signature, mark, results)
    if not record.end(token, keep=any(result["state"] != "ok" for result in results), ran=ran):
        logger.warning("Chord %s took longer to end than its claim lasts: it may have ended twice", record.id)


def end_forgotten(backend: Any, body: Mapping[str, Any], mark: Mark, *, expired: bool) -> None:
    """Fail a chord of whose record nothing is left at its deadline, unless its end can be seen.

    Args:
        backend: The result backend.
        body: The chord's body, as the parts carry it.
        mark: That of the chord.
        expired: Whether it is so late that the record of a chord which ended well is gone as well.
    """
    if expired:
        logger.warning(
            "The deadline of chord %s is looked at so late that its record, if it has ended, has expired",
            mark.id,
        )
        return
    signature = unmarked(body, backend.app)
    found = metas_of(backend, [str(request.id) for request in failing_requests(signature)])
    if any(meta["status"] != states.PENDING for meta in found.values()):
        return
    logger.error(
        "The record of chord %s is gone from the result backend before its deadline: "
        "what its parts reported is lost, and its body fails",
        mark.id,
    )
    fail(backend, signature, ChordFailed("the record of the chord is gone from the result backend"))


def too_few(results: list[dict[str, Any]], mark: Mark) -> ChordError | None:
    """The error of a chord of which too few parts are ok; ``None`` when there are enough."""
    if mark.plain:
        return _as_celery_says_it(results)
    total, good = len(results), sum(result["state"] == "ok" for result in results)
    if mark.threshold.is_met(good, total):
        return None
    needed = mark.threshold.needed(total)
    return ChordFailed(f"{needed} of {total} parts must be ok: {Outcomes(results)}", results)


def _as_celery_says_it(results: list[dict[str, Any]]) -> ChordError | None:
    bad = [result for result in results if result["state"] != "ok"]
    if not bad:
        return None
    culprit = next((result for result in bad if result["state"] == "failed"), bad[0])
    what = f"{culprit['error'] or culprit['state']}({culprit['message']!r})"
    return ChordError(f"Dependency {culprit['id']} raised {what}")


def _hand_on(backend: Any, body: Signature[Any], mark: Mark, results: list[dict[str, Any]]) -> bool:
    """Publish the body, or fail it; whether it runs."""
    failure = too_few(results, mark)
    if failure is None:
        try:
            body.apply_async(([one["value"] for one in results] if mark.plain else results,))
        except Exception as error:
            logger.exception("The body of chord %s could not be published, so it fails", mark.id)
            failure = ChordFailed(f"the body could not be published: {error!r}", results)
            failure.__cause__ = error
    if failure is not None:
        fail(backend, body, failure)
    return failure is None


def _result(backend: Any, slot: Slot) -> dict[str, Any]:
    """One outcome as the body is given it."""
    found = backend.decode(slot.payload)
    what = {"value": found} if slot.state == "ok" else found
    return {"id": slot.task_id, "state": slot.state, **what}
