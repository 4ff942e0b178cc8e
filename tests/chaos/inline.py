"""A session without processes: the same tasks, history and guarantees, and one delivery inside another.

It plays on fakeredis and a clock that is moved, so it takes a moment. The checker's own tests break a
mechanism here and look whether it is noticed; nothing here is evidence for the library under kills.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, current_task

from celery_patterns import Policy
from celery_patterns.core.redelivery import redelivery_timeout
from celery_patterns.core.store import store_of
from celery_patterns.testing import MovableClock, memory_store
from tests.chaos import aftermath, body
from tests.chaos.body import BOOKS, GuardedTask
from tests.chaos.story import Story
from tests.chaos.terms import LEASE, POLICIES, as_entry
from tests.chaos.watch import watching
from tests.ground import history as histories
from tests.ground.app import HISTORY
from tests.ground.fenced import FencedFile
from tests.ground.history import History
from tests.ground.inline import InlineWorker, inline_app

MOST = 400
"""Deliveries after which what is still under way counts as never ending."""


def nothing() -> None:
    """Nothing else happens."""


class Killed(SystemExit):
    """The process of a delivery is gone; nothing that it would do in this process counts."""


def noted(value: Any) -> Any:
    """What a link leads to."""
    return value


class Inline:
    """The world of one such session.

    Args:
        app: Its app.
        clock: Of the store.
        history: What is written down.

    While a body is at work, `meanwhile` happens; after its effect, before it is recorded, `afterwards`.
    """

    def __init__(self, app: Celery, clock: MovableClock, history: History) -> None:
        self.app, self.clock, self.history = app, clock, history
        self.worker = InlineWorker(app, clock)
        self.meanwhile: Callable[[], None] = nothing
        self.afterwards: Callable[[], None] = nothing
        self._delivered: list[Any] = []
        self._pids = [os.getpid()]
        self._deliveries = 0
        self._dead: dict[int, tuple[Any, Any]] = {}
        self.note = app.task(name="note", shared=False)(noted)

    @property
    def pid(self) -> int:
        """Each delivery stands for a process of its own, with a pid in the history; the dead have none."""
        if self._pids[-1] in self._dead:
            raise Killed
        return self._pids[-1]

    def bind(self, policies: Mapping[str, Policy], places: int = 1) -> None:
        """Write down what the tasks are bound to."""
        self.history.add("terms", **as_entry(redelivery_timeout(self.app), policies, places))

    def declare(self, name: str, base: type[Any] = GuardedTask, **options: Any) -> Any:
        """Declare a guarded task."""

        def run(self: Any, order: str, account: str, branch: int, fate: str) -> Any:
            return body.book(self, order, account, branch, fate)

        return self.app.task(bind=True, base=base, name=name, shared=False, **options)(run)

    def publish(
        self,
        task: Any,
        order: str,
        account: str = "a",
        fate: str = "fine",
        branch: int = 0,
        *,
        follow: bool = False,
    ) -> str:
        """Publish a call, with a link if something is to follow it, and write that down."""
        arguments = {"order": order, "account": account, "branch": branch, "fate": fate}
        task_id = str(task.apply_async(kwargs=arguments, link=self.note.s() if follow else None).id)
        self.history.add("published", id=task_id, task=task.name, **arguments)
        return task_id

    def during_work(self) -> None:
        """Have happen what is to happen while a body is at work."""
        self.meanwhile()

    def after_effect(self) -> None:
        """Likewise after its effect."""
        self.afterwards()

    def deliver_next(self, *, due: bool = False) -> bool:
        """Deliver the next message, if there is one; only if it is due by now, where asked."""
        self.worker.take()
        if not self.worker.waiting or (due and self.worker.waiting[0][0] > self.worker.now):
            return False
        at, message = self.worker.waiting.pop(0)
        if at > self.worker.now:
            self.clock.advance(at - self.worker.now)
            self.worker.now = at
        self.deliver(message)
        return True

    def deliver(self, message: Any) -> None:
        """Deliver a message, in a process of its own as far as the history says."""
        self._deliveries += 1
        self._delivered.append(message)
        self._pids.append(100_000 + self._deliveries)
        redelivered = bool(message.delivery_info.get("redelivered"))
        self.history.add("received", id=message.headers["id"], redelivered=redelivered)
        try:
            self.worker.deliver(message)
        except Killed:
            pass
        finally:
            victim = self._dead.get(self._pids.pop())
        if victim:
            task, request = victim
            task.__trace__ = None
            task.__patterns__.lost(request, 0.0)

    def die(self) -> None:
        """Kill the process of the present delivery; the worker's parent notices."""
        number, pid = len(self.history.entries("fault")), self.pid
        self.history.add("fault", number=number, kind="kill_child", pids=[pid], slot=0)
        self.history.add("over", number=number, kind="kill_child", slot=0)
        self._dead[pid] = current_task._get_current_object(), current_task.request_stack.top
        raise Killed

    def deliver_again(self, which: int) -> None:
        """Deliver one of the latest messages again, as a broker does that had no acknowledgement of it."""
        if self._delivered:
            message = self._delivered[-1 - which % len(self._delivered)]
            message.delivery_info["redelivered"] = True
            self.deliver(message)

    def oversleep(self, seconds: float) -> None:
        """Have the process of the present delivery stand still for so long."""
        number = len(self.history.entries("fault"))
        now = time.time()
        self.history.add("fault", number=number, kind="stop_child", pids=[self.pid], slot=0, at=now - seconds)
        self.history.add("over", number=number, kind="stop_child", slot=0)
        self.clock.advance(seconds)

    def end(self) -> Story:
        """Deliver all that is left, and return the story."""
        self.meanwhile = self.afterwards = nothing
        for _ in range(MOST):
            if not self.deliver_next():
                break
        self.clock.advance(LEASE)
        aftermath.write_down(self.app, self.history)
        return Story(self.history.entries())


@contextmanager
def inline(directory: Path) -> Iterator[Inline]:
    """Set such a world up in an empty directory."""
    history = History(directory / "history.jsonl")
    for account in "abcdefgh":
        FencedFile(directory / f"{account}.json").create()
    work, linger, getpid = body.work, body.linger, histories.getpid
    os.environ.update({HISTORY: str(history.path), BOOKS: str(directory)})
    app = inline_app(patterns_waiting_room=True)
    try:
        with memory_store() as store, watching():
            world = Inline(app, MovableClock(store), history)
            world.bind(POLICIES)
            body.work, body.linger = world.during_work, world.after_effect
            histories.getpid = lambda: world.pid
            assert store_of(app) is store
            yield world
    finally:
        body.work, body.linger, histories.getpid = work, linger, getpid
        for name in (HISTORY, BOOKS):
            os.environ.pop(name)
        app.close()
