"""The room in a cluster: all of its keys are in one slot."""

from celery_patterns.testing import memory_store
from celery_patterns.waiting.answers import Started
from celery_patterns.waiting.look import entries, lines
from celery_patterns.waiting.pump import _Bell
from celery_patterns.waiting.room import Room
from tests.waiting.test_room import FIVE, ids, look, park


def test_a_room_in_a_cluster(cluster_url: str) -> None:
    """On a cluster tasks could not be parked, released or listed."""
    with memory_store(cluster_url) as store:
        room = Room(store)
        look(room)
        for number in range(7):
            park(room, str(number), FIVE)
        turn = look(room)
        assert ids(turn) == ["0", "1", "2", "3", "4"]
        assert isinstance(room.start(FIVE, "0"), Started)
        assert ids(look(room, turn.releases)) == []
        room.wake_all()
        (line,) = lines(room)
        assert (line.name, line.waiting) == ("five:", 2)
        room.cancel(["6"])
        assert ids(look(room)) == ["6"]


def test_a_pump_is_woken_in_a_cluster(cluster_url: str) -> None:
    """A pump would sleep on while something is due."""
    with memory_store(cluster_url) as store:
        room = Room(store)
        bell = _Bell(room)
        bell.sleep(0.05)
        room.wake_all()
        bell.sleep(30)  # or the test runs into its own time limit
        bell.close()
        assert not list(entries(room, ""))
