"""Is the checker able to fail? Each mechanism is broken on purpose, and each guarantee has to notice."""

import sys
from pathlib import Path

import pytest

from tests.chaos.broken import MUTANTS
from tests.chaos.guarantees import GUARANTEES, check
from tests.chaos.inline import inline
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.story import Story
from tests.chaos.summary import summary


def played(scenario: str, directory: Path) -> Story:
    with inline(directory) as world:
        SCENARIOS[scenario](world)
        return world.end()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_found_where_nothing_is_broken(scenario: str, tmp_path: Path) -> None:
    """A checker that always finds something would be switched off."""
    story = played(scenario, tmp_path)
    assert not check(story), summary(story)


def test_each_guarantee_rests_on_something_that_is_broken_here() -> None:
    """A checker that nothing makes fail may be one that cannot."""
    names = {sys.modules[guarantee.__module__].NAME for guarantee, _ in GUARANTEES}
    assert names == {guarantee for _, _, guarantee in MUTANTS.values()}


@pytest.mark.parametrize("what", MUTANTS)
def test_a_broken_mechanism_is_noticed(what: str, tmp_path: Path) -> None:
    """A guarantee could be lost, and the suite would still pass."""
    broken, scenario, guarantee = MUTANTS[what]
    with broken():
        story = played(scenario, tmp_path)
    found = check(story)
    assert guarantee in {one.guarantee for one in found}, [str(one) for one in found]
    assert all(one.entries and one.why in str(one) for one in found)
