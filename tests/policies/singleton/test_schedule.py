"""The lock for any code."""

from typing import Any

import pytest
from celery import Celery

from celery_patterns import PolicyError, schedule_lock
from celery_patterns.core.lease import keeper
from celery_patterns.core.store import Store
from celery_patterns.errors import ScheduleLockError
from celery_patterns.testing import CapturedEvents, MovableClock

KEY = "cp:schedule_lock:{nightly}"


def test_one_holds_it_and_others_are_refused(store: Store, patterns_events: CapturedEvents) -> None:
    """Two management commands would do the same work at the same time."""
    with schedule_lock("nightly", 600) as lease:
        assert not lease.lost
        with pytest.raises(ScheduleLockError, match="held by") as refused, schedule_lock("nightly", 600):
            pytest.fail("two hold the lock")
        assert 590 < refused.value.retry_after <= 600
        with schedule_lock("weekly", 600):
            pass
        assert keeper.holds(lease.owner), "it is not renewed"
    assert not keeper.holds(lease.owner)
    assert [event.kind for event in patterns_events] == ["refused"]
    with schedule_lock("nightly", 600) as again:
        assert again.fence > lease.fence


def test_it_is_released_when_the_work_fails(store: Store) -> None:
    """A job that failed once would not run again before its timeout."""
    with pytest.raises(ValueError, match="no disk"), schedule_lock("nightly", 600):
        raise ValueError("no disk")
    assert store.client.keys("cp:*") == []


def test_it_outlives_its_holder_by_its_timeout(
    store: Store, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """A lock whose process was killed would be there for ever; a late holder would free another's."""
    with schedule_lock("nightly", 600) as lost:
        clock.advance(601)
        with schedule_lock("nightly", 600) as lease:
            assert lease.fence > lost.fence
            assert not lost.renew()
            assert lost.lost
            assert store.client.hget(KEY, "owner").decode() == lease.owner
        with schedule_lock("nightly", 600) as third:
            lost_owner = third.owner
            assert store.client.hget(KEY, "owner").decode() == lost_owner


def test_a_late_holder_frees_nothing(
    store: Store, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """The same, when the late holder ends while another holds it."""
    late = schedule_lock("nightly", 600)
    late.__enter__()
    clock.advance(601)
    with schedule_lock("nightly", 600) as lease:
        late.__exit__(None, None, None)
        assert store.client.hget(KEY, "owner").decode() == lease.owner
    assert len([event for event in patterns_events if event.kind == "superseded"]) == 1


def test_the_store_of_an_app_may_be_named(store: Store, app: Celery) -> None:
    """Code that knows several apps could not say which store is meant."""
    with schedule_lock("nightly", 600, app=app) as lease:
        assert lease.store is store


@pytest.mark.parametrize("store_url", ["fakeredis"], indirect=True)
def test_a_store_that_is_away_refuses(store: Store, wait_for: Any, patterns_events: CapturedEvents) -> None:
    """The work would run unguarded, or its end be an error of the store's."""
    server = store.client.connection_pool.connection_kwargs["server"]
    server.connected = False
    with pytest.raises(ScheduleLockError), schedule_lock("nightly", 2):
        pytest.fail("nobody knows who holds it")
    server.connected = True
    with schedule_lock("nightly", 2):
        server.connected = False
    server.connected = True
    wait_for(lambda: not store.client.exists(KEY))
    assert "store_error" in {event.kind for event in patterns_events}


@pytest.mark.parametrize(
    ("name", "timeout", "message"), [("", 600, "not empty"), (7, 600, "7"), ("nightly", 0, "timeout=0")]
)
def test_a_wrong_argument_is_named(store: Store, name: Any, timeout: Any, message: str) -> None:
    """A typo would make a lock that nobody else asks for."""
    with pytest.raises(PolicyError, match=message), schedule_lock(name, timeout):
        pytest.fail("not refused")
