"""Outcomes and thresholds, as pure values."""

import json
import pickle
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.json import dumps, loads

from celery_patterns.errors import ChordFailed, PolicyError
from celery_patterns.flows.chords.outcomes import STATES, Outcome, Outcomes
from celery_patterns.flows.chords.threshold import Threshold

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
good = st.builds(lambda id_, value: {"id": id_, "state": "ok", "value": value}, st.text(), json_values)
bad = st.builds(
    lambda id_, state, error, message: {"id": id_, "state": state, "error": error, "message": message},
    st.text(),
    st.sampled_from(STATES[1:]),
    st.text(min_size=1),
    st.text(),
)
results = st.lists(good | bad, max_size=12)
counts = st.integers(0, 400)


@given(results)
def test_outcomes_survive_json(given_results: list[dict[str, Any]]) -> None:
    """A body that hands its outcomes on, or an errback that reads them later, would get something else."""
    outcomes = Outcomes(given_results)
    assert outcomes.records() == given_results
    assert Outcomes(json.loads(json.dumps(outcomes.records()))) == outcomes
    assert Outcomes(loads(dumps({"argument": outcomes}))["argument"]) == outcomes
    assert Outcomes(outcomes) == outcomes
    assert pickle.loads(pickle.dumps(outcomes)) == outcomes


def test_a_line_about_outcomes_names_a_failure_before_what_was_revoked_for_it() -> None:
    """The one line that an operator reads would tell him that parts were revoked, and not why."""
    revoked = {"id": "a", "state": "revoked", "error": "TaskRevokedError", "message": "fail_fast"}
    failed = {"id": "b", "state": "failed", "error": "ValueError", "message": "bad row"}
    expected = "1 failed, 1 revoked (first: part 1, ValueError: bad row)"
    assert str(Outcomes([revoked, failed])) == expected
    assert str(Outcomes([revoked])) == "1 revoked (first: part 0, TaskRevokedError: fail_fast)"


def test_what_is_no_list_of_outcomes_is_refused() -> None:
    """A body that was called with nothing would raise something about iteration."""
    with pytest.raises(PolicyError, match="None is not the list of outcomes"):
        Outcomes(None)  # type: ignore[arg-type]


@given(results)
def test_every_part_is_counted_once_and_keeps_its_place(given_results: list[dict[str, Any]]) -> None:
    """A report made from successes and failures would miss a part, or take one for another."""
    outcomes = Outcomes(given_results)
    assert len(outcomes) == len(given_results) == sum(outcomes.counts.values())
    assert sorted(part.index for part in outcomes.successes + outcomes.failures) == list(range(len(outcomes)))
    assert [outcomes[index].index for index in range(len(outcomes))] == list(range(len(outcomes)))
    assert all(part.ok for part in outcomes.successes)
    assert not any(part.ok for part in outcomes.failures)
    assert set(outcomes.counts) == set(STATES)


@given(results)
def test_values_are_those_of_the_good_parts_in_header_order(given_results: list[dict[str, Any]]) -> None:
    """A body would add up a stand-in, or put a value in another part's place."""
    outcomes, stand_in = Outcomes(given_results), object()
    assert outcomes.values() == [one["value"] for one in given_results if one["state"] == "ok"]
    padded = outcomes.values(default=stand_in)
    assert padded == [one["value"] if one["state"] == "ok" else stand_in for one in given_results]
    assert outcomes.values(default=None) == [one.get("value") for one in given_results]


@given(results)
def test_failures_are_raised_with_all_outcomes(given_results: list[dict[str, Any]]) -> None:
    """A body that wants all or nothing would go on with less, or not know what was missing."""
    outcomes = Outcomes(given_results)
    if not outcomes.failures:
        outcomes.raise_for_failures()
        return
    with pytest.raises(ChordFailed) as caught:
        outcomes.raise_for_failures()
    assert Outcomes(caught.value.results) == outcomes
    assert Outcomes(pickle.loads(pickle.dumps(caught.value)).results) == outcomes


