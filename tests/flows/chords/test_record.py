"""The record of a chord: every sequence of operations against a model in plain Python."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_patterns.flows.chords.backend import PartialRedisBackend
from celery_patterns.flows.chords.fetch import counts_or_metas, parts_by_result
from celery_patterns.flows.chords.outcomes import STATES
from celery_patterns.flows.chords.record import Again, ChordRecord, Counts

IDS = ["a", "b", "c"]
STRANGER = "stranger"
PAYLOAD = b'{"x": " 1 \\u00e9"}'


@pytest.fixture(scope="module", params=["fakeredis", "valkey"])
def backend(request: pytest.FixtureRequest) -> Iterator[PartialRedisBackend]:
    """A result backend on fakeredis, and one on a real server."""
    url = "redis://" if request.param == "fakeredis" else request.getfixturevalue("_valkey").url(3)
    made = PartialRedisBackend(app=Celery(set_as_current=False), url=url)
    if request.param == "fakeredis":
        made.client = fakeredis.FakeRedis()
    yield made
    made.client.flushdb()


@pytest.fixture
def record(backend: PartialRedisBackend) -> ChordRecord:
    """The record of a chord that has begun."""
    backend.client.flushdb()
    made = ChordRecord(backend, "chord")
    assert made.begin(IDS, deadline=None, steps=[]) == "begun"
    return made


@dataclass
class Model:
    """What the record should do."""

    slots: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(IDS))
    revoked_rest: bool = False
    claim: str | None = None
    ended: bool = False

    def counts(self) -> Any:
        """The numbers that an operation answers."""
        if self.ended:
            return "late"
        ended = [state for state in self.slots.values() if state in STATES]
        numbers = {state: ended.count(state) for state in STATES}
        return Counts(total=len(self.slots), **numbers)

    def report(self, task_id: str, state: str) -> Any:
        """A part says how it ended."""
        if not self.ended and task_id not in self.slots:
            return "unknown"
        if not self.ended and (
            self.slots[task_id] in {None, "running"} or (self.slots[task_id] == "lost" and state != "lost")
        ):
            self.slots[task_id] = state
        return self.counts()

    def enter(self, task_id: str, running: bool) -> Any:
        """A part starts, or waits again."""
        if not self.ended and task_id not in self.slots:
            return "unknown"
        if running and self.revoked_rest and self.slots.get(task_id) == "revoked":
            return "revoked"
        if not self.ended:
            if running and self.slots[task_id] is None:
                self.slots[task_id] = "running"
            elif not running and self.slots[task_id] == "running":
                self.slots[task_id] = "revoked" if self.revoked_rest else None
        return self.counts()

    def revoke(self) -> Any:
        """What has not started is revoked."""
        waiting = [one for one, state in self.slots.items() if state is None]
        if self.ended or self.revoked_rest:
            return self.counts(), []
        self.revoked_rest = True
        self.slots.update(dict.fromkeys(waiting, "revoked"))
        return self.counts(), sorted(waiting)

    def add(self, task_id: str) -> bool:
        """A part is added."""
        if not self.ended:
            self.slots.setdefault(task_id, None)
        return not self.ended

    def take(self, token: str) -> Any:
        """Somebody claims the end."""
        if self.ended:
            return "ended"
        self.claim = self.claim or token
        return "claimed" if self.claim == token else "busy"

    def end(self, token: str) -> bool:
        """Somebody has handed it on."""
        mine = self.claim == token and not self.ended
        self.ended = self.ended or mine
        return mine


ids = st.sampled_from([*IDS, STRANGER])
tokens = st.sampled_from(["one", "two"])
operations = st.lists(
    st.tuples(st.just("report"), ids, st.sampled_from(STATES))
    | st.tuples(st.just("enter"), ids, st.booleans())
    | st.tuples(st.just("revoke"))
    | st.tuples(st.just("add"), st.sampled_from(["a", "d", "e"]))
    | st.tuples(st.just("take"), tokens)
    | st.tuples(st.just("end"), tokens),
    max_size=14,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_any_sequence_of_operations_does_as_the_model(backend: Any, steps: list[tuple[Any, ...]]) -> None:
    """In some order of events a part would be counted twice or not at all, or a chord end twice."""
    backend.client.flushdb()
    record, model = ChordRecord(backend, "chord"), Model()
    assert record.begin(IDS, deadline=None, steps=[]) == "begun"
    for name, *args in steps:
        assert do(record, name, *args) == getattr(model, name)(*args), (name, args)
    if not model.ended:
        slots = {slot.task_id: slot for slot in record.slots()}
        expected = {one: state if state in STATES else None for one, state in model.slots.items()}
        assert {task_id: slot.state for task_id, slot in slots.items()} == expected
        assert [slot.index for slot in record.slots()] == list(range(len(model.slots)))
        assert all(slot.payload == (PAYLOAD if slot.state else b"") for slot in slots.values())


def do(record: ChordRecord, name: str, *args: Any) -> Any:
    """An operation of the record, with its answer as the model gives it."""
    match name:
        case "report":
            return record.report(*args, PAYLOAD)
        case "enter":
            return record.enter(args[0], running=args[1], payload=PAYLOAD)
        case "revoke":
            counts, revoked = record.revoke(PAYLOAD)
            return counts, sorted(revoked)
        case "take":
            claimed = record.claim(*args)
            return claimed if isinstance(claimed, str) else "busy"
        case "end":
            return record.end(*args, keep=True, ran=True)
        case _:
            return record.add(*args)


def test_beginning_again_changes_nothing(record: ChordRecord) -> None:
    """A chain step that is delivered twice would forget what had been reported."""
    record.report("a", "ok", b"1")
    assert record.begin(IDS, deadline=5, steps=["x"]) == "known"
    assert record.begin(["other"], deadline=5, steps=[]) == "other"
    assert record.slots()[0].state == "ok"


def test_the_deadline_gives_up_what_has_not_reported(
    record: ChordRecord, backend: Any, wait_for: Any
) -> None:
    """Parts would be lost too early, or those that have an outcome would lose it."""
    late = ChordRecord(backend, "late")
    late.begin(IDS, deadline=0.2, steps=[])
    late.report("b", "failed", b"why")
    late.enter("c", running=True, payload=b"")
    done = ChordRecord(backend, "done")
    done.begin(["a"], deadline=3600, steps=[])
    assert isinstance(done.expire(b"gone"), float)
    assert done.report("a", "ok", b"1") == done.expire(b"gone"), "nobody would hand on a complete chord's end"
    left = late.expire(b"gone")
    assert isinstance(left, float)
    assert 0 < left <= 0.2
    counts = wait_for(lambda: not isinstance(late.expire(b"gone"), float) and late.expire(b"other"))
    assert counts == Counts(total=3, ok=0, failed=1, revoked=0, lost=2)
    assert [(slot.state, slot.payload) for slot in late.slots()] == [
        ("lost", b"gone"),
        ("failed", b"why"),
        ("lost", b"gone"),
    ]
    assert late.report("a", "ok", b"1") == Counts(total=3, ok=1, failed=1, revoked=0, lost=1)
    assert record.expire(b"gone") == Counts(total=3, ok=0, failed=0, revoked=0, lost=0)


def test_a_claim_lapses(record: ChordRecord, backend: Any) -> None:
    """A process killed while it hands the end on would take the chord with it."""
    assert record.claim("dead") == "claimed"
    left = record.claim("other")
    assert isinstance(left, float)
    assert 19 < left <= 20
    backend.client.hset(record.keys[0], "until", 1)
    assert record.claim("other") == "claimed"
    assert not record.end("dead", keep=False, ran=True)
    assert record.end("other", keep=False, ran=True)
    assert record.slots() == []


def test_steps_are_revoked_with_the_parts_once(backend: Any) -> None:
    """The earlier steps of a chain would still run for a part that is given up."""
    backend.client.flushdb()
    record = ChordRecord(backend, "chord")
    record.begin(["a", "b"], deadline=None, steps=["x", "y"])
    record.report("a", "failed", b"")
    assert record.revoke(b"") == (Counts(total=2, ok=0, failed=1, revoked=1, lost=0), ["x", "y", "b"])
    assert record.revoke(b"") == (Counts(total=2, ok=0, failed=1, revoked=1, lost=0), [])


def test_nothing_is_kept_for_ever(record: ChordRecord, backend: Any) -> None:
    """A chord that never ends would stay in Redis, also where results never expire."""
    day = backend.expires
    for key in record.keys:
        assert day * 1000 - 5000 < backend.client.pttl(key) <= day * 1000
    later = ChordRecord(backend, "later")
    later.begin(IDS, deadline=3 * day, steps=[])
    later.known_as("result", 3 * day)
    later.report("a", "ok", b"")
    later.add("d")
    for key in (*later.keys, backend.get_key_for_group("result", ".chord-id")):
        assert 4 * day * 1000 - 5000 < backend.client.pttl(key) <= 4 * day * 1000
    assert [slot.task_id for slot in parts_by_result(backend, "result")] == [*IDS, "d"]
    assert [slot.task_id for slot in parts_by_result(backend, "chord")] == IDS
    counts = Counts(total=4, ok=1, failed=0, revoked=0, lost=0)
    assert counts_or_metas(backend, "result", []) == (counts, [])
    assert counts_or_metas(backend, "nobody", ["a"]) == (None, [{"status": "PENDING", "result": None}])
    forever = PartialRedisBackend(app=Celery(set_as_current=False), url="redis://", expires=0)
    assert ChordRecord(forever, "chord").ttl == 30 * 86_400


def test_a_report_brings_a_chord_back_from_near_its_expiry(record: ChordRecord, backend: Any) -> None:
    """A chord whose parts come in over days would be forgotten half-way."""
    for key in record.keys:
        backend.client.pexpire(key, 5000)
    record.report("a", "ok", b"")
    assert all(backend.client.pttl(key) > 5000 for key in record.keys)


def mend(record: ChordRecord, task_id: str, state: Any, needed: int | None) -> str:
    return record.mend(task_id, state, b"new", needed=needed, body_id="another")


def test_a_part_can_be_mended_after_the_end(record: ChordRecord, backend: Any) -> None:
    """A part that a person had run again would stay failed in its chord, or the body run with too little."""
    record.report("a", "ok", b"1")
    record.report("b", "failed", b"why")
    assert mend(record, "b", "ok", 2) == "live"
    record.report("c", "lost", b"gone")
    assert record.take_back("b", "wait") == "ending"
    record.claim("one")
    record.end("one", keep=True, ran=False)
    assert (mend(record, "x", "ok", None), mend(record, "a", "ok", 2)) == ("unknown", "ok")
    assert (record.take_back("x", "wait"), record.take_back("a", "wait")) == ("over", "over")
    assert record.report("b", "ok", b"2") == "late"
    assert record.take_back("b", "wait") == "replaces"
    assert record.report("b", "ok", b"2") == Again(total=3)
    assert mend(record, "b", "failed", 2) == "mended"
    assert record.report("b", "ok", b"2") == "late"
    assert (mend(record, "b", "ok", 3), record.body_id()) == ("mended", None)
    assert (mend(record, "c", "ok", 3), record.body_id()) == ("reopened", None)
    assert [slot.payload for slot in record.slots()] == [b"1", b"new", b"new"]
    assert record.claim("two") == "claimed"
    assert mend(ChordRecord(backend, "nobody"), "c", "ok", 1) == "unknown"
    assert ChordRecord(backend, "nobody").take_back("c", "wait") == "over"


def test_a_body_that_has_run_runs_again_under_one_other_id(record: ChordRecord) -> None:
    """The result that people have seen would change, or a killed process make a third run."""
    for task_id in IDS:
        record.report(task_id, "failed", b"why")
    record.claim("one")
    record.end("one", keep=True, ran=True)
    assert mend(record, "a", "ok", 1) == "reopened"
    assert record.body_id() == "another"
    assert record.report("a", "ok", b"2") == Counts(total=3, ok=1, failed=2, revoked=0, lost=0)
    assert record.body_id() == "another"


def test_a_part_that_is_run_again_is_waited_for(record: ChordRecord) -> None:
    """The body would run without a part that a person has mended in time."""
    assert record.take_back("a", "wait") == "unreported"
    record.report("a", "failed", b"why")
    assert record.take_back("a", "wait") == "waits"
    record.report("b", "ok", b"2")
    assert record.report("c", "ok", b"3") == Counts(total=3, ok=2, failed=0, revoked=0, lost=0)
    assert record.report("a", "ok", b"1") == Counts(total=3, ok=3, failed=0, revoked=0, lost=0)


def test_what_was_given_up_must_not_start_unless_a_person_says_so(record: ChordRecord) -> None:
    """A part would run although its chord says that it was revoked, or its replay would not run."""
    record.report("a", "failed", b"why")
    assert isinstance(record.enter("b", running=True, payload=b""), Counts)
    record.revoke(b"gone")
    assert record.enter("c", running=True, payload=b"") == "revoked"
    assert isinstance(record.enter("b", running=True, payload=b""), Counts)
    record.report("b", "ok", b"2")
    record.claim("one")
    record.end("one", keep=True, ran=False)
    assert record.enter("c", running=True, payload=b"") == "revoked"
    assert record.take_back("c", "wait") == "replaces"
    assert record.enter("c", running=True, payload=b"") == "late"


def test_an_outcome_is_replaced_once_where_it_is_not_waited_for(record: ChordRecord) -> None:
    """A chord around one that is mended would keep its failure, or wait for what may never come."""
    record.report("a", "failed", b"why")
    assert record.take_back("a", "replace") == "replaces"
    assert record.report("a", "failed", b"again") == Counts(total=3, ok=0, failed=1, revoked=0, lost=0)
    assert record.report("a", "ok", b"1") == Counts(total=3, ok=0, failed=1, revoked=0, lost=0)
    assert record.take_back("a", "replace") == "replaces"
    assert record.report("a", "ok", b"1") == Counts(total=3, ok=1, failed=0, revoked=0, lost=0)


def test_a_chord_that_is_given_up_waits_for_nothing(record: ChordRecord) -> None:
    """fail_fast has revoked the rest: a part that is run again would keep the errback waiting."""
    record.enter("b", running=True, payload=b"")
    record.report("a", "failed", b"why")
    record.revoke(b"gone")
    assert record.take_back("a", "wait") == "replaces"
