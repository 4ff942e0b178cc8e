"""What the worker's parent tells policies: which delivery is gone, and which will not run again."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import celery
import pytest
from celery.result import AsyncResult
from celery.utils.imports import symbol_by_name
from celery.worker.request import Request

from celery_patterns import Idempotency, IdempotentTask
from celery_patterns.core.nonce import new_nonce
from celery_patterns.core.reported import reported_request
from celery_patterns.core.request import PolicyRequest, with_policies
from tests.apps.witness import loaded
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.waiting import wait_for
from tests.ground.workers import Worker

SEAMS = "tests.apps.seams"
TIMEOUT = 15


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server and a history of this module's own: its tests use different task ids."""
    directory = tmp_path_factory.mktemp("request")
    server = ValkeyServer(directory / "valkey")
    server.start()
    stage = Stage(directory, {"broker_url": server.url(0), "result_backend": server.url(1)})
    yield stage
    stage.close()
    server.kill()


@pytest.fixture(scope="module")
def prefork(stage: Stage) -> Worker:
    """One worker for all tests: its children are replaced when they are killed."""
    return stage.worker(SEAMS, concurrency=4)


@pytest.fixture(scope="module")
def seams(stage: Stage, prefork: Worker) -> Iterator[ModuleType]:
    """The module of tasks in this process; what it declares is gone afterwards."""
    with loaded(stage, SEAMS) as seams:
        yield seams


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file that a gated task waits for."""
    return tmp_path / "gate"


class Told:
    """What the policy of one task was told."""

    def __init__(self, stage: Stage, result: AsyncResult) -> None:
        self.stage = stage
        self.id = result.id

    def entries(self, event: str) -> list[dict[str, Any]]:
        """What was written down of one kind."""
        return self.stage.history.entries(event, id=self.id)

    def wait(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait until it was written down so often."""
        wait_for(lambda: len(self.entries(event)) >= times, timeout=TIMEOUT, message=f"{event} of {self.id}")
        return self.entries(event)

    def counts(self) -> dict[str, int]:
        """How often the task began, and each hook was called."""
        return {event: len(self.entries(event)) for event in ("enter", "failed", "lost")}

    def nonces(self) -> set[str]:
        """Of the deliveries that began, failed or were lost."""
        return {entry["nonce"] for event in ("enter", "failed", "lost") for entry in self.entries(event)}


@pytest.fixture
def told(stage: Stage) -> Callable[[AsyncResult], Told]:
    return lambda result: Told(stage, result)


@pytest.fixture
def settled(seams: ModuleType) -> Callable[[], None]:
    """Wait until the worker has dealt with all that it was given: what was not told by then never is."""

    def wait() -> None:
        for result in [seams.plain.delay(n) for n in range(4)]:
            result.get(timeout=TIMEOUT)

    return wait


pytestmark = pytest.mark.integration


def test_body_raises(seams: ModuleType, prefork: Worker, told: Any, settled: Any) -> None:
    """What a failed task holds would stay held, or be let go of by the wrong delivery."""
    result = seams.raising.delay(why="broken")
    assert str(result.get(timeout=TIMEOUT, propagate=False)) == "broken"
    settled()

    seen = told(result)
    (failed,) = seen.entries("failed")
    assert failed["error"] == "ValueError"
    assert failed["pid"] in prefork.children()
    assert failed["nonce"] == seen.entries("enter")[0]["nonce"]
    assert (failed["args"], failed["kwargs"]) == ([], {"why": "broken"})
    assert seen.counts() == {"enter": 1, "failed": 1, "lost": 0}


def test_soft_time_limit(seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path) -> None:
    """A task that runs into its soft limit is an ordinary failure, and its process lives on."""
    result = seams.softly_limited.delay(str(gate))
    result.get(timeout=TIMEOUT, propagate=False)
    settled()

    seen = told(result)
    (failed,) = seen.entries("failed")
    assert (failed["error"], failed["pid"] in prefork.children()) == ("SoftTimeLimitExceeded", True)
    assert seen.counts() == {"enter": 1, "failed": 1, "lost": 0}


