"""Putting a task off when the broker cannot be reached, or is impatient."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from celery.result import AsyncResult

from tests.apps.witness import loaded
from tests.ground.proxy import Proxy
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.waiting import wait_for
from tests.ground.workers import Worker

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

WAITS = "tests.apps.waits"
ENV = {"WAITS_IN_WORKER": "1"}
TIMEOUT = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A server of this module's own, which no other test empties."""
    server = ValkeyServer(tmp_path_factory.mktemp("outage-server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module", params=["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker_url(request: pytest.FixtureRequest, server: ValkeyServer) -> str:
    """A broker that nobody else uses."""
    if request.param == "redis":
        server.clean()
        return server.url(0)
    return request.getfixturevalue("rabbitmq_node").new_vhost()


@pytest.fixture(scope="module")
def way_out(broker_url: str) -> Iterator[Proxy]:
    """What leads to the broker for those who publish; those who consume have a way of their own."""
    port = int(broker_url.rsplit(":", 1)[1].partition("/")[0])
    with Proxy(port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stage(
    broker_url: str, way_out: Proxy, server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """One stage for all tests of a broker: they use different task ids."""
    urls = {"broker_read_url": broker_url, "broker_write_url": way_out.through(broker_url)}
    conf = {"broker_url": broker_url, **urls, "result_backend": server.url(1)}
    stage = Stage(tmp_path_factory.mktemp("outage"), conf)
    if broker_url.startswith("redis"):
        stage.redeliver_after(6)
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def worker(stage: Stage) -> Worker:
    return stage.worker(WAITS, concurrency=4, env=ENV)


@pytest.fixture(scope="module")
def waits(stage: Stage) -> Iterator[ModuleType]:
    """The module of tasks in this process."""
    with loaded(stage, WAITS) as waits:
        yield waits


@pytest.fixture
def outage(way_out: Proxy) -> Iterator[Proxy]:
    """The way out is closed, until the test opens it."""
    way_out.refuse()
    yield way_out
    way_out.heal()


@pytest.fixture
def send(waits: ModuleType) -> Callable[..., AsyncResult]:
    """Send a task by the way that is open."""

    def send(task: Any, *args: Any, **kwargs: Any) -> AsyncResult:
        with waits.app.connection_for_read() as connection:
            return task.apply_async(args, kwargs, connection=connection)

    return send


def deliveries(stage: Stage, result: AsyncResult) -> list[dict[str, Any]]:
    return stage.history.entries("delivered", id=result.id)


def test_late_acked_is_handed_back(
    waits: ModuleType, worker: Worker, stage: Stage, outage: Proxy, send: Callable[..., AsyncResult]
) -> None:
    """A task that must wait during an outage would be lost, or be run without its turn."""
    result = send(waits.count_late)
    wait_for(lambda: len(deliveries(stage, result)) >= 3, timeout=TIMEOUT)
    assert f"[{result.id}], handing it back to the broker" in worker.log_text()

    outage.heal()

    assert result.get(timeout=TIMEOUT) == 1
    at = [entry["at"] for entry in deliveries(stage, result)]
    assert all(later - earlier > 0.4 for earlier, later in pairwise(at[:-1])), "it spins"
    assert [entry["deferrals"] for entry in deliveries(stage, result)] == [0] * (len(at) - 1) + [1]
    assert stage.history.count("event", id=result.id, what="deferred") == 1
    assert stage.history.count("body", id=result.id) == 1


def test_early_acked_is_tried_until_it_is_out(
    waits: ModuleType, worker: Worker, stage: Stage, outage: Proxy, send: Callable[..., AsyncResult]
) -> None:
    """A task that exists nowhere but in the worker would be lost in an outage."""
    result = send(waits.count)
    wait_for(lambda: worker.log_text().count(f"[{result.id}], trying again") >= 2, timeout=TIMEOUT)
    assert len(deliveries(stage, result)) == 1

    outage.heal()

    assert result.get(timeout=TIMEOUT) == 1
    assert [entry["deferrals"] for entry in deliveries(stage, result)] == [0, 1]
    assert stage.history.count("body", id=result.id) == 1


def test_early_acked_is_logged_whole_when_its_worker_ends(
    waits: ModuleType, stage: Stage, outage: Proxy, send: Callable[..., AsyncResult]
) -> None:
    """Nobody would know what was lost with a worker that was shut down during an outage."""
    worker = stage.worker(WAITS, concurrency=1, queues=["doomed"], env=ENV)
    with waits.app.connection_for_read() as connection:
        result = waits.count.apply_async((4711,), connection=connection, queue="doomed")
    wait_for(lambda: f"[{result.id}], trying again" in worker.log_text(), timeout=TIMEOUT)

    worker.stop_cold()

    lost = [
        line for line in worker.log_text().splitlines() if f"Lost {waits.count.name}[{result.id}]" in line
    ]
    assert len(lost) == 1
    assert "4711" in lost[0]


def test_wait_longer_than_a_redelivery(
    waits: ModuleType, worker: Worker, stage: Stage, broker_url: str
) -> None:
    """A wait longer than the visibility timeout would make a second copy of the task."""
    delay = 7 if broker_url.startswith("redis") else 1  # RabbitMQ's own timeout is half an hour
    tasks = [waits.count, waits.count_late] * 3
    results = [task.delay(delay=delay) for task in tasks]

    assert [result.get(timeout=TIMEOUT) for result in results] == [1] * len(tasks)
    for result in results:
        first, second = deliveries(stage, result)
        assert delay <= second["at"] - first["at"] < delay + 3
        assert second["deferrals"] == 1
        assert stage.history.count("body", id=result.id) == 1


def test_nothing_is_left_behind(
    waits: ModuleType, worker: Worker, server: ValkeyServer, broker_url: str
) -> None:
    """A message that was put off would stay with the broker as well, and come again."""
    result = waits.count_late.delay(times=2)
    assert result.get(timeout=TIMEOUT) == 1

    if broker_url.startswith("redis"):
        with server.client() as client:
            wait_for(lambda: not client.hlen("unacked") and not client.llen("celery"))
    else:
        with waits.app.connection_for_read() as connection:
            found = connection.default_channel.queue_declare("celery", passive=True)
            assert found.message_count == 0
