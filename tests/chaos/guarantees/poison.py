"""A task that kills its processes is stopped: no body begins once so many have vanished without a report."""

from collections import defaultdict

from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Body, Story

NAME = "a task that kills is stopped"


def killers_stopped(story: Story) -> list[Violation]:
    """Count the bodies of each call that were killed since the last one that ended, where that is known."""
    calls = defaultdict[str, list[Body]](list)
    for body in story.bodies:
        calls[body.begin["id"]].append(body)
    return [found for bodies in calls.values() for found in _too_many(bodies, story)]


def _too_many(bodies: list[Body], story: Story) -> list[Violation]:
    most = story.terms["max_deliveries"]
    vanished: list[Body] = []
    found = []
    for body in sorted(bodies, key=lambda one: one.start):
        if len(vanished) >= most:
            why = f"{body.begin['id']} began again, after {len(vanished)} bodies had vanished"
            found.append(Violation(NAME, why, [entry for one in (*vanished, body) for entry in one.entries]))
        if body.finish is not None:
            vanished.clear()
        elif body.killed and not _uncounted(body, story):
            vanished.append(body)
    return found


def _uncounted(body: Body, story: Story) -> bool:
    """Whether it may have begun without a sign, or its sign may be lost: the store was out of reach."""
    return story.out_of_touch(body.begin, body.start - story.terms["lease"], body.end) > 0
