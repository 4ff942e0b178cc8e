"""What has to hold, one guarantee per file: functions of a story, which return what breaks them."""

from collections.abc import Callable
from itertools import chain

from tests.chaos.guarantees.accounted import bodies_accounted_for
from tests.chaos.guarantees.effects import effects_explained
from tests.chaos.guarantees.handing_on import handed_on_once
from tests.chaos.guarantees.holders import one_holder
from tests.chaos.guarantees.leftovers import nothing_left
from tests.chaos.guarantees.letters import failures_kept
from tests.chaos.guarantees.limits import limits_kept
from tests.chaos.guarantees.lost import nothing_lost
from tests.chaos.guarantees.poison import killers_stopped
from tests.chaos.guarantees.results import one_result
from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Story

Guarantee = Callable[[Story], list[Violation]]

GUARANTEES: tuple[tuple[Guarantee, str | None], ...] = (
    (bodies_accounted_for, None),
    (nothing_lost, None),
    (one_result, "idempotency"),
    (effects_explained, "idempotency"),
    (handed_on_once, "idempotency"),
    (one_holder, None),
    (limits_kept, "token_bucket"),
    (failures_kept, "dead_letter"),
    (killers_stopped, "dead_letter"),
    (nothing_left, None),
)
"""Each guarantee, and the policy that a task needs to have it."""


def check(story: Story) -> list[Violation]:
    """Return all that breaks any guarantee."""
    kinds = {None, *story.terms["kinds"]}
    return list(chain.from_iterable(guarantee(story) for guarantee, kind in GUARANTEES if kind in kinds))
