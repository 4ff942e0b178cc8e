"""One worker for each broker, shared by the tests of this folder: they tell their chords apart by labels."""

import gc
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import no_collection
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.waiting import wait_for
from tests.ground.workers import Worker

CHORDS = "tests.apps.chords"
PATIENCE = 60.0
EXPIRED = {"countdown": 10, "expires": 9}
"""Options of a part that has expired when a worker would run it, and that RabbitMQ hands over before."""


@dataclass
class Ground:
    """A running worker, and the tasks to send to it."""

    kind: str
    stage: Stage
    server: ValkeyServer
    worker: Worker
    tasks: ModuleType
    _labels: Iterator[int] = field(default_factory=itertools.count)
    _gates: list[Path] = field(default_factory=list)

    def label(self, about: str = "chord") -> str:
        """A name for a body's runs that no other test has."""
        return f"{about}-{next(self._labels)}"

    def gate(self) -> Path:
        """A file that does not exist yet; at the end of the test it does, so that nothing goes on waiting."""
        self._gates.append(self.stage.directory / f"gate-{next(self._labels)}")
        return self._gates[-1]

    def open_gates(self) -> None:
        """Let everything go on that still waits."""
        while self._gates:
            self._gates.pop().touch()

    def told(self, label: str) -> list[str]:
        """What the body was given, once it has run; and it has run once."""
        entry = wait_for(
            lambda: self.stage.history.last("body", label=label), timeout=PATIENCE, message=f"body {label}"
        )
        assert self.runs(label) == 1, f"body {label} ran {self.runs(label)} times"
        return list(entry["told"])

    def runs(self, label: str) -> int:
        """How often the body has run."""
        return self.stage.history.count("body", label=label)

    def flush(self) -> None:
        """Wait until everything that was sent before has been done."""
        for _ in range(2):  # what it sent, too
            self.tasks.give.delay(1).get(timeout=PATIENCE)

    def keys(self, *parts: str) -> list[str]:
        """The keys in the result backend with one of these in their names."""
        with self.server.client(1) as client:
            names = [key.decode() for key in client.scan_iter()]
        return [name for name in names if any(part in name for part in parts)]


@pytest.fixture(scope="package", params=["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A worker with four processes on Redis, and another on RabbitMQ."""
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    url = server.url(0)
    if request.param == "rabbitmq":
        url = request.getfixturevalue("rabbitmq_node").new_vhost()
    conf = {"broker_url": url, "result_backend": f"partial+{server.url(1)}"}
    stage = Stage(tmp_path_factory.mktemp("stage"), conf)
    try:
        worker = stage.worker(CHORDS, concurrency=4)
        tasks = stage.load(CHORDS)
        yield Ground(request.param, stage, server, worker, tasks)
        forget_results(tasks.app.backend)
    finally:
        stage.close()
        server.kill()


def forget_results(backend: Any) -> None:
    """Let go of results while their server runs: those that are collected later would look for it."""
    for pending in backend._pending_results:
        pending.clear()
    gc.collect()
    backend.result_consumer.stop()
    backend.result_consumer._pubsub = None


@pytest.fixture(autouse=True)
def _no_results_left() -> Iterator[None]:
    """Collect results while their server runs: later they would look for it, for 20 seconds."""
    with no_collection():
        yield
    gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show the end of the shared worker's log with a failure."""
    report = yield
    shared = getattr(item, "funcargs", {}).get("ground")
    if report.failed and shared is not None:
        report.sections.append(("log of the shared worker", shared.worker.log_tail()))
    return report


@pytest.fixture
def tasks(ground: Ground) -> Iterator[ModuleType]:
    """The module of tasks of the shared worker."""
    yield ground.tasks
    ground.open_gates()
