"""At most one recorded result for each idempotency key, and every duplicate gets it."""

import json
from collections import defaultdict
from typing import Any

from celery import states

from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Entry, Story

NAME = "one result per key"
CLOCKS = 10.0
"""Seconds by which the times in a history may differ: some workers' clocks are wrong."""


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
    known = [one for one in outcomes if not _said_unrecorded(one, story)]
    if recorded is None and known and _is_forgotten(key[1], story):
        recorded = _text(known[0]["value"])
    others = [one for one in known if _text(one["value"]) != recorded]
    if not others:
        return []
    why = f"{' '.join(key)} is recorded as {recorded}, and {len(others)} calls got something else"
    return [
        Violation(NAME, why, [*outcomes, *story.of("begin", order=key[1]), *story.of("end", order=key[1])])
    ]


def _is_forgotten(order: str, story: Story) -> bool:
    """Whether the record's time was over when records were read: then calls are compared with each other."""
    ends = [entry["at"] for entry in story.of("end", order=order)]
    read = max((entry["at"] for entry in story.of("outcome")), default=0.0)
    return bool(ends) and max(ends) + story.terms["ttl"] < read + CLOCKS


def _said_unrecorded(outcome: Entry, story: Story) -> bool:
    """Whether the run that gave this result said that it could not record it at once."""
    if not isinstance(outcome["value"], dict):
        return False
    run = outcome["value"]["by"].partition("/")[0]
    told = story.of("event", id=run, what="store_error", policy="idempotency")
    return any(event["detail"]["at"] == "completion" for event in told)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
