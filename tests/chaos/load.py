"""What is published: calls, duplicates of calls, chains and chords, at a steady pace, drawn from a seed."""

import random
import threading
from types import ModuleType
from typing import Any

from celery import chain, chord, states
from celery.canvas import Signature

from tests.chaos.scene import ACCOUNTS, BRANCHES
from tests.ground.history import History

FATES = {"fine": 70, "flaky": 14, "moody": 8, "declined": 5, "hopeless": 3}
KINDS = {"call": 8, "duplicate": 6, "link": 2, "chain": 2, "chord": 1, "surge": 0.3}
SURGE = 12
REMEMBERED = 60
"""How many of the latest orders duplicates are made of."""


MOST = 80
"""How many calls are under way at the most: a slow machine gets fewer calls, and no backlog that grows."""


class Load(threading.Thread):
    """Publishes until it is told to stop, and writes down what it has published."""

    def __init__(self, tasks: ModuleType, history: History, *, seed: int, pause: float) -> None:
        super().__init__(name="load", daemon=True)
        self.tasks, self.history, self.pause = tasks, history, pause
        self._chance = random.Random(f"load/{seed}")
        self._orders: list[Signature[Any]] = []
        self._count = 0
        self._under_way: set[str] = set()
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self.pause):
            if self._is_crowded():
                continue
            kind = self._chance.choices(list(KINDS), list(KINDS.values()))[0]
            try:
                getattr(self, f"_{kind}")()
            except Exception as error:
                self.history.add("unpublished", kind=kind, error=repr(error))
                raise

    def stop(self) -> None:
        """Publish no more."""
        self._stopped.set()
        self.join()

    def _is_crowded(self) -> bool:
        """Whether so many calls are under way that a new one has to wait."""
        if len(self._under_way) >= MOST:
            state = self.tasks.app.backend.get_state
            self._under_way = {one for one in self._under_way if state(one) not in states.READY_STATES}
        return len(self._under_way) >= MOST

    def _call(self) -> None:
        self._publish(self._new())

    def _surge(self) -> None:
        """More at once than the limits let pass."""
        for _ in range(SURGE):
            self._call()

    def _duplicate(self) -> None:
        self._publish(self._old())

    def _link(self) -> None:
        signature = self._any()
        label = self._label("link")
        signature.link(self.tasks.note.s(label))
        self._publish(signature)

    def _chain(self) -> None:
        steps = [self._any(), self._any(), self.tasks.note.si("end", self._label("chain"))]
        last = chain(*steps).apply_async()
        results = [last.parent.parent, last.parent, last]
        for position, (step, result) in enumerate(zip(steps, results, strict=True)):
            after = {"after": [results[position - 1].id]} if position else {}
            self._note(step, result.id, **after)

    def _chord(self) -> None:
        parts = [self._any() for _ in range(self._chance.randrange(2, 5))]
        body = self.tasks.gather.s(self._label("chord"))
        result = chord(parts)(body)
        ids = [part.id for part in result.parent.results]
        for part, task_id in zip(parts, ids, strict=True):
            self._note(part, task_id)
        self._note(body, result.id, parts=ids)

    def _publish(self, signature: Signature[Any]) -> None:
        self._note(signature, signature.apply_async().id)

    def _note(self, signature: Signature[Any], task_id: str, **more: Any) -> None:
        self.history.add("published", id=task_id, task=signature.task, **signature.kwargs, **more)
        if "after" not in more:
            self._under_way.add(task_id)

    def _any(self) -> Signature[Any]:
        return self._new() if not self._orders or self._chance.random() < 0.6 else self._old()

    def _old(self) -> Signature[Any]:
        return self._chance.choice(self._orders[-REMEMBERED:]).clone() if self._orders else self._new()

    def _new(self) -> Signature[Any]:
        chance, self._count = self._chance, self._count + 1
        account = chance.randrange(ACCOUNTS)
        arguments = {
            "order": f"order-{self._count}",
            "account": f"account-{account}",
            "branch": account % BRANCHES,
            "fate": chance.choices(list(FATES), list(FATES.values()))[0],
        }
        signature = chance.choice((self.tasks.pay, self.tasks.transfer)).si(**arguments)
        self._orders.append(signature)
        return signature.clone()

    def _label(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"
