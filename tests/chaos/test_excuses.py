"""What the checker lets pass: only what no library could keep, and only where the history says why."""

from typing import Any

import pytest

from tests.chaos.faults import HABITS
from tests.chaos.guarantees import check
from tests.chaos.plan import plan
from tests.chaos.story import Entry, Story
from tests.chaos.terms import LEASE, as_entry

PARENT, CHILD, OTHER = 10, 11, 12


def entry(event: str, at: float, pid: int = CHILD, **fields: Any) -> Entry:
    return {"event": event, "at": at, "pid": pid, **fields}


def call(name: str, state: str = "SUCCESS", value: Any = None) -> list[Entry]:
    """A call as its publisher and Celery saw it."""
    arguments = {"order": "order", "account": "account", "branch": 0, "fate": "fine"}
    published = entry("published", 0.0, 1, id=name, task="pay", **arguments)
    return [published, entry("outcome", 100.0, 1, id=name, state=state, value=value)]


def replaced(at: float) -> list[Entry]:
    """A worker that was told to stop when another had taken its place."""
    return [entry("worker", 0.0, slot=0, name="old"), entry("worker", at, slot=0, name="new")]


def body(
    name: str, start: float, end: float | None, *, pid: int = CHILD, number: int | None = None
) -> list[Entry]:
    """A body as its process saw it; without an end, it was killed. It took its lease as it began."""
    about = {"id": name, "task": "pay", "owner": f"{name}/{pid}", "order": "order", "account": "account"}
    about |= {"fence": round(start * 1e6)}
    found = [entry("begin", start, pid, granted={}, parent=PARENT, retries=0, **about)]
    if number is not None:
        found.append(entry("effect", start + 0.1, pid, number=number, **about))
    if end is not None:
        found.append(entry("end", end, pid, how="returned", **about))
    return found


def fault(kind: str, start: float, end: float, pids: list[int]) -> list[Entry]:
    about = {"number": int(start * 10), "kind": kind, "slot": 0}
    return [entry("fault", start, 1, pids=pids, **about), entry("over", end, 1, **about)]


def found(*parts: list[Entry]) -> set[str]:
    """Which guarantees are broken in a history."""
    worker = entry("worker", 0.0, 1, slot=0, worker=PARENT)
    entries = [entry("terms", 0.0, 1, **as_entry(8.0)), worker, *(one for part in parts for one in part)]
    return {one.guarantee for one in check(Story(sorted(entries, key=lambda one: one["at"])))}


def event(name: str, moment: float, what: str, **detail: Any) -> list[Entry]:
    return [entry("event", moment, id=name, what=what, policy="idempotency", key="key", detail=detail)]


def lapsed(holder: str, fence: int) -> list[Entry]:
    """Another call has taken the key over from a holder that vanished."""
    return event("b", 4.0, "lapsed", holder=holder, fence=fence)


SENT = [entry("sent", 5.0, 1, id="a", by=None, parent=1)]
RESULT = {"by": f"a/{CHILD}", "number": 1}
RECORD = [entry("record", 100.0, 1, task="pay", order="order", value=RESULT)]


@pytest.mark.parametrize(
    ("meanwhile", "lost"),
    [
        ([], True),
        (fault("kill_worker", 7.0, 8.0, [PARENT, CHILD]), False),
        (fault("kill_worker", 4.9, 5.5, [PARENT, CHILD]), False),
        (fault("kill_worker", 2.0, 3.0, [PARENT, CHILD]), True),
        (fault("kill_worker", 30.0, 31.0, [PARENT, CHILD]), True),
        ([*replaced(6.0), entry("stuck", 50.0, name="old")], False),
        ([*replaced(30.0), entry("stuck", 50.0, name="old")], True),
        (replaced(6.0), True),
        (fault("kill_child", 7.0, 8.0, [CHILD]), True),
        (
            [*fault("kill_worker", 7.0, 8.0, [PARENT]), entry("received", 5.5, id="a", redelivered=False)],
            True,
        ),
    ],
)
def test_a_message_that_no_worker_has_seen(meanwhile: list[Entry], lost: bool) -> None:
    """A lost call would be taken for one that the broker lost with a killed worker, or the other way."""
    assert found(call("a", "PENDING"), SENT, meanwhile) == ({"nothing is lost"} if lost else set())


