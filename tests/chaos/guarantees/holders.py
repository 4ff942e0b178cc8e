"""Never two holders where the fence is checked; without the check, only where one has lost its lease.

A fence tells when its holder took the lease, by the server's clock. So two bodies may overlap only if the
second one took it a whole lease after the first one at least, and something had kept that from renewing it.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Body, Story

NAME = "one holder"
SHARE = 0.5
"""The share of its lease for which one is out of touch who loses it: two thirds, less some slack."""


def one_holder(story: Story) -> list[Violation]:
    """Check each account by itself."""
    accounts = defaultdict[str, list[Body]](list)
    for body in story.bodies:
        if body.begin["fence"] is not None:
            accounts[body.begin["account"]].append(body)
    return [found for bodies in accounts.values() for check in CHECKS for found in check(bodies, story)]


def _fences_differ(bodies: list[Body], _: Story) -> Iterator[Violation]:
    """No two runs have one fence."""
    for one, other in pairwise(sorted(bodies, key=lambda body: body.begin["fence"])):
        if one.begin["fence"] == other.begin["fence"]:
            yield Violation(NAME, "two runs had one fence", [*one.entries, *other.entries])


def _no_update_is_lost(bodies: list[Body], _: Story) -> Iterator[Violation]:
    """Of the updates that were accepted, each has seen the one before, and has a higher fence."""
    updates = sorted((body for body in bodies if body.effect), key=lambda body: body.begin["fence"])
    for one, other in pairwise(updates):
        if one.effect["number"] >= other.effect["number"]:
            why = "an update was lost: a later holder has not seen what an earlier one wrote"
            yield Violation(NAME, why, [*one.entries, *other.entries])


def _overlaps_are_explained(bodies: list[Body], story: Story) -> Iterator[Violation]:
    """No more are at work at once than may be, but for those that have lost their lease to another."""
    inside: list[Body] = []
    for body in sorted(bodies, key=lambda one: one.start):
        inside = [one for one in inside if one.end > body.start]
        holding = [one for one in inside if not _lost_its_lease(one, body, story)]
        inside.append(body)
        if len(holding) >= story.terms["places"]:
            why = (
                f"{len(holding) + 1} bodies for {body.begin['account']} at once, and none has lost its lease"
            )
            yield Violation(NAME, why, [entry for one in (*holding, body) for entry in one.entries])


def _lost_its_lease(one: Body, other: Body, story: Story) -> bool:
    """Whether the earlier holder of two had lost its lease when the later one took it."""
    lease = story.terms["lease"]
    first, second = sorted((one, other), key=lambda body: body.begin["fence"])
    if second.begin["fence"] - first.begin["fence"] < lease * 1e6:
        return False
    away = story.out_of_touch(first.begin, first.start - lease, max(first.start, second.start))
    return away >= SHARE * lease


CHECKS = (_fences_differ, _no_update_is_lost, _overlaps_are_explained)
