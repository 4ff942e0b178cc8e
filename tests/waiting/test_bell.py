"""A holder that ends while others are on their way into the room."""

from threading import Event, Thread
from typing import Any

import pytest

from celery_patterns import ConcurrencyLimit, Idempotency, Policy, PolicyTask, Singleton
from celery_patterns.testing import MovableClock, memory_store
from celery_patterns.waiting import lookout
from celery_patterns.waiting.broker import broker_of
from celery_patterns.waiting.room import Room
from tests.ground.inline import InlineWorker, inline_app

PATIENCE = 10.0
POLICIES = {
    "its turn": Singleton(key="key", scope="while_executing", on_conflict="defer"),
    "its result": Singleton(key="key", scope="while_executing", on_conflict="use_existing"),
    "a place": ConcurrencyLimit(1),
    "a record": Idempotency(key="key"),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_what_came_free_meanwhile_is_not_waited_for(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call would sleep in the room until it looks again, beside a lock that nobody has."""
    lookout._looked.clear()
    at_work, may_end, runs = Event(), Event(), []

    def body(key: str) -> None:
        runs.append(task.request.id)
        at_work.set()
        assert may_end.wait(PATIENCE)

    with memory_store() as store:
        app = inline_app()
        room = Room(store, broker_of(app))
        room.release("pump", (), 0)
        store.client.persist(room.key("room-leader"))
        task = app.task(base=PolicyTask, name="guarded", of=policy)(body)
        worker = InlineWorker(app, MovableClock(store))
        for name in ("first", "second"):
            task.apply_async(("A",), task_id=name)
        first, second = worker.take()
        holder = Thread(target=worker.deliver, args=(first,))
        holder.start()
        assert at_work.wait(PATIENCE)
        acquire = app.producer_or_acquire

        def on_its_way(*producer: Any) -> Any:
            may_end.set()
            holder.join(PATIENCE)
            return acquire(*producer)

        monkeypatch.setattr(app, "producer_or_acquire", on_its_way)
        worker.deliver(second)
        assert runs == ["first"]
        assert [one.id for one in room.release("pump", (), 9).releases] == ["second"]