@pytest.mark.parametrize(
    ("meanwhile", "lost"),
    [
        (fault("kill_worker", 9.0, 9.5, [OTHER]), False),
        (fault("kill_worker", 30.0, 30.5, [OTHER]), True),
        ([], True),
        ([*fault("kill_worker", 9.0, 9.5, [OTHER]), entry("received", 8.0, id="a", redelivered=True)], True),
    ],
)
def test_a_message_that_was_given_back(meanwhile: list[Entry], lost: bool) -> None:
    """What a worker gives back when its pool process was killed is a message like any other."""
    received = [entry("received", 5.5, id="a", redelivered=False)]
    killed = [*received, *body("a", 6.0, None), *fault("kill_child", 6.5, 7.0, [CHILD])]
    broken = found(call("a", "PENDING"), SENT, killed, meanwhile)
    assert ("nothing is lost" in broken) is lost


def test_a_kill_explains_one_lost_message() -> None:
    """A worker has asked for one at a time; ten calls that were lost by us would be excused by one kill."""
    killed = fault("kill_worker", 7.0, 8.0, [PARENT, CHILD])
    other = [entry("sent", 5.0, 1, id="b", by=None, parent=1)]
    both = call("a", "PENDING"), call("b", "PENDING"), SENT, other
    assert "nothing is lost" in found(*both, killed)
    assert "nothing is lost" not in found(*both, killed, fault("kill_worker", 6.0, 6.5, [PARENT, CHILD]))


def test_a_part_that_is_stored_and_not_counted() -> None:
    """A chord that we hang would be excused by a part killed at another time, or Celery's be ours."""
    gathered = call("body", "PENDING")
    gathered[0] |= {"parts": ["a"]}
    ran = [*call("a"), *body("a", 1.0, 1.3, number=1)]
    assert "nothing is lost" in found(gathered, ran)
    assert "nothing is lost" in found(gathered, ran, fault("kill_child", 5.0, 5.1, [CHILD]))
    assert "nothing is lost" not in found(gathered, ran, fault("kill_child", 1.4, 1.5, [CHILD]))


def test_a_late_holder_has_its_effect_after_the_record() -> None:
    """A holder that stood still would be held against the run that had its key in the meantime."""
    late = body("a", 5.0, 5.3, number=2)
    told = [*event("a", 5.4, "superseded", fence=1_000_000), *lapsed("a", 3_000_000)]
    name = "an effect is not repeated without a cause"
    recorded = body("b", 4.0, 4.3, pid=OTHER, number=1)
    assert name not in found(call("a"), call("b"), recorded, late, told)
    assert name in found(call("a"), call("b"), recorded, late)


def test_a_message_that_waits_is_not_lost_by_the_broker() -> None:
    """What is stuck in the waiting room would be taken for lost by whoever was killed at that time."""
    killed = fault("kill_worker", 7.0, 8.0, [PARENT, CHILD])
    key = entry("key", 99.0, name="room-entry", key="cp:room-entry:{cp}:a", ttl=-0.001, now=99.0, fields={})
    assert "nothing is lost" in found(call("a", "PENDING"), SENT, killed, [key])


@pytest.mark.parametrize(
    ("state", "lost"), [("SUCCESS", False), ("FAILURE", False), ("RETRY", True), ("PENDING", True)]
)
def test_a_call_that_shows_for_ever_that_it_waits(state: str, lost: bool) -> None:
    """A call that hangs in RETRY would count as ended."""
    failed = [entry("failed", 3.0, id="a", error="E")]
    assert ("nothing is lost" in found(call("a", state), failed)) == lost


@pytest.mark.parametrize(
    ("meanwhile", "later", "explained"),
    [
        ([], 0.5, False),
        ([], LEASE + 0.5, False),
        (fault("stop_child", 1.2, 1.2 + LEASE, [CHILD]), LEASE + 0.5, True),
        (fault("stop_child", 1.2, 1.2 + LEASE, [CHILD]), LEASE - 0.5, False),
        (fault("stop_child", 1.2, 1.4, [CHILD]), LEASE + 0.5, False),
        (fault("stop_child", 20.0, 30.0, [CHILD]), LEASE + 0.5, False),
        (fault("stop_child", 1.2, 1.2 + LEASE, [99]), LEASE + 0.5, False),
        (fault("kill_child", 1.2, 1.3, [CHILD]), 0.5, True),
        (fault("kill_child", 1.2, 1.3, [99]), 0.5, False),
    ],
)
def test_two_bodies_at_once(meanwhile: list[Entry], later: float, explained: bool) -> None:
    """Two holders would be excused by a fault that has nothing to do with them."""
    killed = any(one.get("kind") == "kill_child" and CHILD in one.get("pids", ()) for one in meanwhile)
    first = body("a", 1.0, None if killed else 4.0)
    second = body("b", 1.0 + later, 5.0, pid=OTHER)
    calls = [*call("a", "FAILURE"), *call("b", "FAILURE")]
    assert ("one holder" not in found(calls, first, second, meanwhile)) == explained


