"""At most one recorded result for each idempotency key, and every duplicate gets it."""

import json
from collections import defaultdict
from typing import Any

from celery import states

from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Entry, Story

NAME = "one result per key"


def one_result(story: Story) -> list[Violation]:
    """All calls of one order that succeeded have one result, and it is the one in the record.

    A run that could not record its result, since the store was away at its end, has its own; it said so.
    """
    calls = defaultdict[tuple[str, str], list[Entry]](list)
    for call in story.guarded:
        if story.outcomes[call["id"]]["state"] == states.SUCCESS:
            calls[call["task"], call["order"]].append(story.outcomes[call["id"]])
    records = {(one["task"], one["order"]): _text(one["value"]) for one in story.of("record")}
    keys = {*calls, *records}
    return [found for key in sorted(keys) for found in _of_key(key, calls[key], records.get(key), story)]


def _of_key(
    key: tuple[str, str], outcomes: list[Entry], recorded: str | None, story: Story
) -> list[Violation]:
    others = [one for one in outcomes if _text(one["value"]) != recorded and not _said_unrecorded(one, story)]
    if not others:
        return []
    why = f"{' '.join(key)} is recorded as {recorded}, and {len(others)} calls got something else"
    return [
        Violation(NAME, why, [*outcomes, *story.of("begin", order=key[1]), *story.of("end", order=key[1])])
    ]


def _said_unrecorded(outcome: Entry, story: Story) -> bool:
    """Whether the run that gave this result said that it could not record it at once."""
    if not isinstance(outcome["value"], dict):
        return False
    run = outcome["value"]["by"].partition("/")[0]
    told = story.of("event", id=run, what="store_error", policy="idempotency")
    return any(event["detail"]["at"] == "completion" for event in told)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
