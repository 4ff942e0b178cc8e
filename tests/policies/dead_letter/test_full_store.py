"""A real server at its memory limit, which evicts nothing: no death is lost, and no older entry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_patterns.deadletters import DeadLetters, Filter
from celery_patterns.errors import StoreUnavailable
from tests.deadletters.letters import die
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.workers import Worker

LETTERS = "tests.apps.letters"
JUNK = 15
StartWorker = Callable[..., Worker]
pytestmark = pytest.mark.integration


@pytest.fixture
def small(start_valkey: Callable[..., ValkeyServer]) -> ValkeyServer:
    """A server of the test's own, whose memory the test decides about."""
    return start_valkey(config={"maxmemory": "100mb"})


def fill(server: ValkeyServer) -> None:
    """Have the server hold more than it may."""
    with server.client(JUNK) as client:
        for at in range(400):  # by small commands, whose buffers do not count
            client.rpush("junk", f"{at}" + "x" * 10_000)
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 2_000_000)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("one", "more")


def make_room(server: ValkeyServer) -> None:
    """Take the junk away; the limit stays."""
    with server.client(JUNK) as client:
        client.delete("junk")


@pytest.mark.parametrize("acks", ["early", "late"])
@pytest.mark.parametrize("how", ["raise", "hard"])
def test_a_death_waits_in_the_broker_while_the_store_is_full(
    stage: Stage, worker: StartWorker, wait_for: Any, small: ValkeyServer, acks: str, how: str
) -> None:
    """A failing task would be lost, or run again, or push an older dead letter out."""
    stage.conf["patterns_url"] = small.url(2)
    letters = stage.load(LETTERS)
    desk = DeadLetters(letters.app)
    for at in range(30):
        die(letters.app, f"old-{at}")
    worker(LETTERS, concurrency=1)
    fill(small)
    with pytest.raises(StoreUnavailable, match="OutOfMemoryError"):
        die(letters.app, "one too many")
    sent = getattr(letters, acks).apply_async((how,), **({"time_limit": 1} if how == "hard" else {}))
    wait_for(lambda: stage.history.count("event", what="store_error", at="bury") > 1, timeout=30)
    assert desk.counts()["open"] == 30, "nothing is evicted, and nothing written half"
    make_room(small)
    wait_for(lambda: desk.counts()["open"] == 31, timeout=40)
    entry = desk.get(sent.id)
    assert (entry.deaths, entry.letter.decoded(letters.app)[:2]) == (1, ([how], {}))
    wait_for(lambda: sent.state == "FAILURE")
    assert stage.history.count("began") == 1, "the body ran again because the store was full"
    assert len(list(desk.walk(Filter()))) == 31


def test_one_server_for_everything_that_is_full_loses_no_task_that_fails_late(
    stage: Stage, worker: StartWorker, wait_for: Any, small: ValkeyServer, tmp_path: Path
) -> None:
    """With broker, results and dead letters on one full server, a task that fails would be gone."""
    stage.conf |= {"broker_url": small.url(0), "result_backend": small.url(1), "patterns_url": small.url(2)}
    stage.redeliver_after(2)
    letters = stage.load(LETTERS)
    desk = DeadLetters(letters.app)
    gate = tmp_path / "gate"
    standing = worker(LETTERS, concurrency=1)
    sent = letters.slow_failure.delay(str(gate))
    wait_for(lambda: stage.history.count("began"), timeout=20)
    fill(small)
    gate.touch()
    wait_for(lambda: stage.history.count("event", what="store_error", at="bury"), timeout=30)
    wait_for(lambda: "Cannot put off" in standing.log_text() or not standing.running, timeout=40)
    make_room(small)
    if not standing.running:
        worker(LETTERS, concurrency=1)
    wait_for(lambda: desk.counts()["open"], timeout=60)
    assert [(one.id, one.exception) for one in desk.list().entries] == [(sent.id, "ValueError")]
