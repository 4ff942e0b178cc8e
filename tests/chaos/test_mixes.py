"""Any mix of policies, in any form and order: each keeps its own promise, whatever the others do."""

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.chaos.guarantees import check
from tests.chaos.inline import inline
from tests.chaos.mixes import Mix, Step, mixes, steps
from tests.chaos.summary import summary
from tests.ground.isolation import isolated

EXAMPLES = int(os.environ.get("CELERY_PATTERNS_CHAOS_EXAMPLES", "60"))


@settings(
    max_examples=EXAMPLES,
    derandomize="CELERY_PATTERNS_CHAOS_EXAMPLES" not in os.environ,
    deadline=None,
    report_multiple_bugs=False,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(mixes(), st.lists(steps, min_size=3, max_size=25))
def test_each_policy_keeps_its_promise_in_any_company(mix: Mix, steps: list[Step]) -> None:
    """Two policies that each hold alone could break each other's promise on one task."""
    with tempfile.TemporaryDirectory() as directory, isolated():
        with inline(Path(directory)) as world:
            world.bind(mix.policies, mix.places)
            task = mix.declare(world, "pay")
            for step in steps:
                step(world, mix, task)
            story = world.end()
        note(summary(story))
        assert not [str(one) for one in check(story)]
