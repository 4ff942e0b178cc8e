"""The life of an entry against a model: replayers and deliveries may stop at any point."""

from dataclasses import dataclass
from typing import Any

from celery import Celery
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from celery_patterns.deadletters import DeadLetters, Filter
from celery_patterns.deadletters.entry import STATES
from celery_patterns.deadletters.recovery import recover
from celery_patterns.deadletters.replay import _claim, _published
from celery_patterns.deadletters.store import Buried, begin, end
from celery_patterns.testing import MovableClock, memory_store
from tests.deadletters.letters import die
from tests.ground.servers import ValkeyServer

IDS = ("a", "b", "c")
CLAIM, LEASE = 30, 3_600


@dataclass
class Model:
    """What an entry should be. `until` is when its claim or lease runs out, by the test's own clock."""

    state: str
    replays: int = 0
    until: float = 0.0
    unsure: int | None = None
    failed: int = 0
    told: int = 0


class Entries(RuleBasedStateMachine):
    """Every step of a replay is a rule of its own, so that a crash is a step that does not come."""

    messages = Bundle("messages")
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.opened = memory_store(self.url)
        self.store = self.opened.__enter__()
        self.clock = MovableClock(self.store)
        self.app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
        self.desk = DeadLetters(self.app)
        self.root = self.desk.query.root
        self.models: dict[str, Model] = {}
        self.time = 0.0

    def teardown(self) -> None:
        """Leave an empty server."""
        self.store.client.flushdb()
        self.opened.__exit__(None, None, None)

    @rule(entry=st.sampled_from(IDS))
    def first_death(self, entry: str) -> None:
        """A task that was never replayed dies, perhaps in another delivery than before."""
        model = self.models.get(entry)
        told = (model.told if model else 0) + 1
        stored = die(self.app, entry, by=f"{entry}/first{told}", retention=1e6)
        if model is None:
            self.models[entry] = Model("open", told=told)
            assert stored.state == "open"
        elif model.replays == 0:
            model.told = told
            model.state = "open"

    @rule(target=messages, entry=st.sampled_from(IDS))
    def claim(self, entry: str) -> Any:
        """A replayer takes an entry. It may be killed right after, before or after it published."""
        answer = _claim(self.store, [self.root], ["batch", CLAIM * 1000, LEASE * 1000, "open", 0, entry])
        model = self.models.get(entry)
        if model is None or model.state != "open":
            assert answer == []
            return (entry, 0)
        model.replays += 1
        model.state, model.until, model.unsure = "replaying", self.time + CLAIM, None
        assert [int(answer[1]), answer[0].decode()] == [model.replays, entry]
        return (entry, model.replays)

    @rule(message=messages)
    def report(self, message: tuple[str, int]) -> None:
        """The replayer reports a publication, perhaps late."""
        entry, number = message
        if not number:
            return
        _published(self.store, [self.root], ["batch", entry, number, entry])
        model = self.models[entry]
        if number == model.replays and model.state == "replaying":
            model.until = self.time + LEASE

    @rule(wait=st.sampled_from([1, CLAIM + 1, LEASE + 1]))
    def recover_later(self, wait: int) -> None:
        """Another replayer comes, before or after claims and leases have run out."""
        self.clock.advance(wait)
        self.time += wait
        recover(self.app, self.store)
        for model in self.models.values():
            if model.state == "replaying" and model.until < self.time:
                model.state, model.unsure = "open", model.replays

    @rule(message=messages, outcome=st.sampled_from(["succeeds", "dies", "is revoked", "vanishes"]))
    def deliver(self, message: tuple[str, int], outcome: str) -> None:
        """A message is delivered, as often as a broker likes, and ends somehow."""
        entry, number = message
        if not number:
            return
        model = self.models[entry]
        answer = begin(self.app, entry, number)
        if number != model.replays or model.state == "resolved":
            assert answer is False
            return
        if model.state == "open" and model.unsure == number:
            model.state, model.unsure = "replaying", None
        if model.state != "replaying":
            assert isinstance(answer, Buried)
            return
        assert answer is True
        model.until = self.time + LEASE
        self._ends(entry, number, outcome)

    @rule(message=messages, outcome=st.sampled_from(["succeeds", "dies", "is revoked"]))
    def end_late(self, message: tuple[str, int], outcome: str) -> None:
        """A run that began long ago ends, when others may have given it up."""
        entry, number = message
        if number:
            self._ends(entry, number, outcome)

    def _ends(self, entry: str, number: int, outcome: str) -> None:
        model = self.models[entry]
        counts = model.state == "replaying" or (model.state == "open" and model.unsure is not None)
        counts = counts and number == model.replays
        if outcome in {"succeeds", "is revoked"}:
            state = "resolved" if outcome == "succeeds" else "open"
            assert end(self.app, entry, number, state, "") is counts
            if counts:
                model.state, model.failed, model.unsure = state, 0, None
        elif outcome == "dies" and counts:
            model.failed += 1
            model.state, model.unsure = "quarantined" if model.failed >= 3 else "open", None
            assert die(self.app, entry, replay=number, retention=1e6).state == model.state

    @rule(decision=st.sampled_from(["archive", "unarchive", "resolve", "reopen"]), entry=st.sampled_from(IDS))
    def decide(self, decision: str, entry: str) -> None:
        """A person decides."""
        moved = getattr(self.desk, decision)(Filter(ids=(entry,), state=None))
        leads = {
            "archive": ({"open", "quarantined"}, "archived"),
            "unarchive": ({"archived", "quarantined"}, "open"),
            "resolve": ({"open", "quarantined", "replaying"}, "resolved"),
            "reopen": ({"replaying"}, "open"),
        }
        model = self.models.get(entry)
        if model is None or model.state not in leads[decision][0]:
            assert moved == 0
            return
        assert moved == 1
        model.state, model.failed, model.unsure = leads[decision][1], 0, None

    @invariant()
    def every_entry_is_where_its_state_says(self) -> None:
        """Never missing, never in two places."""
        client = self.store.client
        for entry, model in self.models.items():
            found = self.desk.get(entry)
            assert (found.state, found.replays) == (model.state, model.replays)
            listed = [state for state in STATES if client.zscore(f"{self.root}:in:{state}", entry)]
            grouped = [
                state for state in STATES if client.zscore(f"{self.root}:in:{state}:{found.cause}", entry)
            ]
            assert listed == grouped == [model.state]
        assert sum(self.desk.counts().values()) == len(self.models)


def test_no_crash_loses_an_entry_or_runs_an_old_message(valkey: ValkeyServer) -> None:
    """A killed replayer would lose entries, or a message of an earlier life would run beside a later one."""

    class Here(Entries):
        url = valkey.url(3)

    run_state_machine_as_test(
        Here, settings=settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
    )
