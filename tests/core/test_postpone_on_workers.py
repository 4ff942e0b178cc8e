"""Putting a task off, on real workers: Redis, RabbitMQ, and quorum queues on a topic exchange."""

import uuid
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord, group
from celery.result import AsyncResult

from tests.apps.witness import loaded
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.waiting import wait_for

pytestmark = pytest.mark.integration

WAITS = "tests.apps.waits"
ENV = {"WAITS_IN_WORKER": "1", "C_FORCE_ROOT": "1"}  # pickle, as whichever user the tests run
TIMEOUT = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A server of this module's own, which no other test empties."""
    server = ValkeyServer(tmp_path_factory.mktemp("postpone-server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(
    scope="module",
    params=[
        "redis",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("quorum", marks=pytest.mark.rabbitmq),
    ],
)
def broker(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def stage(
    broker: str,
    request: pytest.FixtureRequest,
    server: ValkeyServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """One worker for all tests of a broker: they use different task ids."""
    server.clean()
    conf: dict[str, Any] = {
        "broker_url": server.url(0),
        "result_backend": server.url(1),
    }
    if broker != "redis":
        conf["broker_url"] = request.getfixturevalue("rabbitmq_node").new_vhost()
    if broker == "quorum":
        conf |= {"ground_topic": "quorum", "broker_native_delayed_delivery_queue_type": "classic"}
    conf |= {"accept_content": ["json", "pickle"]}
    stage = Stage(tmp_path_factory.mktemp(broker), conf)
    try:
        stage.worker(
            WAITS, concurrency=4, queues=["celery", "other"], env={"C_FORCE_ROOT": "1"}
        )  # for pickle
        yield stage
    finally:
        stage.close()


@pytest.fixture(scope="module")
def waits(stage: Stage) -> Iterator[ModuleType]:
    """The module of tasks in this process."""
    with loaded(stage, WAITS) as waits:
        yield waits


def deliveries(stage: Stage, task_id: str) -> list[dict[str, Any]]:
    return stage.history.entries("delivered", id=task_id)


def bodies(stage: Stage, result: AsyncResult) -> int:
    return stage.history.count("body", id=result.id)


def test_everything_is_kept(waits: ModuleType, stage: Stage, broker: str) -> None:
    """A postponed task would lose its links, its limits, or whose child it is, on one of the brokers."""
    signature = waits.count.signature((4,), {"times": 3})
    signature.stamp(tenant="t-1", append_stamps=False)
    result = signature.apply_async(
        root_id="r-1",
        parent_id="p-1",
        link=[waits.linked.s("first"), waits.linked.s("second")],
        link_error=[waits.linked.si("error")],
        headers={"tenant-header": "t", "cp-key": "k"},
        priority=3,
        expires=3_000,
        time_limit=300,
        soft_time_limit=200,
        shadow="count of t",
    )

    assert result.get(timeout=TIMEOUT) == 5
    seen = deliveries(stage, result.id)
    assert [entry["deferrals"] for entry in seen] == [0, 1, 2, 3]
    assert len({entry["nonce"] for entry in seen}) == 4
    brought = [{**entry["carried"], "headers": callers(entry)} for entry in seen]
    assert brought[0] == brought[1] == brought[2] == brought[3]
    assert brought[0]["headers"] == {"tenant-header": "t", "cp-key": "k"}
    assert (brought[0]["priority"], brought[0]["timelimit"], brought[0]["shadow"]) == (
        3,
        [300, 200],
        "count of t",
    )
    assert brought[0]["stamps"] == {"tenant": "t-1"}
    linked = wait_for(lambda: _of_root(stage, "r-1", 2))
    assert sorted(entry["got"] for entry in linked) == [[5, "first"], [5, "second"]]
    assert bodies(stage, result) == 1


def _of_root(stage: Stage, root: str, times: int) -> list[dict[str, Any]]:
    entries = stage.history.entries("linked", root=root)
    return entries if len(entries) >= times else []


def callers(entry: dict[str, Any]) -> dict[str, Any]:
    """The headers that the caller has given."""
    return {
        name: value
        for name, value in entry["carried"]["headers"].items()
        if name in {"tenant-header", "cp-key"}
    }


def test_waits_at_least_as_long_as_asked(waits: ModuleType, stage: Stage, broker: str) -> None:
    """A fraction of a second would be refused by quorum queues, or a wait cut short."""
    result = waits.count.delay(times=2, delay=0.3)
    result.get(timeout=TIMEOUT)

    at = [entry["at"] for entry in deliveries(stage, result.id)]
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert all(0.28 < pause < 5 for pause in pauses)


def test_waiting_shows_as_retry(waits: ModuleType, stage: Stage) -> None:
    """Whoever looks at a waiting task would think that it is lost, or that it failed."""
    result = waits.count.delay(delay=2)

    wait_for(lambda: result.state == "RETRY")
    assert type(result.info).__name__ == "Refused"
    assert result.info.retry_after == 2
    assert result.get(timeout=TIMEOUT) == 1


def test_many_deferrals(waits: ModuleType, stage: Stage) -> None:
    """Something that each deferral adds would grow until the broker refuses it."""
    results = [task.delay(times=6, delay=0.01) for task in (waits.count, waits.count_late)]

    for result in results:
        assert result.get(timeout=TIMEOUT) == 1
        assert len(deliveries(stage, result.id)) == 7
        assert bodies(stage, result) == 1


def test_stays_in_its_queue(waits: ModuleType, stage: Stage) -> None:
    """A postponed task would move to the default queue, whose workers may not know it."""
    result = waits.count.apply_async(kwargs={"times": 3}, queue="other")
    result.get(timeout=TIMEOUT)

    keys = [entry["routing_key"] for entry in deliveries(stage, result.id)]
    assert len(keys) == 4
    assert all(key.endswith("other") for key in keys), keys


def test_ignored_result_stays_ignored(waits: ModuleType, stage: Stage) -> None:
    """A postponed task whose result nobody wants would fill the result backend."""
    result = waits.count.apply_async(ignore_result=True)
    wait_for(lambda: bodies(stage, result))

    assert [entry["carried"]["ignore_result"] for entry in deliveries(stage, result.id)] == [True, True]
    waits.linked.delay().get(timeout=TIMEOUT)
    assert result.state in {"PENDING", "RETRY"}


def test_pickled_arguments(waits: ModuleType, stage: Stage) -> None:
    """A call that was sent with another serializer than the task's own could not be put off."""
    result = waits.count.apply_async(({1, 2},), {"times": 2}, serializer="pickle")

    assert result.get(timeout=TIMEOUT) == [1, 2]


def test_fails_after_all(waits: ModuleType, stage: Stage) -> None:
    """An errback of a task that was put off would be lost, or be called for each deferral."""
    root = uuid.uuid4().hex
    result = waits.fail.apply_async(
        kwargs={"times": 2}, link_error=waits.linked.si("failed"), link=waits.linked.si("fine"), root_id=root
    )

    assert str(result.get(timeout=TIMEOUT, propagate=False)) == "after all"
    wait_for(lambda: stage.history.entries("linked", got=["failed"]))
    waits.linked.delay().get(timeout=TIMEOUT)
    assert stage.history.count("failed", id=result.id) == 1
    assert [entry["got"] for entry in stage.history.entries("linked", root=root)] == [["failed"]]


def test_in_the_middle_of_a_chain(waits: ModuleType, stage: Stage) -> None:
    """What comes after a postponed task would never run, or run twice."""
    result = chain(waits.count.s(1), waits.count.s(times=2), waits.count.s(), waits.linked.s("end")).delay()

    assert result.get(timeout=TIMEOUT) == [4, "end"]
    middle = [entry["carried"] for entry in deliveries(stage, result.parent.parent.id)]
    assert len(middle) == 3
    assert middle[0]["chain"] == middle[2]["chain"]
    assert middle[0]["root_id"] == middle[2]["root_id"] == result.parent.parent.parent.id
    assert stage.history.count("linked", id=result.id) == 1


def test_in_the_header_of_a_chord(waits: ModuleType, stage: Stage) -> None:
    """The body would never run, or run with a part missing, or too early."""
    header = [waits.count.s(n, times=n % 3) for n in range(5)]
    result = chord(header)(waits.linked.s("body"))

    assert result.get(timeout=TIMEOUT) == [[1, 2, 3, 4, 5], "body"]
    assert stage.history.count("linked", id=result.id) == 1
    part = [entry["carried"] for entry in deliveries(stage, result.parent.results[2].id)]
    assert len(part) == 3
    assert part[0]["chord"] == part[2]["chord"]
    assert (part[2]["group"], part[2]["group_index"]) == (part[0]["group"], 2)


def test_as_the_body_of_a_chord(waits: ModuleType, stage: Stage) -> None:
    """A body that must wait would be lost with the results of its header."""
    result = chord([waits.count.s(1, times=0), waits.count.s(2)])(waits.count.s(times=2))

    assert result.get(timeout=TIMEOUT) == [2, 3]


def test_in_a_group(waits: ModuleType, stage: Stage) -> None:
    """A group would never be complete."""
    result = group(waits.count.s(n, times=n) for n in range(3)).delay()

    assert result.get(timeout=TIMEOUT) == [1, 2, 3]
    for index, child in enumerate(result.results):
        assert {entry["carried"]["group_index"] for entry in deliveries(stage, child.id)} == {index}


def test_failing_in_a_chord(waits: ModuleType, stage: Stage) -> None:
    """A chord whose postponed part fails would hang, instead of failing."""
    result = chord([waits.count.s(1), waits.fail.s()])(waits.linked.s())

    assert type(result.get(timeout=TIMEOUT, propagate=False)).__name__ == "ChordError"


def test_retry_after_being_put_off(waits: ModuleType, stage: Stage) -> None:
    """A retry would forget how long the task has been waiting, or count as a deferral."""
    result = waits.flaky.delay(2, times=2)

    assert result.get(timeout=TIMEOUT) == 2
    seen = deliveries(stage, result.id)
    assert [(entry["carried"]["retries"], entry["deferrals"]) for entry in seen] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 2),
        (2, 2),
    ]
    since = {entry["carried"]["headers"].get("cp-deferred-since") for entry in seen[1:]}
    assert len(since) == 1


def test_being_put_off_after_a_retry(waits: ModuleType, stage: Stage) -> None:
    """A deferral would take the retries back, or use them up."""
    result = waits.flaky_and_put_off.delay()

    assert result.get(timeout=TIMEOUT) == 2
    seen = [(entry["retries"], entry["deferrals"]) for entry in deliveries(stage, result.id)]
    assert seen == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]