@pytest.mark.parametrize(
    ("meanwhile", "explained"),
    [
        ([], False),
        (event("a", 1.2, "store_error", at="completion"), True),
        (event("a", 1.2, "store_error", at="begin"), False),
        (event("a", 1.2, "superseded", fence=1_000_000), False),
        ([*event("a", 1.2, "superseded", fence=1_000_000), *lapsed("a", 3_000_000)], True),
        ([*event("a", 1.2, "superseded", fence=1_000_000), *lapsed("a", 2_000_000)], False),
        ([*event("a", 1.2, "superseded", fence=1_000_000), *lapsed("c", 3_000_000)], False),
        (fault("kill_child", 1.2, 1.3, [CHILD]), True),
        ([entry("stored", 1.15, id="a"), *fault("kill_child", 1.2, 1.3, [CHILD])], False),
    ],
)
def test_an_effect_again(meanwhile: list[Entry], explained: bool) -> None:
    """A payment that was made twice would be excused by whatever happened that day."""
    first = body("a", 1.0, 1.3, number=1)
    second = body("b", 5.0, 5.3, pid=OTHER, number=2)
    name = "an effect is not repeated without a cause"
    assert (name not in found(call("a"), call("b"), first, second, meanwhile)) == explained


@pytest.mark.parametrize(
    ("value", "told", "broken"),
    [
        (RESULT, [], False),
        ({"by": "b/12", "number": 2}, [], True),
        ({"by": "b/12", "number": 2}, event("b", 2.0, "store_error", at="completion"), False),
        ({"by": "b/12", "number": 2}, event("a", 2.0, "store_error", at="completion"), True),
    ],
)
def test_another_result(value: Any, told: list[Entry], broken: bool) -> None:
    """A duplicate could be given a result that nobody recorded."""
    assert (
        "one result per key" in found(call("a", value=RESULT), call("b", value=value), RECORD, told)
    ) == broken


def test_a_result_that_is_not_recorded() -> None:
    """A record could vanish before its time."""
    assert found(call("a", value=RESULT)) == {"one result per key"}


def test_a_seed_gives_the_same_faults_again() -> None:
    """A violation could not be played again."""
    short = plan(7, 60, HABITS, slots=2, every=1.0)
    assert short == plan(7, 60, HABITS, slots=2, every=1.0) != plan(8, 60, HABITS, slots=2, every=1.0)
    assert all(fault.end <= 60 for fault in short)
    within = [fault for fault in plan(7, 120, HABITS, slots=2, every=1.0) if fault.end <= 60]
    assert [(one.at, one.kind, one.draw) for one in within] == [(one.at, one.kind, one.draw) for one in short]


@pytest.mark.parametrize(
    ("meanwhile", "explained"),
    [
        ([], False),
        ([entry("stored", 1.2, id="a")], False),
        (fault("kill_child", 1.1, 1.2, [CHILD]), True),
        ([entry("stored", 1.05, id="a"), *fault("kill_child", 1.1, 1.2, [CHILD])], False),
        (fault("kill_child", 1.1, 1.2, [99]), False),
        (fault("stop_child", 0.9, 3.0, [CHILD]), True),
        (event("a", 0.9, "store_error", at="completion"), True),
    ],
)
def test_what_follows_goes_out_again(meanwhile: list[Entry], explained: bool) -> None:
    """A chain would go on twice, and a fault elsewhere excuse it."""
    sent = [
        entry("sent", at, pid, id=f"next-{pid}", by="a", parent=PARENT)
        for at, pid in ((1, CHILD), (5, OTHER))
    ]
    broken = "what follows goes out once" in found(call("a", value=RESULT), RECORD, sent, meanwhile)
    assert broken != explained