def test_what_a_person_reads_is_short() -> None:
    """A log line or a traceback would hold ten thousand outcomes."""
    many = Outcomes({"id": str(n), "state": "ok", "value": n} for n in range(10_000))
    failed = ChordFailed("too few", many.records())
    assert repr(many) == "<Outcomes: 10000 ok>"
    assert str(failed) == "too few"
    assert repr(failed) == "ChordFailed('too few', <10000 results>)"
    lost = {"id": "a", "state": "lost", "error": None, "message": "nobody reported"}
    assert str(Outcomes([lost])) == "1 lost (first: part 0, nobody reported)"
    assert Outcomes([lost])[0].reason == "nobody reported"
    assert repr(Outcomes([])) == "<Outcomes: none>"


@pytest.mark.parametrize("value", [7, "text", None, {"state": "ok"}, {"id": "a", "state": "good"}, [1, "a"]])
def test_plain_values_are_refused(value: Any) -> None:
    """On a backend that makes no outcomes, a body would take values for outcomes and fail obscurely."""
    with pytest.raises(PolicyError, match=r"result 1 is .* not an outcome.*partial\+redis"):
        Outcomes([{"id": "a", "state": "ok", "value": 1}, value])


def test_an_outcome_says_why_there_is_no_value() -> None:
    """A report could not say what went wrong with a part."""
    outcome = Outcome(index=0, state="failed", task_id="a", error="ValueError", message="bad row")
    assert outcome.reason == "ValueError: bad row"
    assert Outcome(index=0, state="ok", task_id="a", value=1).reason == ""


# --- thresholds


@given(counts, counts)
def test_a_count_is_met_exactly_at_the_count(needed: int, total: int) -> None:
    """A chord would run one part too early, or never."""
    threshold = Threshold(min_success=needed)
    assert threshold.is_met(needed, total)
    assert not threshold.is_met(needed - 1, total)


@given(st.decimals(0, 1, places=3), counts)
def test_a_share_is_met_exactly_at_the_share(share: Any, total: int) -> None:
    """0.1 of 30 would need 4 parts, by an error of binary fractions."""
    threshold = Threshold(min_share=float(share))
    least = next(good for good in range(total + 1) if good >= Fraction(share) * total)
    assert threshold.needed(total) == least
    assert threshold.is_met(least, total)
    assert not threshold.is_met(least - 1, total)


@given(counts)
def test_without_a_threshold_all_are_needed(total: int) -> None:
    """A chord that asks for nothing special would run with less than all."""
    assert Threshold().is_met(total, total)
    assert not Threshold().is_met(total - 1, total)


@given(
    st.builds(Threshold, min_success=counts)
    | st.builds(Threshold, min_share=st.floats(0, 1))
    | st.just(Threshold()),
    counts,
    st.data(),
)
def test_out_of_reach_is_said_as_soon_as_it_is_true(threshold: Threshold, total: int, data: Any) -> None:
    """fail_fast would give up a chord that can still succeed, or go on with one that cannot."""
    bad = data.draw(st.integers(0, total))
    best = total - bad
    assert threshold.is_out_of_reach(bad, total) == (not threshold.is_met(best, total))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_success": -1}, "min_success=-1"),
        ({"min_success": 0.5}, "min_success=0.5"),
        ({"min_success": True}, "min_success=True"),
        ({"min_share": 1.5}, "min_share=1.5"),
        ({"min_share": "half"}, "min_share='half'"),
        ({"min_share": True}, "min_share=True"),
        ({"min_share": float("nan")}, "min_share=nan"),
        ({"min_success": 1, "min_share": 0.5}, "give one of them"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    """A percentage taken for a share, or a share for a count, would be found out when the body never runs."""
    with pytest.raises(PolicyError, match=message):
        Threshold(**options)
