"""Fixtures: servers that live as long as the session, clean for each test, and workers of the test's own."""

import gc
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.ground import processes
from tests.ground.isolation import from_nothing, isolated
from tests.ground.proxy import Proxy
from tests.ground.rabbitmq import RabbitMissing, RabbitNode
from tests.ground.servers import ValkeyCluster, ValkeyServer
from tests.ground.stage import Stage
from tests.ground.waiting import wait_for as _wait_for
from tests.ground.workers import Worker

REQUIRE_RABBITMQ = "CELERY_PATTERNS_REQUIRE_RABBITMQ"
_MARKED_BY_FIXTURE = {"worker": "integration", "rabbitmq_url": "rabbitmq", "rabbitmq_node": "rabbitmq"}


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that a test may use: `kind` is "redis" or "rabbitmq"."""

    kind: str
    url: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, marker in _MARKED_BY_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show the ends of the workers' logs with the failure of their test."""
    report = yield
    stage = getattr(item, "funcargs", {}).get("stage")
    if report.failed and stage is not None:
        report.sections += [(f"log of {worker.name}", worker.log_tail()) for worker in stage.workers]
    return report


@pytest.fixture(scope="session", autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    left = processes.end_all()
    assert not left, f"processes were left running by the tests: {left}"


@pytest.fixture(scope="module", autouse=True)
def _isolated_module() -> Iterator[None]:
    with from_nothing():
        yield


@pytest.fixture(autouse=True)
def _isolated_test(_isolated_module: None) -> Iterator[None]:
    with isolated():
        yield


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """`wait_for(condition, timeout=10.0)`: the only way to wait in a test."""
    return _wait_for


# --- Redis and Valkey ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def valkey(_valkey: ValkeyServer) -> ValkeyServer:
    """The session's server, running and empty. A test may stop, kill or suspend it; its data is then lost."""
    _valkey.clean()
    return _valkey


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """The URL of the session's server."""
    return valkey.url()


@pytest.fixture
def start_valkey(tmp_path: Path) -> Iterator[Callable[..., ValkeyServer]]:
    """`start_valkey(durable=True)`: a server of the test's own, for instance one that survives a kill."""
    servers: list[ValkeyServer] = []

    def start(**options: Any) -> ValkeyServer:
        servers.append(ValkeyServer(tmp_path / f"valkey-{len(servers)}", **options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def proxy(valkey: ValkeyServer) -> Iterator[Proxy]:
    """A proxy in front of the session's server."""
    with Proxy(valkey.port) as standing:
        yield standing


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    cluster = ValkeyCluster(tmp_path_factory.mktemp("cluster"))
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture
def cluster(_cluster: ValkeyCluster) -> ValkeyCluster:
    """The session's cluster of three nodes, formed and empty."""
    _cluster.clean()
    return _cluster


@pytest.fixture
def cluster_url(cluster: ValkeyCluster) -> str:
    """The URL of the session's cluster."""
    return cluster.url()


@pytest.fixture(params=["fakeredis", "valkey"])
def store_url(request: pytest.FixtureRequest) -> str:
    """An empty store; the test runs once on fakeredis and once on a real server."""
    return _store_url(request)


@pytest.fixture(params=["fakeredis", "valkey", "cluster"])
def every_store_url(request: pytest.FixtureRequest) -> str:
    """As `store_url`, and once more on the cluster."""
    return _store_url(request)


def _store_url(request: pytest.FixtureRequest) -> str:
    if request.param == "fakeredis":
        return f"memory://{uuid.uuid4().hex}"
    return request.getfixturevalue({"valkey": "redis_url", "cluster": "cluster_url"}[request.param])


# --- RabbitMQ -----------------------------------------------------------------------------------------


def start_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """Start the session's node; skip where there is no RabbitMQ, or fail where there has to be one."""
    node = RabbitNode(tmp_path_factory.mktemp("rabbitmq") / "node")
    try:
        node.start()
    except RabbitMissing as missing:
        if os.environ.get(REQUIRE_RABBITMQ) == "1":
            pytest.fail(f"{REQUIRE_RABBITMQ} is 1, but {missing}")
        pytest.skip(str(missing))
    yield node
    node.stop()
    node.remove()


rabbitmq_node = pytest.fixture(start_rabbitmq, scope="session", name="rabbitmq_node")


@pytest.fixture
def rabbitmq_url(rabbitmq_node: RabbitNode) -> str:
    """The URL of a virtual host that nobody has used yet."""
    rabbitmq_node.start()
    return rabbitmq_node.new_vhost()


# --- Celery -------------------------------------------------------------------------------------------


@pytest.fixture(params=["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """An empty broker; the test, and its workers, run once on Redis and once on RabbitMQ."""
    return Broker(request.param, request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def stage(request: pytest.FixtureRequest, valkey: ValkeyServer, tmp_path: Path) -> Iterator[Stage]:
    """Settings for workers and for this process, and the history.

    The broker is that of `broker`, if the test asks for it, else the session's Valkey (database 0). The
    result backend is the session's Valkey (database 1).
    """
    url = request.getfixturevalue("broker").url if "broker" in request.fixturenames else valkey.url(0)
    stage = Stage(tmp_path, {"broker_url": url, "result_backend": valkey.url(1)})
    with no_collection():
        yield stage
        stage.close()


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage meanwhile, but before and after.

    Celery 5.5's results unsubscribe when they are collected. If that happens while the same thread
    subscribes to another result, redis-py waits for its own lock, for ever.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture
def worker(stage: Stage) -> Callable[..., Worker]:
    """`worker("tests.apps.orders", concurrency=2)`: a ready worker on a module of tasks."""
    return stage.worker


@pytest.fixture
def load(stage: Stage) -> Callable[[str], ModuleType]:
    """`load("tests.apps.orders")`: the same module in this process, on the same broker."""
    return stage.load
