"""The scripts of leases and records against a model: any order of calls, clocks, crashes, repetitions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from celery_patterns.core.lease import Lease, lapse
from celery_patterns.core.store import Store
from celery_patterns.policies.idempotency.record import (
    Claimed,
    Ended,
    Lapsed,
    Record,
    Reused,
    Running,
    Started,
)
from celery_patterns.testing import MovableClock
from tests.core.lease_model import CLAIM, LEASE, TTL, Model

KEYS = ["cp:idempotency:{one}", "cp:idempotency:{two}"]
OWNERS = ["a/1", "a/2", "b/1", "b/2", "c/1"]
NEAR = 4.0
"""Seconds for which a step may really last."""

keys, owners = st.sampled_from(KEYS), st.sampled_from(OWNERS)
again = st.sampled_from([False, False, True])
"""Whether a command is sent a second time, as after a lost reply."""


@dataclass
class Run:
    """What a delivery knows that was told to start."""

    key: str
    owner: str
    fence: int
    of: str
    attempt: int
    alive_until: float
    over: bool = False


class Leases(RuleBasedStateMachine):
    """Deliveries of three tasks fight over two keys."""

    runs = Bundle("runs")
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(self.url)
        self.store.client.flushall()
        self.clock = MovableClock(self.store)
        self.model = Model()
        self.began = self.store.now()
        self.granted: dict[str, list[Run]] = {key: [] for key in KEYS}

    def teardown(self) -> None:
        """Leave no connection behind."""
        self.store.close()

    # --- what deliveries do ---

    @rule(
        target=runs,
        key=keys,
        owner=owners,
        of=st.sampled_from(["same", "same", "same", "other"]),
        attempt=st.integers(0, 1),
        on_lapsed=st.sampled_from(["rerun", "rerun", "hold"]),
        resent=again,
    )
    def begin(self, *, key: str, owner: str, of: str, attempt: int, on_lapsed: str, resent: bool) -> Any:
        """A delivery asks what to do."""
        expected = self.model.begin(key, owner, of, attempt, on_lapsed)
        record = self._record(key, owner, of, attempt)
        options: dict[str, Any] = {"lease": LEASE, "ttl": TTL, "on_lapsed": on_lapsed, "claim": CLAIM}
        answer = record.begin(**options)
        self._compare(answer, expected, key)
        if expected[0] == "start":
            self.model.started(key, owner, of, answer.fence)
        if resent:
            with self._nothing_changes():
                repeated = record.begin(**options)
            assert getattr(repeated, "fence", type(repeated)) == getattr(answer, "fence", type(answer))
        if expected[0] != "start":
            return multiple()
        run = Run(key, owner, answer.fence, of, attempt, self.model.now + LEASE)
        self._started(run)
        return run

    @rule(run=runs, resent=again)
    def renew(self, run: Run, resent: bool) -> None:
        """A holder asks for another full length."""
        expected = self.model.renew(run.key, run.owner, run.fence)
        for _ in range(1 + resent):
            assert self._lease(run).renew() == expected
        if expected:
            run.alive_until = self.model.now + LEASE
        else:
            run.over = True

    @rule(run=runs, state=st.sampled_from(["completed", "completed", "failed", "absent"]), resent=again)
    def end(self, run: Run, state: str, resent: bool) -> None:
        """A run reports how it ended, in time or long after its lease."""
        if run.over:
            return
        run.over = True
        end = f"result of {run.fence}".encode()
        expected = self.model.end(run.key, run, state, end)
        assert self._end(run, state, end) == expected
        if resent:
            with self._nothing_changes():
                assert self._end(run, state, end) == expected

    @rule(run=consumes(runs), noticed=st.booleans(), grace=st.sampled_from([0.0, 1.0]), resent=again)
    def crash(self, run: Run, noticed: bool, grace: float, resent: bool) -> None:
        """Its process dies; the worker's parent notices, or dies with it."""
        if not noticed:
            return
        for _ in range(1 + resent):
            lapse(self.store, run.key, run.owner, grace)
        self.model.lapse(run.key, run.owner, grace)
        for other in self.granted[run.key]:
            if other.owner == run.owner:  # they die with their process
                other.alive_until = min(other.alive_until, self.model.now + grace)

    @rule(run=runs, owner=owners, state=st.sampled_from(["completed", "failed", "absent"]))
    def end_what_is_anothers(self, run: Run, owner: str, state: str) -> None:
        """With another's fence, or an old one of its own."""
        held = self.model.records.get(run.key)
        if held is None or (held.owner, held.fence) == (owner, run.fence):
            return
        thief = Run(run.key, owner, run.fence, run.of, 0, 0)
        with self._nothing_changes():
            assert self._end(thief, state, b"stolen") == held.owner
            assert not self._lease(thief).renew()

    # --- what happens to them ---

    @rule(seconds=st.sampled_from([10, 40, 40, 100, 500, 1_000, 2_000]))
    def time_passes(self, seconds: int) -> None:
        """Leases lapse, records expire."""
        self.clock.advance(seconds)
        self.model.advance(seconds)

    @precondition(lambda self: self.model.records)
    @rule(key=keys)
    def the_record_vanishes(self, key: str) -> None:
        """The server loses it, or an operator has it forgotten."""
        self.store.client.delete(key)
        self.model.vanish(key)
        for run in self.granted[key]:
            run.alive_until = 0  # nothing can protect it any more

    # --- what holds at any time ---

    @invariant()
    def the_server_holds_what_the_model_holds(self) -> None:
        """Above all: a result stays what it is for as long as it is kept."""
        client = self.store.client
        self.model.advance(self.store.now() - self.began - self.model.now)  # what has really passed
        for key in KEYS:
            held, fields = self.model.records.get(key), client.hgetall(key)
            assert (held is None) == (not fields)
            if held is None:
                continue
            state = None if held.state is None else held.state.encode()
            assert (fields[b"owner"], int(fields[b"fence"])) == (held.owner.encode(), held.fence)
            assert (fields.get(b"state"), fields.get(b"end", b"")) == (state, held.end)
            assert abs(client.pttl(key) / 1000 - (held.expires - self.model.now)) < NEAR

    @invariant()
    def every_key_has_a_time_to_live(self) -> None:
        """Nothing stays for ever."""
        client = self.store.client
        lasting = {key for key in client.scan_iter("cp:*") if client.pttl(key) < 0}
        assert lasting <= {b"cp:clock"}

    # --- details ---

    def _started(self, run: Run) -> None:
        for other in self.granted[run.key]:
            assert run.fence > other.fence
            assert other.over or other.alive_until <= self.model.now, f"{other} and {run} run at once"
        self.granted[run.key].append(run)

    def _compare(self, answer: Any, expected: tuple[Any, ...], key: str) -> None:
        match answer:
            case Started(fence, holder):
                assert expected in {("start", holder), ("again", fence)}
            case Running(owner, left):
                assert expected == ("running", owner)
                assert abs(left - (self.model.records[key].until - self.model.now)) < NEAR
            case Claimed(owner, left):
                assert expected == ("claimed", owner)
                assert 0 < left <= LEASE + NEAR
            case Ended():
                assert expected == ("ended", answer.owner, answer.failed, answer.end, answer.again)
            case Lapsed(owner):
                assert expected == ("lapsed", owner)
            case Reused(owner):
                assert expected == ("reused", owner)

    def _record(self, key: str, owner: str, of: str, attempt: int) -> Record:
        return Record(store=self.store, key=key, owner=owner, fingerprint=of, attempt=attempt)

    def _lease(self, run: Run) -> Lease:
        return Lease(
            store=self.store, key=run.key, owner=run.owner, fence=run.fence, length=LEASE, keep=LEASE + TTL
        )

    def _end(self, run: Run, state: str, end: bytes) -> str | None:
        record = self._record(run.key, run.owner, run.of, run.attempt)
        match state:
            case "completed":
                return record.complete(run.fence, end, TTL).successor
            case "failed":
                return record.fail(run.fence, end, TTL).successor
        return record.release(run.fence).successor

    @contextmanager
    def _nothing_changes(self) -> Iterator[None]:
        before = self._all()
        yield
        for (was, until), (now_is, until_now) in zip(before, self._all(), strict=True):
            assert now_is == was
            assert abs(until_now - until) < NEAR * 1000

    def _all(self) -> list[tuple[Any, int]]:
        client = self.store.client
        found = [(key, client.hgetall(key)) for key in sorted(client.scan_iter("cp:idempotency:*"))]
        return [((key, fields), int(fields.pop(b"until"))) for key, fields in found]


def test_leases_and_records_follow_their_model(store_url: str) -> None:
    """Two would run at once, a fence would go back, a result would change, or a thief would end a run."""
    machine = type("LeasesThere", (Leases,), {"url": store_url})
    run_state_machine_as_test(machine, settings=settings(max_examples=settings().max_examples * 2))
