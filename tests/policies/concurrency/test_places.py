"""The places under a limit against a model: any operations, crashes at any step, time passing."""

from collections import Counter
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from celery_patterns.core.store import Store
from celery_patterns.core.waits import PACE
from celery_patterns.policies.concurrency.places import (
    LOOK_SLACK,
    Copy,
    Ended,
    Full,
    Places,
    Started,
    limit_key,
)
from tests.ground.frozen import FrozenTime, frozen_time
from tests.policies.concurrency.model import Model

# Time passes by even seconds, which no length and no sum of them is: nothing ends in the moment of a look.
LEASE, REMEMBER, NEAR, FAR, GRACE = 10.5, 101.0, 2.1, 4.0, 1.0
TASKS = ["a", "b", "c", "d", "e", "f"]
STEPS, EXAMPLES = 50, 250

operations: Counter[str] = Counter()


class PlacesMachine(RuleBasedStateMachine):
    """Tasks ask for places, overstay, vanish; never more than the limit may think that they have one."""

    time: ClassVar[FrozenTime]

    def __init__(self) -> None:
        super().__init__()
        self.store = Store("memory://places-machine")
        self.fences: list[int] = []
        self.leases: dict[str, Any] = {}
        self.arrived: dict[str, float] = {}
        self.nonces = 0

    @initialize(limit=st.integers(1, 3), waits=st.booleans())
    def declare(self, limit: int, waits: bool) -> None:
        self.near, self.far = (NEAR, FAR) if waits else (0.0, 0.0)
        self.model = Model(limit, LEASE, LOOK_SLACK, REMEMBER, PACE)
        key = limit_key(self.store, "shop.export", "1")
        self.places = Places(store=self.store, key=key, limit=limit, lease=LEASE, remember=REMEMBER)

    @rule(task=st.sampled_from(TASKS), again=st.booleans(), twice=st.booleans())
    def acquire(self, task: str, again: bool, twice: bool) -> None:
        self.advance(2)  # so that who comes first has come first for the model as well
        self.nonces += 1
        nonce = f"n{self.nonces}"
        arrived = self.arrived.setdefault(task, self.model.now)
        word, what = self.model.acquire(
            task, nonce, again=again, arrived=arrived, near=self.near, far=self.far
        )
        asked: dict[str, Any] = {
            "again": again,
            "waited": self.model.now - arrived,
            "near": self.near,
            "far": self.far,
        }
        answer = self.places.acquire(f"{task}/{nonce}", **asked)
        match answer:
            case Started(fence=fence):
                assert word == "started"
                assert not self.fences or fence > self.fences[-1], "a fence did not increase"
                self.fences.append(fence)
                self.leases[f"{task}/{nonce}"] = self.places.lease_of(f"{task}/{nonce}", fence)
                self.arrived.pop(task, None)
            case Copy():
                assert (word, f"{task}/{what}") == ("copy", answer.owner)
            case Full():
                assert (word, what) == ("full", (answer.wait, answer.ahead, answer.next))
            case Ended():
                assert word == "ended"
        if twice:  # the reply was lost, and the client asked again
            repeated = self.places.acquire(f"{task}/{nonce}", **asked)
            if isinstance(answer, Started):
                assert repeated == Started(answer.fence, None)
            else:
                assert type(repeated) is type(answer)
        operations["acquire"] += 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        owner = self.some(data)
        assert self.leases[owner].renew() == self.model.renew(*owner.split("/"))
        operations["renew"] += 1

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        ended=st.booleans(),
        grace=st.sampled_from([0.0, GRACE]),
        by_fence=st.booleans(),
        forgets=st.booleans(),
    )
    def release(self, data: st.DataObject, ended: bool, grace: float, by_fence: bool, forgets: bool) -> None:
        owner = self.some(data)
        fence = self.leases[owner].fence if by_fence else None
        kept = self.model.release(*owner.split("/"), by_fence=by_fence, ended=ended, grace=grace)
        back = self.places.give_back(owner, fence, ended=ended, grace=grace)
        assert back.kept == kept
        assert set(back.next) <= set(self.model.next())
        assert back.next or not (kept and self.model.next()) or self.model.lives(owner.split("/")[0])
        if forgets:  # else it never learns that it has let go, and comes back
            del self.leases[owner]
        operations["release"] += 1

    @rule(task=st.sampled_from(TASKS))
    def leave_the_line(self, task: str) -> None:
        """A waiting call is revoked, or somebody who holds nothing tries to release."""
        before = self.holders()
        self.model.leave_line(task)
        self.places.release(f"{task}/stranger", None, ended=True)
        self.places.release(f"{task}/stranger", 1, ended=False)
        assert self.holders() == before
        operations["leave"] += 1

    @rule(by=st.sampled_from([4, 12, 20, 120]))
    def wait(self, by: int) -> None:
        self.advance(by)
        operations["wait"] += 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A process vanishes, and nobody notices."""
        del self.leases[self.some(data)]
        operations["crash"] += 1

    def advance(self, by: float) -> None:
        self.model.advance(by)
        self.time.advance(by)

    def some(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.leases)))

    def holders(self) -> set[str]:
        now = self.store.now() * 1000
        return {
            one.decode() for one in self.store.client.zrangebyscore(f"{self.places.key}:held", now, "inf")
        }

    @invariant()
    def at_most_so_many(self) -> None:
        if hasattr(self, "model"):
            holders = self.holders()
            assert holders == self.model.living()
            assert len(holders) <= self.model.limit
            for key in self.store.client.scan_iter("cp:concurrency_limit:*"):
                assert self.store.client.pttl(key) != -1, f"{key} has no end"

    def teardown(self) -> None:
        self.store.client.flushall()
        self.store.close()


def test_the_places_are_what_their_model_is() -> None:
    """More calls than may would run at once, or a place would be lost for good."""
    PlacesMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
    with frozen_time() as PlacesMachine.time:
        PlacesMachine.TestCase().runTest()
    assert operations.total() >= 10_000, operations