def test_result_that_cannot_be_stored(seams: ModuleType, told: Any, settled: Any) -> None:
    """The task fails after its body has returned, and policies would believe that it succeeded."""
    result = seams.unserialisable.delay()
    result.get(timeout=TIMEOUT, propagate=False)
    settled()

    seen = told(result)
    assert [entry["how"] for entry in seen.entries("leave")] == ["returned"]
    assert seen.counts() == {"enter": 1, "failed": 1, "lost": 0}


def test_hard_time_limit(seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path) -> None:
    """A killed body lets go of nothing itself: what it holds would stay held until its lease runs out."""
    result = seams.limited.delay(str(gate))
    result.get(timeout=TIMEOUT, propagate=False)
    settled()

    seen = told(result)
    (failed,), (lost,) = seen.entries("failed"), seen.entries("lost")
    assert failed["error"] == "TimeLimitExceeded"
    assert failed["pid"] == lost["pid"] == prefork.pid
    assert failed["nonce"] == lost["nonce"] == seen.entries("enter")[0]["nonce"]
    assert lost["grace"] >= 0.2  # SIGTERM, then SIGKILL: the process is not gone yet
    assert failed["args"] == lost["args"] == [str(gate)]


@pytest.mark.chaos
def test_killed_and_given_up(seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path) -> None:
    """Acknowledged early, or not to be rejected: the task is lost, and what it holds would stay held."""
    results = [task.delay(str(gate)) for task in (seams.gated, seams.gated_given_up)]
    for result in results:
        prefork.kill_child(told(result).wait("body")[0]["pid"])
    for result in results:
        result.get(timeout=TIMEOUT, propagate=False)
    settled()

    for seen in map(told, results):
        (failed,), (lost,) = seen.entries("failed"), seen.entries("lost")
        assert (failed["error"], lost["grace"]) == ("WorkerLostError", 0)
        assert failed["pid"] == lost["pid"] == prefork.pid
        assert len(seen.nonces()) == 1
        assert seen.counts() == {"enter": 1, "failed": 1, "lost": 1}


@pytest.mark.chaos
def test_killed_and_delivered_again(
    seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path
) -> None:
    """The second delivery would wait for a lease that nobody holds, or be let go of as if it had failed."""
    result = seams.gated_late.delay(str(gate))
    seen = told(result)
    prefork.kill_child(seen.wait("body")[0]["pid"])
    seen.wait("body", 2)
    gate.touch()
    assert result.get(timeout=TIMEOUT) == "told"
    settled()

    first, second = seen.entries("enter")
    (lost,) = seen.entries("lost")
    assert lost["nonce"] == first["nonce"] != second["nonce"]
    assert lost["pid"] == prefork.pid
    assert seen.counts() == {"enter": 2, "failed": 0, "lost": 1}


@pytest.mark.chaos
def test_one_of_two_deliveries_is_killed(
    seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path
) -> None:
    """The living delivery of a task would lose its lease to the death of the other one."""
    task_id = str(uuid.uuid4())
    result = seams.gated.apply_async((str(gate),), task_id=task_id)
    seams.gated.apply_async((str(gate),), task_id=task_id)
    seen = told(result)
    seen.wait("body", 2)
    entered = {entry["pid"]: entry["nonce"] for entry in seen.entries("enter")}
    assert len(entered) == len(set(entered.values())) == 2

    killed = prefork.kill_child(seen.entries("body")[1]["pid"])
    seen.wait("lost")
    gate.touch()
    seen.wait("leave")
    settled()

    assert [entry["nonce"] for entry in seen.entries("lost")] == [entered[killed]]
    assert [entry["nonce"] for entry in seen.entries("failed")] == [entered[killed]]


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="retry_on_worker_lost is new in Celery 5.7")
@pytest.mark.chaos
def test_killed_and_retried(seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path) -> None:
    """Celery's own retry of a lost task would pass for its end, or for a new call."""
    result = seams.retried_when_lost.delay(str(gate))
    seen = told(result)
    prefork.kill_child(seen.wait("body")[0]["pid"])
    seen.wait("body", 2)
    assert seen.counts() == {"enter": 2, "failed": 0, "lost": 1}
    assert [entry["retries"] for entry in seen.entries("enter")] == [0, 1]

    prefork.kill_child(seen.entries("body")[1]["pid"])
    result.get(timeout=TIMEOUT, propagate=False)
    settled()

    assert seen.counts() == {"enter": 2, "failed": 1, "lost": 2}
    assert seen.entries("failed")[0]["nonce"] == seen.entries("enter")[1]["nonce"]
    assert "publish" not in [entry["event"] for entry in seen.stage.history.entries(id=result.id)]


