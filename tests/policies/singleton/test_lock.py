"""The lock of a singleton against a model: any operations in any order, crashes at any step, time passing."""

from collections import Counter
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from celery_patterns.core.lease import Lease
from celery_patterns.core.store import Store
from celery_patterns.core.waits import PACE
from celery_patterns.policies.singleton.lock import (
    Ended,
    Held,
    Lock,
    Moved,
    Over,
    Queued,
    Replaced,
    Started,
    lock_key,
)
from tests.ground.frozen import FrozenTime, frozen_time
from tests.policies.singleton.model import Model

# Time passes by even seconds, which no length and no sum of them is: nothing ends in the moment of a look.
LEASE, QUEUED, REMEMBER, GRACE = 10.5, 31.0, 101.0, 1.0
TURN, MOST, LONGEST_TURN, PARKED = 5.1, 6.3, 65.0, 80.1
TASKS = ["a", "b", "c", "d"]
STEPS, EXAMPLES = 50, 250

operations: Counter[str] = Counter()
answers: Counter[str] = Counter()


class LockMachine(RuleBasedStateMachine):
    """Tasks are published, delivered, delivered twice, killed; all answers must be the model's."""

    time: ClassVar[FrozenTime]

    def __init__(self) -> None:
        super().__init__()
        self.store = Store("memory://lock-machine")
        self.fences: list[int] = []
        self.leases: dict[str, Lease] = {}
        self.published: dict[str, tuple[int, float]] = {}
        self.arrived: dict[str, float] = {}
        self.follows: dict[str, str] = {}
        self.nonces = 0

    @initialize(
        on_conflict=st.sampled_from(["use_existing", "defer", "replace", "keep_latest"]),
        kept=st.sampled_from([(TURN, MOST), (PARKED, PARKED)]),
    )
    def declare(self, on_conflict: str, kept: tuple[float, float]) -> None:
        self.turn, self.most = kept
        self.model = Model(on_conflict, LEASE, QUEUED, REMEMBER, *kept, PACE, LONGEST_TURN)
        self.lock = Lock(
            store=self.store,
            key=lock_key(self.store, "shop.sync", "1"),
            on_conflict=on_conflict,
            lease=LEASE,
            remember=REMEMBER,
        )

    @rule(task=st.sampled_from(TASKS))
    def publish(self, task: str) -> None:
        self.tick()
        self.arrived.pop(task, None)
        self.follows.pop(task, None)
        word, owner = self.model.publish(task)
        answer = self.lock.queue(task, QUEUED)
        if word == "held":
            assert isinstance(answer, Held)
            assert answer.owner == owner
            self.published.pop(task, None)
        else:
            assert isinstance(answer, Queued)
            self.published[task] = answer.at, self.model.now
        operations["publish"] += 1

    @rule(task=st.sampled_from(TASKS), again=st.booleans(), twice=st.booleans())
    def deliver(self, task: str, again: bool, twice: bool) -> None:
        self.tick()
        self.nonces += 1
        nonce = f"n{self.nonces}"
        at = self.published.get(task) if self.model.wants_newest else None
        arrived = self.arrived.setdefault(task, self.model.now)
        follows = self.follows.get(task)
        asked = {
            "follows": follows,
            "again": again,
            "at": at and at[0],
            "waited": 0.0 if at else self.model.now - arrived,
            "turn": self.turn,
            "most": self.most,
        }
        expected = self.model.begin(
            task, nonce, at=at and at[1], arrived=arrived, follows=follows, again=again
        )
        answer = self.lock.begin(f"{task}/{nonce}", **asked)
        self.check(task, answer, *expected)
        if twice:  # the reply was lost, and the client asked again
            repeated = self.lock.begin(f"{task}/{nonce}", **asked)
            if isinstance(answer, Started):
                assert repeated == Started(answer.fence, None)
            else:
                assert type(repeated) is type(answer)
        operations["deliver"] += 1
        answers[type(answer).__name__] += 1

    def check(self, task: str, answer: Any, word: str, what: Any) -> None:
        match answer:
            case Started():
                assert (word, answer.lapsed) == ("started", what)
                self.arrived.pop(task, None)
                self.follows.pop(task, None)
                assert not self.fences or answer.fence > self.fences[-1], "a fence did not increase"
                self.fences.append(answer.fence)
                owner = self.model.holder.owner
                self.leases[owner] = Lease(
                    store=self.store,
                    key=self.lock.key,
                    owner=owner,
                    fence=answer.fence,
                    length=LEASE,
                    keep=self.lock.keep,
                )
            case Held():
                assert (word, (answer.owner, answer.ahead, answer.ended)) == ("held", what)
                if self.model.on_conflict == "use_existing" and not answer.owner.startswith(f"{task}/"):
                    self.follows[task] = answer.owner.partition("/")[0]
            case Replaced():
                assert (word, answer.by) == ("replaced", what)
                self.follows[task] = answer.by
            case Moved():
                assert (word, answer.by) == ("moved", what)
                self.follows[task] = answer.by
            case Over():
                assert word == "over"
                del self.follows[task]
            case Ended():
                assert word == "ended"

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        owner = self.some(data)
        kept = self.leases[owner].renew()
        assert kept == self.model.renew(owner)
        operations["renew"] += 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), ended=st.booleans(), twice=st.booleans(), crashes=st.booleans())
    def finish(self, data: st.DataObject, ended: bool, twice: bool, crashes: bool) -> None:
        owner = self.some(data)
        lease = self.leases[owner]
        for _ in range(1 + twice):
            assert self.lock.release(owner, lease.fence, ended=ended) == self.model.release(
                owner, ended=ended
            )
        if not crashes:  # else it never learns that it has, and may come back
            del self.leases[owner]
        operations["finish"] += 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), twice=st.booleans())
    def retry(self, data: st.DataObject, twice: bool) -> None:
        owner = self.some(data)
        for _ in range(1 + twice):
            lost = self.lock.hand_back(owner, self.leases[owner].fence, QUEUED)
            assert lost == self.model.hand_back(owner)
        operations["retry"] += 1

    @rule(task=st.sampled_from(TASKS), data=st.data())
    def fail(self, task: str, data: st.DataObject) -> None:
        known = [owner for owner in self.leases if owner.startswith(f"{task}/")]
        owner = data.draw(st.sampled_from([*known, f"{task}/stranger"]))
        grace = data.draw(st.sampled_from([0.0, GRACE]))
        self.model.fail(owner, grace)
        self.lock.release(owner, None, ended=True, grace=grace)
        operations["fail"] += 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), grace=st.sampled_from([0.0, GRACE]))
    def lose(self, data: st.DataObject, grace: float) -> None:
        owner = self.some(data)
        self.model.lapse(owner, grace)
        self.lock.lapse(owner, grace)
        self.tick()
        operations["lose"] += 1

    @rule(task=st.sampled_from(TASKS), ended=st.booleans())
    def meddle(self, task: str, ended: bool) -> None:
        """Somebody who holds nothing tries to release it."""
        before = self.store.client.hgetall(self.lock.key)
        self.lock.release(f"{task}/stranger", 1, ended=False)
        self.lock.hand_back(f"{task}/stranger", 1, QUEUED)
        assert self.store.client.hgetall(self.lock.key) == before
        operations["meddle"] += 1

    @rule(by=st.sampled_from([4, 12, 20, 40, 120]))
    def wait(self, by: int) -> None:
        self.advance(by)
        operations["wait"] += 1

    def tick(self) -> None:
        """Let time pass, so that what happens first is first for the model as well."""
        self.advance(2)

    def advance(self, by: float) -> None:
        self.model.advance(by)
        self.time.advance(by)

    def some(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.leases)))

    @invariant()
    def redis_says_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        found = self.store.client.hgetall(self.lock.key)
        holder = self.model.holder
        assert found.get(b"owner") == (holder and holder.owner.encode())
        for key in self.store.client.scan_iter("cp:singleton:*"):
            assert self.store.client.pttl(key) != -1, f"{key} has no end"

    def teardown(self) -> None:
        self.store.client.flushall()
        self.store.close()


def test_the_lock_is_what_its_model_is() -> None:
    """Two calls would hold one key, or a call would release what is another's."""
    LockMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
    with frozen_time() as LockMachine.time:
        LockMachine.TestCase().runTest()
    assert operations.total() >= 10_000, operations
