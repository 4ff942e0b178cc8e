"""A pump in this process: what it does before there is anything to publish."""

from typing import Any

import pytest
from celery import Celery

from celery_patterns.core.store import Store
from celery_patterns.waiting import pump as pumps
from celery_patterns.waiting.pump import Pump
from celery_patterns.waiting.queues import ReleaseQueue

QUEUE = ReleaseQueue("celery.cp.released", {}, ("\ncelery",))


def test_a_pump_that_begins_to_lead_has_a_broker_before_it_needs_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first release would wait for a connection, and each after it be late by as much."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    connect, opened = app.connection_for_write, []

    def count(**options: Any) -> Any:
        opened.append(options)
        return connect(**options)

    monkeypatch.setattr(app, "connection_for_write", count)
    leader, other = Pump(app, store, [QUEUE]), Pump(app, store, [QUEUE])
    leader.step()
    assert leader.leads
    assert len(opened) == 1
    other.step()
    leader.step()
    assert not other.leads
    assert len(opened) == 1
    leader.close()
    other.close()


def test_a_pump_leads_while_its_broker_is_away(store: Store) -> None:
    """Its worker would start it again and again, and another one, which has a broker, could not lead."""
    app = Celery("shop", broker="redis://127.0.0.1:1/0", set_as_current=False)
    pump = Pump(app, store, [QUEUE])
    pump.step()
    assert pump.leads
    pump.close()


def test_a_pump_says_once_in_a_while_that_its_store_is_away(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks twice a second: an hour's outage would fill the log with thousands of lines."""
    monkeypatch.setattr(pumps, "STANDBY", 0.01)
    app = Celery("shop", broker="memory://", set_as_current=False)
    looks = iter(range(20))
    Pump(app, Store("redis://127.0.0.1:1/0"), [QUEUE]).run(lambda: next(looks, None) is None)
    assert len([one for one in caplog.records if "nothing is released" in one.message]) == 1