def test_body_that_leaves_the_process(seams: ModuleType, told: Any, settled: Any) -> None:
    """`sys.exit()` in a body ends its process: the same as if it were killed."""
    result = seams.exiting.delay()
    result.get(timeout=TIMEOUT, propagate=False)
    settled()

    seen = told(result)
    assert seen.counts() == {"enter": 1, "failed": 1, "lost": 1}
    assert (
        len({entry["nonce"] for event in ("enter", "failed", "lost") for entry in seen.entries(event)}) == 1
    )


def test_revoked_before_it_starts(
    seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path
) -> None:
    """What it has taken when it was sent would stay taken."""
    task_id = str(uuid.uuid4())
    seams.app.control.revoke(task_id, reply=True, timeout=5, limit=1)
    result = seams.gated.apply_async((str(gate),), task_id=task_id)
    result.get(timeout=TIMEOUT, propagate=False)
    settled()

    seen = told(result)
    assert result.state == "REVOKED"
    (failed,) = seen.entries("failed")
    assert (failed["error"], failed["pid"], failed["args"]) == ("Ignore", prefork.pid, [str(gate)])
    assert seen.counts() == {"enter": 0, "failed": 1, "lost": 0}


@pytest.mark.chaos
def test_revoked_and_terminated(
    seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path
) -> None:
    """What a terminated body holds would stay held."""
    ways = [(task, how) for task in (seams.gated, seams.gated_late) for how in ("SIGTERM", "SIGKILL")]
    results = [task.delay(str(gate)) for task, _ in ways]
    pids = {told(result).wait("body")[0]["pid"] for result in results}
    for result, (_, how) in zip(results, ways, strict=True):
        seams.app.control.revoke(result.id, terminate=True, signal=how, reply=True, timeout=5, limit=1)
    wait_for(lambda: all(result.state == "REVOKED" for result in results), timeout=TIMEOUT)
    wait_for(lambda: not pids & set(prefork.children()), timeout=TIMEOUT)
    for result in results:
        told(result).wait("lost")
    settled()

    for seen in map(told, results):
        assert len(seen.nonces()) == 1
        assert {entry["pid"] for entry in seen.entries("failed")} == {prefork.pid}
        assert seen.counts() == {"enter": 1, "failed": 1, "lost": 1}


def test_expired(seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path) -> None:
    """What it has taken when it was sent would stay taken."""
    past = datetime.now(UTC) - timedelta(seconds=5)
    result = seams.gated.apply_async((str(gate),), expires=past)
    result.get(timeout=TIMEOUT, propagate=False)
    settled()

    seen = told(result)
    assert result.state == "REVOKED"
    assert [entry["pid"] for entry in seen.entries("failed")] == [prefork.pid]
    assert seen.counts() == {"enter": 0, "failed": 1, "lost": 0}


def test_rejected_for_good(seams: ModuleType, told: Any, settled: Any) -> None:
    """A message that goes to the dead letters would keep what it holds."""
    result = seams.rejecting.delay(requeue=False)
    seen = told(result)
    seen.wait("failed")
    settled()

    assert [entry["error"] for entry in seen.entries("failed")] == ["Reject"]
    assert seen.entries("failed")[0]["nonce"] == seen.entries("enter")[0]["nonce"]
    assert seen.counts() == {"enter": 1, "failed": 1, "lost": 0}


