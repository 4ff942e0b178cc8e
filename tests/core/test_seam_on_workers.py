"""Where policies meet a task, in workers of every pool."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.apps.witness import loaded
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.waiting import wait_for

pytestmark = pytest.mark.integration

SEAMS = "tests.apps.seams"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A server of this module's own, which no other test empties."""
    server = ValkeyServer(tmp_path_factory.mktemp("seam-server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module", params=["prefork", "threads", "gevent", "solo"])
def stage(
    request: pytest.FixtureRequest, server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """One worker for all tests of a pool: they use different task ids."""
    server.clean()
    stage = Stage(
        tmp_path_factory.mktemp(request.param), {"broker_url": server.url(0), "result_backend": server.url(1)}
    )
    try:
        stage.worker(SEAMS, pool=request.param, concurrency=2)
        yield stage
    finally:
        stage.close()


@pytest.fixture(scope="module")
def seams(stage: Stage) -> Iterator[ModuleType]:
    """The module of tasks in this process; what it declares is gone afterwards."""
    with loaded(stage, SEAMS) as seams:
        yield seams


def happened(stage: Stage, task_id: str) -> list[str]:
    """What the worker wrote down about a task, in order."""
    return [entry["event"] for entry in stage.history.entries(id=task_id)]


MADE = ["decorated", "based", "shared", "named", "nameless", "after_finalising"]


@pytest.mark.parametrize("make", MADE)
def test_tasks_of_every_make(seams: ModuleType, stage: Stage, make: str) -> None:
    """A task would run in the worker without the policy that its author has put on it."""
    result = getattr(seams, make).delay(1)

    assert result.get(timeout=10) == 2
    assert happened(stage, result.id) == ["enter", "body", "leave"]


@pytest.mark.parametrize("make", ["flask", "with_super"])
def test_base_that_overrides_call(seams: ModuleType, stage: Stage, make: str) -> None:
    """In every project with an application context around its tasks policies would be ignored."""
    result = getattr(seams, make).delay(1)

    assert result.get(timeout=10) == 2
    assert happened(stage, result.id) == ["context", "enter", "body", "leave"]


def test_pydantic_task(seams: ModuleType, stage: Stage) -> None:
    """A policy would see models, or the body plain dicts."""
    result = seams.modelled.delay({"n": 1})

    assert result.get(timeout=10) == {"n": 2}
    assert happened(stage, result.id) == ["enter", "body", "leave"]


@pytest.mark.parametrize("make", ["recursive", "recursive_with_super"])
def test_body_that_calls_itself(seams: ModuleType, stage: Stage, make: str) -> None:
    """A recursive body would be a duplicate of itself, and wait for itself for ever."""
    result = getattr(seams, make).delay(4)

    assert result.get(timeout=10) == 4
    assert Counter(happened(stage, result.id))["enter"] == 1


def test_body_that_calls_another_task(seams: ModuleType, stage: Stage) -> None:
    """What a body calls as a function would be held up, and what it runs eagerly would not."""
    result = seams.calling.delay(1)

    assert result.get(timeout=10) == [2, 2]
    assert left(stage, result.id, 1) == ["returned"]
    others = stage.history.entries("enter", task=seams.decorated.name)
    assert len({entry["id"] for entry in others}) == len(others)


def test_mapped_calls_are_direct_calls(seams: ModuleType, stage: Stage) -> None:
    """`task.map(...)` calls the body as a function inside another task: it would fail or change meaning."""
    before = stage.history.count("enter")

    assert seams.recursive.map([1, 2]).delay().get(timeout=10) == [1, 2]
    assert seams.recursive.starmap([(1,), (2,)]).delay().get(timeout=10) == [1, 2]
    assert seams.recursive.chunks([(1,), (2,)], 1)().get(timeout=10) == [[1], [2]]

    assert stage.history.count("enter") == before


def left(stage: Stage, task_id: str, times: int) -> list[str]:
    """How the runs of a task ended, by attempt: a retry may be over before what it repeats has ended."""
    wait_for(lambda: stage.history.count("leave", id=task_id) == times)
    return [entry["how"] for entry in sorted(stage.history.entries("leave", id=task_id), key=_attempt)]


def _attempt(entry: dict[str, Any]) -> Any:
    return entry["retries"], entry["by"]


def test_retry_is_the_same_call_in_another_delivery(seams: ModuleType, stage: Stage) -> None:
    """A retry would pass for a new call, or two deliveries for one owner."""
    result = seams.retrying.delay(2)

    assert result.get(timeout=10) == 2
    assert left(stage, result.id, 3) == ["Retry", "Retry", "returned"]
    entered = stage.history.entries("enter", id=result.id)
    assert [entry["retries"] for entry in entered] == [0, 1, 2]
    assert len({entry["nonce"] for entry in entered}) == 3
    assert stage.history.count("body", id=result.id) == 3


@pytest.mark.parametrize(("times", "ends"), [(1, ["Retry", "returned"]), (2, ["Retry", "ConnectionError"])])
def test_policies_stay_outside_autoretry(
    seams: ModuleType, stage: Stage, times: int, ends: list[str]
) -> None:
    """Policies would take a failure that is retried for a final one."""
    result = seams.auto.delay(times)
    result.get(timeout=10, propagate=False)

    assert left(stage, result.id, 4) == [how for how in ends for _ in ("outer", "witness")]


def test_replaced_by_another_task(seams: ModuleType, stage: Stage) -> None:
    """The replacement would be taken for a retry of what it replaces, and pass its own policies by."""
    result = seams.replaced_by_another.delay(1)

    assert result.get(timeout=10) == 2
    assert sorted(left(stage, result.id, 2)) == ["Ignore", "returned"]
    names = [entry["task"] for entry in stage.history.entries("publish", id=result.id)]
    assert names == [seams.decorated.name]
    entered = {entry["task"] for entry in stage.history.entries("enter", id=result.id)}
    assert entered == {seams.replaced_by_another.name, seams.decorated.name}


def test_replaced_by_itself(seams: ModuleType, stage: Stage) -> None:
    """A task that replaces itself with other arguments makes new calls, which would pass for retries."""
    result = seams.replaced_by_itself.delay(2)

    assert result.get(timeout=10) == "replaced"
    assert stage.history.count("publish", id=result.id) == 2
    assert stage.history.count("enter", id=result.id) == 3


def test_retry_is_not_published_again(seams: ModuleType, stage: Stage) -> None:
    """A retry would meet the policies of publication, find its own lock, and be dropped."""
    result = seams.retrying.delay(1)
    result.get(timeout=10)

    assert "publish" not in happened(stage, result.id)


def test_sending_itself_is_a_new_call(seams: ModuleType, stage: Stage) -> None:
    """A task that sends itself would pass its policies by."""
    result = seams.spawning.delay(1)

    child = result.get(timeout=10)

    assert seams.app.AsyncResult(child).get(timeout=10) is None
    assert stage.history.count("publish", task=seams.spawning.name) >= 1


def test_sent_by_name(seams: ModuleType, stage: Stage) -> None:
    """A producer without the library would go past the policies of the worker."""
    result = seams.app.send_task(seams.decorated.name, (1,))

    assert result.get(timeout=10) == 2
    assert happened(stage, result.id) == ["enter", "body", "leave"]


def test_each_delivery_has_its_nonce(seams: ModuleType, stage: Stage) -> None:
    """Two calls at the same time would pass for one owner of a lease."""
    results = [seams.decorated.delay(n) for n in range(8)]
    assert [result.get(timeout=10) for result in results] == list(range(1, 9))

    nonces = {
        entry["nonce"] for entry in stage.history.entries("enter") if entry["id"] in {r.id for r in results}
    }
    assert len(nonces) == 8


def test_attached_too_late(seams: ModuleType, stage: Stage) -> None:
    """A module that the worker imports while it runs would believe its task to be guarded."""
    assert "after the worker had built the task" in seams.late.delay().get(timeout=10)
    assert seams.plain.delay(1).get(timeout=10) == 2


@pytest.mark.parametrize("how", ["by base", "by decorator", "on a shared task"])
def test_worker_with_a_wrong_declaration_does_not_start(
    tmp_path: Path, server: ValkeyServer, how: str
) -> None:
    """A worker would start, and the mistake show with the first call, or never."""
    stage = Stage(tmp_path, {"broker_url": server.url(0), "result_backend": server.url(1)})
    try:
        worker = stage.worker("tests.apps.wrong", wait=False, env={"WRONGLY": how})
        wait_for(lambda: not worker.running, timeout=20)
        assert "key names 'order_id', but the task's arguments are order" in worker.log_text()
    finally:
        stage.close()
