"""Bounded sessions of the chaos suite, on both brokers; `python -m tests.chaos` plays the long ones."""

import os
from typing import Any

import pytest

from tests.chaos.faults import HABITS
from tests.chaos.guarantees import check
from tests.chaos.scene import Scene
from tests.chaos.session import Terms, play
from tests.chaos.summary import summary
from tests.ground.stage import Stage

SEED = int(os.environ.get("CELERY_PATTERNS_CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("CELERY_PATTERNS_CHAOS_SECONDS", "25"))

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(600)]


def test_all_guarantees_hold_together_under_all_faults(broker: Any, stage: Stage) -> None:
    """A payment could be lost, made twice or over a limit, or fail unseen, when processes or servers fail."""
    with Scene(stage, SEED) as scene:
        story = play(scene, Terms(seed=SEED, seconds=SECONDS, every=0.7, habits=HABITS))
    found = check(story)
    told = "\n".join([f"seed {SEED}, history {stage.history.path}", summary(story), *map(str, found)])
    assert not found, told
    assert len(story.disturbances) > SECONDS / 4, told
    assert len(story.bodies) > SECONDS / 2, told
