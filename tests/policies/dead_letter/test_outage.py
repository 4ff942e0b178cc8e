"""A store that is away when a task dies: the death waits in the broker, and is stored later."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celery_patterns.deadletters import DeadLetters
from tests.ground.proxy import Proxy
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.workers import Worker

LETTERS = "tests.apps.letters"
pytestmark = pytest.mark.integration


@pytest.mark.parametrize("acks", ["early", "late"])
@pytest.mark.parametrize("how", ["raise", "hard", "unserialisable"])
def test_a_death_without_a_store_is_stored_when_it_is_back(
    stage: Stage,
    worker: Callable[..., Worker],
    wait_for: Any,
    proxy: Proxy,
    valkey: ValkeyServer,
    acks: str,
    how: str,
) -> None:
    """An outage of the store would turn failing tasks into lost ones, or run them again."""
    stage.conf["patterns_url"] = proxy.through(valkey.url(2))
    letters = stage.load(LETTERS)
    worker(LETTERS, concurrency=1)
    task = getattr(letters, acks)
    proxy.refuse()
    options = {"time_limit": 1} if how == "hard" else {}
    sent = task.apply_async((how,), **options)
    wait_for(lambda: stage.history.count("event", what="store_error", at="bury"), timeout=30)
    wait_for(lambda: letters.app.AsyncResult(sent.id).state == ("RETRY" if how == "raise" else "FAILURE"))
    proxy.accept()
    desk = DeadLetters(letters.app)
    wait_for(lambda: desk.counts()["open"], timeout=30)
    (entry,) = desk.list().entries
    assert (entry.id, entry.task, entry.deaths) == (sent.id, task.name, 1)
    assert entry.letter.decoded(letters.app)[:2] == ([how], {})
    assert "cp-burial" not in entry.letter.headers
    wait_for(lambda: letters.app.AsyncResult(sent.id).state == "FAILURE")
    assert letters.note.delay(1, "after").get(timeout=20) == 1
    assert stage.history.count("began") == 1, "the body ran again because of its dead letter"
    assert desk.counts()["open"] == 1


def test_what_waits_in_the_broker_is_what_arrived(
    stage: Stage,
    worker: Callable[..., Worker],
    wait_for: Any,
    proxy: Proxy,
    valkey: ValkeyServer,
    tmp_path: Path,
) -> None:
    """A body that changes its arguments would be stored, and replayed, with the changed ones."""
    stage.conf["patterns_url"] = proxy.through(valkey.url(2))
    letters = stage.load(LETTERS)
    worker(LETTERS, concurrency=1)
    proxy.refuse()
    letters.charge.delay("A", str(tmp_path / "gate"), seen=[])
    wait_for(lambda: stage.history.count("event", what="store_error", at="bury"), timeout=30)
    proxy.accept()
    desk = DeadLetters(letters.app)
    wait_for(lambda: desk.counts()["open"], timeout=30)
    (entry,) = desk.list().entries
    assert entry.letter.decoded(letters.app)[1] == {"seen": []}
    assert entry.exception == "ConnectionError"
    assert entry.where == ("letters.py:charge",)
