"""An effect happens again only where a fault explains it: what cannot be avoided, and no more."""

from collections import defaultdict

from tests.chaos.guarantees.violation import Violation, in_order
from tests.chaos.story import FOR_EVER, Body, Entry, Story

NAME = "an effect is not repeated without a cause"


def effects_explained(story: Story) -> list[Violation]:
    """Each effect of an order but one was of a run that could not record it, or had lost its key."""
    orders = defaultdict[tuple[str, str], list[Body]](list)
    for body in story.bodies:
        if body.effect:
            orders[body.begin["task"], body.begin["order"]].append(body)
    return [
        Violation(NAME, f"{order} had its effect again, and nothing explains it", in_order(evidence))
        for (_, order), bodies in orders.items()
        for recorded in [[body for body in bodies if not _explained(body, story)]]
        if len(recorded) > 1
        for evidence in [
            [entry for body in recorded for entry in (*body.entries, *story.about(body.begin["id"]))]
        ]
    ]


def _explained(body: Body, story: Story) -> bool:
    """Whether its process was killed before it had recorded the run, could not record it, or lost the key."""
    task_id, pid = body.begin["id"], body.begin["pid"]
    stored = [one["at"] for one in story.of("stored", id=task_id, pid=pid) if one["at"] >= body.start]
    if story.killed(pid, body.start) < min(stored, default=FOR_EVER):
        return True
    told = [
        one for one in story.of("event", id=task_id, pid=pid, policy="idempotency") if one["at"] >= body.start
    ]
    unrecorded = any(one["what"] == "store_error" and one["detail"]["at"] == "completion" for one in told)
    return unrecorded or any(one["what"] == "superseded" and _lapsed(one, story) for one in told)


def _lapsed(superseded: Entry, story: Story) -> bool:
    """Whether a whole lease had passed when another took the key over: fences tell the server's time."""
    lapses = story.of("event", what="lapsed", policy="idempotency", key=superseded["key"])
    fences = [one["detail"]["fence"] for one in lapses if one["detail"]["holder"] == superseded["id"]]
    return any(fence - superseded["detail"]["fence"] >= story.terms["lease"] * 1e6 for fence in fences)
