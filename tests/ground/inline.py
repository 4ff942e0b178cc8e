"""A worker inside the test's own process: it runs one message at a time, when the test says so.

Real messages through kombu's in-memory transport, Celery's own `Request` and tracer, so that retries,
links, revokes and redeliveries are what they are in a worker; no processes and no waiting, so that a test
decides what is delivered, twice or never, and in which order.
"""

import copy
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.backends import cache
from celery.utils.imports import symbol_by_name
from celery.utils.time import maybe_iso8601
from celery.worker import state
from kombu import Queue

from celery_patterns.core.policy import REPLAY_HEADER
from celery_patterns.testing import MovableClock


def inline_app(**conf: Any) -> Celery:
    """Return an app with a queue of its own in this process, and results kept in it until the next app."""
    cache._DUMMY_CLIENT_CACHE.clear()
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(task_default_queue=f"inline-{uuid.uuid4().hex}", **conf)
    app.finalize()
    return app


class InlineWorker:
    """Takes messages from the app's queue and runs them.

    `clock` is moved on when a message is not due yet.
    """

    def __init__(self, app: Celery, clock: MovableClock) -> None:
        self.app = app
        self.clock = clock
        self.now = 0.0
        self.waiting: list[tuple[float, Any]] = []

    def take(self) -> list[Any]:
        """Return the messages that are in the queue now, those that are due first coming first."""
        began = self.app.now()
        with self.app.connection_for_read() as connection:
            queue = Queue(self.app.conf.task_default_queue)(connection.channel())
            queue.declare()
            while (message := queue.get(no_ack=True)) is not None:
                eta = message.headers.get("eta")
                due = self.now + (maybe_iso8601(eta) - began).total_seconds() if eta else self.now
                self.waiting.append((max(self.now, due), message))
        self.waiting.sort(key=lambda pair: pair[0])
        return [message for _, message in self.waiting]

    def request(self, message: Any) -> Any:
        """Return what a worker makes of a delivery; each time another delivery."""
        task = self.app.tasks[message.headers["task"]]
        return symbol_by_name(task.Request)(
            message, app=self.app, task=task, hostname="inline@test", on_ack=lambda *_: None, decoded=False
        )

    def deliver(self, message: Any) -> None:
        """Run one delivery of a message, which may have been delivered before."""
        request = self.request(message)
        task = self.app.tasks[message.headers["task"]]
        if not request.revoked():
            request.execute()
        task.__trace__ = None

    def run(self, most: int = 50) -> int:
        """Run what is there, and what comes of it, until nothing is left; return how many deliveries."""
        for count in range(most):
            if not self.take():
                return count
            due, message = self.waiting.pop(0)
            if due > self.now:
                self.clock.advance(due - self.now)
                self.now = due
            self.deliver(message)
        raise AssertionError(f"still at work after {most} deliveries")


def replay_of(message: Any, number: int = 1) -> Any:
    """Return a message as the replay of a dead letter publishes it: the same id, another life."""
    again = copy.copy(message)
    again.headers = {**message.headers, REPLAY_HEADER: f"entry/{number}", "retries": 0}
    return again


@contextmanager
def revoked(task_id: str) -> Iterator[None]:
    """Meanwhile a task is revoked, for this process's workers."""
    state.revoked.add(task_id)
    try:
        yield
    finally:
        state.revoked.discard(task_id)