def test_rejected_to_come_again(seams: ModuleType, told: Any, settled: Any) -> None:
    """A message that will come again would be let go of."""
    result = seams.rejecting.delay(requeue=True)
    assert result.get(timeout=TIMEOUT) == "came again"
    settled()

    seen = told(result)
    assert len({entry["nonce"] for entry in seen.entries("enter")}) == 2
    assert seen.counts() == {"enter": 2, "failed": 0, "lost": 0}


def test_ignored(seams: ModuleType, told: Any, settled: Any) -> None:
    """A body that says that it has nothing to say has not failed."""
    seen = told(seams.ignoring.delay())
    seen.wait("leave")
    settled()

    assert seen.counts() == {"enter": 1, "failed": 0, "lost": 0}


def test_retried(seams: ModuleType, told: Any, settled: Any) -> None:
    """A task would be let go of between two attempts."""
    result = seams.retrying.delay(2)
    assert result.get(timeout=TIMEOUT) == 2
    settled()

    assert told(result).counts() == {"enter": 3, "failed": 0, "lost": 0}


def test_retries_exhausted(seams: ModuleType, told: Any, settled: Any) -> None:
    """A task that is given up would keep what it holds, or be let go of once for each attempt."""
    result = seams.retrying.delay(99)
    result.get(timeout=TIMEOUT, propagate=False)
    settled()

    seen = told(result)
    assert seen.counts() == {"enter": 4, "failed": 1, "lost": 0}
    assert seen.entries("failed")[0]["nonce"] == seen.entries("enter")[-1]["nonce"]


def test_succeeded(seams: ModuleType, told: Any, settled: Any) -> None:
    """A task that is over would be let go of, and with it what its duplicate holds."""
    result = seams.decorated.delay(1)
    result.get(timeout=TIMEOUT)
    settled()

    assert told(result).counts() == {"enter": 1, "failed": 0, "lost": 0}


@pytest.mark.chaos
def test_clean_up_that_fails_changes_nothing(
    seams: ModuleType, prefork: Worker, told: Any, settled: Any, gate: Path
) -> None:
    """A killed task whose policy cannot clean up would neither be delivered again nor fail: it would hang."""
    result = seams.clumsy.delay(str(gate))
    seen = told(result)
    prefork.kill_child(seen.wait("body")[0]["pid"])
    seen.wait("body", 2)
    gate.touch()
    assert result.get(timeout=TIMEOUT) == "told"
    settled()

    assert seen.counts() == {"enter": 2, "failed": 0, "lost": 1}
    assert "clumsy could not clean up in 'lost'" in prefork.log_text()


# --- in this process ------------------------------------------------------------------------------------


class Own(Request):
    """A project's own request class."""


def test_request_classes_are_kept() -> None:
    """A project's own request class would be replaced, or be wrapped again by each policy."""
    assert with_policies(Request) is PolicyRequest
    assert with_policies(PolicyRequest) is PolicyRequest
    mixed = with_policies(Own)
    assert issubclass(mixed, PolicyRequest)
    assert issubclass(mixed, Own)
    assert with_policies(mixed) is mixed


def test_a_request_class_of_all_tasks_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What instruments all tasks would see everything but those with policies."""
    monkeypatch.setattr(celery.Task, "Request", f"{__name__}:Own")
    app = celery.Celery("instrumented", broker="memory://", set_as_current=False)

    @app.task(base=IdempotentTask, idempotency=Idempotency("order"))
    def charge(order: str) -> None: ...

    assert issubclass(symbol_by_name(charge.Request), Own)


def test_nonces_differ() -> None:
    """Two deliveries would pass for one owner."""
    assert len({new_nonce() for _ in range(1_000)}) == 1_000


def test_nothing_is_reported_outside_of_reports() -> None:
    """A publication in the parent would be taken for the retry of the last failed task."""
    assert reported_request() is None
