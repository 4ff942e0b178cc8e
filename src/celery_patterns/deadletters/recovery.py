"""Entries that were left in *replaying*: by a replayer that was killed, or by a replay that never reported.

Each entry that is taken has a lease: a short one until its publication is reported, then a longer
one, which begins anew with each delivery of its message. When it has run out, the result backend is
asked. If it knows of a success, the entry is resolved; else it is open again. Its message may still
be on its way: if it begins before the next replay of the entry, it takes the entry back; later it
is a copy of an earlier life, and ends without running the body.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import states

from celery_patterns.core.script import Script
from celery_patterns.deadletters.store import SHARED, end, root_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from celery_patterns.core.store import Store

logger = logging.getLogger("celery_patterns")

_lapsed = Script("dead_letter_lapsed", after=SHARED)
_reopen = Script("dead_letter_reopen", after=SHARED)

_PAGE = 500


def recover(app: Celery, store: Store) -> int:
    """Settle what was left in *replaying* for longer than its lease; how many entries were opened again.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    reopened = 0
    for entry, replay, task_id in list(_left(store)):
        succeeded = _has_succeeded(app, task_id or entry)
        if succeeded:
            end(app, entry, replay, "resolved", f"replay {replay} succeeded, as the result backend knows")
        elif succeeded is not None:
            reopened += _reopen(store, [root_of(store)], [entry, replay])
    return reopened


def _left(store: Store) -> Iterator[tuple[str, int, str]]:
    """Entry, replay and task id of those whose lease has run out."""
    start = 0
    while True:
        seen, *found = _lapsed(store, [root_of(store)], [_PAGE, start])
        texts = [one.decode() for one in found]
        for entry, replay, task_id in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
            yield entry, int(replay), task_id
        start += seen
        if seen < _PAGE:
            return


def _has_succeeded(app: Celery, task_id: str) -> bool | None:
    """What the result backend knows of a task; ``None`` if it is out of reach."""
    backend: Any = app.backend
    try:
        return bool(backend.get_state(task_id) == states.SUCCESS)
    except NotImplementedError:  # no backend keeps results
        return False
    except Exception as error:  # noqa: BLE001 - whatever the user's backend raises when it is away
        logger.warning("Cannot ask how %s ended (%s); its dead letter stays in replaying", task_id, error)
        return None
