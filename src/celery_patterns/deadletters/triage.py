"""What a person decides about dead letters: put them aside, close, mend or delete them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.utils import json as kombu_json

from celery_patterns.core.script import Script
from celery_patterns.deadletters.query import Query
from celery_patterns.deadletters.store import SHARED
from celery_patterns.errors import DeadLetterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery

    from celery_patterns.core.store import Store
    from celery_patterns.deadletters.query import Filter

_move = Script("dead_letter_move", after=SHARED)
_edit = Script("dead_letter_edit", after=SHARED)

CHUNK = 500

UNSETTLED = ("open", "quarantined")
DECISIONS = {
    "archive": (UNSETTLED, "archived"),
    "unarchive": (("archived", "quarantined"), "open"),
    "resolve": ((*UNSETTLED, "replaying"), "resolved"),
    "reopen": (("replaying",), "open"),
    "purge": ((*UNSETTLED, "resolved", "archived"), "gone"),
}
"""What may be decided, from which states, and where it leads."""


def decide(store: Store, decision: str, wanted: Filter, words: str = "") -> int:
    """Apply one decision to all entries that are meant; how many were moved.

    An entry in a state from which the decision does not lead is left as it is.

    Raises:
        StoreUnavailable: Some may have been moved; asking again is safe.
    """
    from_, to = DECISIONS[decision]
    query, moved = Query(store), 0
    ids = [one for page in query.walk(wanted) for one in page]
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        moved += len(_move(store, [query.root], [" ".join(from_), to, words, *chunk]))
    return moved


def edit(
    app: Celery,
    store: Store,
    entry: str,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    words: str = "",
) -> None:
    """Give an entry other arguments; what it died with stays beside them.

    Args:
        app: Whose serializers.
        store: Where it is.
        entry: Its id.
        args: All positional arguments; default: as they were.
        kwargs: Keyword arguments to set; those not named stay as they were.
        words: Why, for the history.

    Raises:
        DeadLetterError: There is no such entry, it is not open, or its body cannot be read.
    """
    found = Query(store).get(entry)
    if found is None:
        raise DeadLetterError(f"no dead letter {entry!r}")
    decoded = found.letter.decoded(app)
    if decoded is None:
        raise DeadLetterError(f"{entry}: a body of type {found.letter.content_type} cannot be read here")
    old_args, old_kwargs, embed = decoded
    new_args = old_args if args is None else list(args)
    letter = found.letter.with_arguments(new_args, {**old_kwargs, **(kwargs or {})}, embed)
    headers = str(kombu_json.dumps(letter.headers))
    root = Query(store).root
    answer = _edit(store, [root], [entry, found.letter.body, letter.body, headers, words]).decode()
    if answer != "ok":
        raise DeadLetterError(f"{entry} cannot be edited: it is {answer}")
