"""The life of an entry against a model: replayers and deliveries may stop at any point."""

from dataclasses import dataclass
from typing import Any

from celery import Celery
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from celery_patterns.deadletters import DeadLetters, Filter
from celery_patterns.deadletters.entry import STATES
from celery_patterns.deadletters.replay import _claim, _published, recover
from celery_patterns.deadletters.store import Buried, begin, end
from celery_patterns.testing import MovableClock, memory_store
from tests.deadletters.letters import die
from tests.ground.servers import ValkeyServer

IDS = ("a", "b", "c")


@dataclass
class Model:
    """What an entry should be. `running` holds the replays whose delivery was let in."""

    state: str
    replays: int = 0
    published: bool = False
    claimed: bool = False
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
        answer = _claim(self.store, [self.root], ["batch", 30_000, "open", 0, entry])
        model = self.models.get(entry)
        if model is None or model.state != "open":
            assert answer == []
            return (entry, 0)
        model.replays += 1
        model.state, model.published, model.claimed = "replaying", False, True
        assert [int(answer[1]), answer[0].decode()] == [model.replays, entry]
        return (entry, model.replays)

    @rule(message=messages)
    def report(self, message: tuple[str, int]) -> None:
        """The replayer reports a publication, perhaps late."""
        entry, number = message
        if not number:
            return
        _published(self.store, [self.root], ["batch", entry, number])
        model = self.models[entry]
        if number == model.replays and model.claimed:
            model.published, model.claimed = True, False

    @rule()
    def recover_later(self) -> None:
        """Another replayer comes when claims have run out."""
        self.clock.advance(31)
        recover(self.store)
        for model in self.models.values():
            if model.state == "replaying" and not model.published and model.claimed:
                model.state, model.unsure, model.claimed = "open", model.replays, False

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
            model.state, model.published, model.unsure = "replaying", True, None
        if model.state != "replaying":
            assert isinstance(answer, Buried)
            return
        assert answer is True
        model.published = True
        if outcome == "succeeds":
            assert end(self.app, entry, number, "resolved", "")
            model.state, model.failed = "resolved", 0
        elif outcome == "is revoked":
            assert end(self.app, entry, number, "open", "revoked")
            model.state, model.failed = "open", 0
        elif outcome == "dies":
            model.failed += 1
            model.state = "quarantined" if model.failed >= 3 else "open"
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
