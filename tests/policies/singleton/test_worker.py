"""Singletons on real workers, Redis and RabbitMQ: what peers do when it gets rough, row by row."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError
from kombu.exceptions import OperationalError

from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.workers import Worker

GUARDED = "tests.apps.guarded"
StartWorker = Callable[..., Worker]


@pytest.fixture
def tasks(broker: Any, stage: Stage) -> ModuleType:
    return stage.load(GUARDED)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def locks(stage: Stage, valkey: ValkeyServer) -> Iterator[Callable[[], dict[str, Any]]]:
    """`locks()`: the locks there are, and who has them; each key of the library has an end."""
    client = valkey.client(1)

    def locks() -> dict[str, Any]:
        found = {key.decode(): client.type(key) for key in client.keys("cp:*") if b":room" not in key}
        assert all(client.pttl(key) != -1 for key in found), "a key without an end"
        return {
            key: client.hget(key, "owner")
            for key, kind in found.items()
            if kind == b"hash" and not key.startswith("cp:idempotency")
        }

    with client:
        yield locks


def test_its_own_retry_is_no_duplicate(
    tasks: ModuleType, stage: Stage, worker: StartWorker, locks: Any
) -> None:
    """Retry, autoretry: the task is lost elsewhere, since its retry finds its own lock."""
    worker(GUARDED)
    first = tasks.flaky.delay("a", 1)
    again = tasks.flaky.delay("a", 1)
    assert first.get(timeout=20) == again.get(timeout=20) == "a"
    assert first.id == again.id
    assert tasks.flaky.delay("b", 0).get(timeout=20) == "b"
    assert tasks.auto.delay("c").get(timeout=20) == "c"
    assert [stage.history.count("attempt", doc=doc) for doc in "abc"] == [2, 2, 3]
    assert locks() == {}


def test_a_call_that_is_taken_back_lets_go(
    tasks: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """Revoked while queued, expired, revoked while it runs: the key is stuck elsewhere."""
    worker(GUARDED, concurrency=1)
    long = tasks.late.delay("c", str(gate))
    wait_for(lambda: stage.history.count("started"))
    expired = tasks.sync.apply_async(("b",), countdown=1.5, expires=1)
    late = tasks.sync.apply_async(("d",), countdown=1)
    assert tasks.sync.delay("d").id == late.id
    tasks.app.control.revoke(late.id)
    tasks.app.control.revoke(long.id, terminate=True, signal="SIGKILL")
    for call in (expired, late, long):
        with pytest.raises(TaskRevokedError):
            call.get(timeout=20)
    wait_for(lambda: locks() == {})
    assert tasks.sync.delay("b", 2).get(timeout=20) == "b2"
    assert tasks.sync.delay("d", 2).get(timeout=20) == "d2"
    gate.touch()
    assert tasks.late.delay("c", str(gate)).get(timeout=20) == "c"


def test_duplicates_in_chords_chains_and_with_links_complete(
    tasks: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """A duplicate in a chord header, in a chain, and with a link: the body never runs elsewhere."""
    holder = tasks.late.delay("a", str(gate))
    body = chord([tasks.late.s("a", str(gate)), tasks.late.s("a", str(gate)), tasks.sync.s("b")])(
        tasks.gather.s("chord")
    )
    chained = chain(tasks.late.s("a", str(gate)), tasks.note.s("chain")).delay()
    tasks.late.apply_async(("a", str(gate)), link=tasks.note.s("link"))
    worker(GUARDED)
    wait_for(lambda: stage.history.count("event", what="deferred") >= 4)
    gate.touch()
    assert body.get(timeout=30) == ["a", "a", "b1"]
    assert chained.get(timeout=20) == holder.get(timeout=20) == "a"
    wait_for(lambda: stage.history.count("note", label="link", value="a") == 1)
    assert stage.history.count("started") == stage.history.count("gathered") == 1
    assert locks() == {}


def test_a_redelivered_message_waits_and_is_dropped_when_its_task_has_ended(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """Redelivery while the holder lives: three copies at once elsewhere, or one that is lost unseen."""
    stage.redeliver_after(1)
    tasks = stage.load(GUARDED)
    if broker.kind == "rabbitmq":  # it has no such time: the message is sent five times instead
        send_more(tasks, tasks.slow.name, copies=4)
    worker(GUARDED, concurrency=1)
    worker(GUARDED, concurrency=1)
    call = tasks.slow.apply_async(("a", str(gate)), link=tasks.note.s("link"))
    wait_for(lambda: stage.history.count("event", what="deferred", copy=True) >= 2, timeout=30)
    assert call.state in {"STARTED", "PENDING"}, "a copy wrote a state"
    gate.touch()
    assert call.get(timeout=20) == "a"
    wait_for(lambda: stage.history.count("note"))
    assert tasks.sync.delay("z").get(timeout=20) == "z1"
    assert stage.history.count("started") == stage.history.count("note") == 1
    assert stage.history.entries("ended")[0]["lost"] is False
    assert locks() == {}


def send_more(tasks: ModuleType, name: str, *, copies: int) -> None:
    """Have each message of a task sent some more times, under the same id."""
    publish = tasks.app.amqp.send_task_message

    def send(producer: Any, task: str, message: Any, **options: Any) -> Any:
        for _ in range(copies if task == name else 0):
            publish(producer, task, message, **options)
        return publish(producer, task, message, **options)

    tasks.app.amqp.__dict__["send_task_message"] = send


def test_messages_sent_twice_count_once_in_their_chord(
    tasks: ModuleType, stage: Stage, worker: StartWorker
) -> None:
    """A redelivered part of a chord would be counted for another part, or its work be done twice."""
    send_more(tasks, tasks.sync.name, copies=1)
    worker(GUARDED)
    result = chord([tasks.sync.s(doc) for doc in "abc"])(tasks.gather.s("chord"))
    assert result.get(timeout=30) == ["a1", "b1", "c1"]
    assert tasks.sync.delay("z").get(timeout=20) == "z1"
    assert [stage.history.count("ran", doc=doc) for doc in "abc"] == [1, 1, 1]
    assert stage.history.count("gathered") == 1


def test_a_killed_child_frees_the_key_of_a_task_that_is_not_run_again(
    tasks: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """SIGKILL of a child: the key is blocked for an hour or for ever elsewhere."""
    running = worker(GUARDED, concurrency=1)
    lost = tasks.early.delay("a", str(gate))
    wait_for(lambda: stage.history.count("started"))
    running.kill_child()
    with pytest.raises(WorkerLostError):
        lost.get(timeout=20)
    wait_for(lambda: locks() == {})
    gate.touch()
    assert tasks.early.delay("a", str(gate)).get(timeout=20) == "a"


def test_a_killed_child_leaves_the_key_to_its_task_if_that_is_run_again(
    tasks: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """The same, under late acknowledgement: the task would find its own lock, or another in its place."""
    running = worker(GUARDED, concurrency=1)
    call = tasks.late.delay("a", str(gate))
    wait_for(lambda: stage.history.count("started"))
    running.kill_child()
    assert tasks.late.delay("a", str(gate)).id == call.id
    wait_for(lambda: stage.history.count("started") == 2, timeout=20)
    gate.touch()
    assert call.get(timeout=20) == "a"
    old, new = stage.history.entries("started")
    assert old["fence"] < new["fence"]
    assert locks() == {}


def test_a_killed_worker_blocks_nothing_for_longer_than_its_lease(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """SIGKILL of the worker: the key is blocked for an hour or for ever elsewhere, and the task lost."""
    stage.redeliver_after(3)
    tasks = stage.load(GUARDED)
    doomed = worker(GUARDED, concurrency=1)
    first = tasks.slow.delay("a", str(gate))
    wait_for(lambda: stage.history.count("started"))
    doomed.kill()
    assert tasks.slow.delay("a", str(gate)).id == first.id
    gate.touch()
    worker(GUARDED, concurrency=1)
    wait_for(lambda: tasks.slow.delay("a", str(gate)).get(timeout=20) == "a", timeout=30)
    assert first.get(timeout=30) == "a"
    wait_for(lambda: locks() == {})
    fences = [entry["fence"] for entry in stage.history.entries("started")]
    assert fences == sorted(set(fences))


def test_the_hard_limit_lets_go(
    tasks: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """The key of a task that ran into its hard time limit would be blocked, or be given away too early."""
    worker(GUARDED, concurrency=1)
    call = tasks.limited.delay("a", str(gate))
    with pytest.raises(TimeLimitExceeded):
        call.get(timeout=20)
    gate.touch()
    next_one = tasks.limited.delay("a", str(gate))
    assert next_one.id != call.id
    assert next_one.get(timeout=20) == "a"
    wait_for(lambda: locks() == {})


def test_a_countdown_and_a_backlog_longer_than_queued_ttl(
    tasks: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """A lock that does not know when its task is due ends before it starts; then two run, or one is lost."""
    worker(GUARDED)
    later = tasks.hasty.apply_async(("a",), countdown=8)
    first = tasks.hasty.apply_async(("b", 1, str(gate)), queue="backlog")
    wait_for(lambda: len(locks()) == 1)
    assert tasks.hasty.delay("a").id == later.id
    second = tasks.hasty.delay("b", 2, str(gate))
    wait_for(lambda: stage.history.count("ran", doc="b"))
    worker(GUARDED, queues=["backlog"])
    wait_for(lambda: stage.history.count("event", what="deferred", id=first.id))
    gate.touch()
    assert first.get(timeout=20) == second.get(timeout=20) == "b2"
    assert later.get(timeout=20) == "a1"
    assert [stage.history.count("ran", doc=doc) for doc in "ab"] == [1, 1]


def test_the_store_may_be_away(
    broker: Any,
    stage: Stage,
    worker: StartWorker,
    wait_for: Any,
    gate: Path,
    start_valkey: Callable[..., ValkeyServer],
) -> None:
    """Store down at enqueue and at release: calls are lost or run unguarded, keys stay blocked."""
    store = start_valkey(durable=True)
    stage.conf["patterns_url"] = store.url()
    tasks = stage.load(GUARDED)
    worker(GUARDED, concurrency=1)
    call = tasks.slow.delay("a", str(gate))
    wait_for(lambda: stage.history.count("started"))
    store.kill()
    duplicates = [tasks.slow.delay("a", str(gate)) for _ in range(2)]
    gate.touch()
    assert call.get(timeout=20) == "a"
    wait_for(lambda: stage.history.count("event", what="deferred") >= 2)
    assert stage.history.count("started") == 1
    store.start()
    assert [duplicate.get(timeout=30) for duplicate in duplicates] == ["a", "a"]
    with store.client() as client:
        wait_for(
            lambda: not [key for key in client.keys("cp:*") if b":ended:" not in key and b":room" not in key]
        )


def test_a_failed_publish_lets_go(
    broker: Any, stage: Stage, locks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that never reached the broker would block the key for an hour."""
    tasks = stage.load(GUARDED)
    tasks.app.conf.task_publish_retry = False

    def unreachable(*_: Any, **__: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(tasks.app.amqp, "send_task_message", unreachable)
    with pytest.raises(OperationalError):
        tasks.sync.delay("a")
    assert locks() == {}


def test_runs_of_beat_do_not_overlap(
    tasks: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """A job that takes longer than its schedule would be joined by the next, or be skipped silently."""
    worker(GUARDED)
    first = tasks.nightly.delay(str(gate))
    wait_for(lambda: stage.history.count("started"))
    second = tasks.nightly.delay(str(gate))
    assert second.get(timeout=20) is None
    assert stage.history.count("event", what="skipped", id=second.id, holder=first.id) == 1
    gate.touch()
    assert first.get(timeout=20) == first.id
    third = tasks.nightly.delay(str(gate))
    assert third.get(timeout=20) == third.id
    assert locks() == {}


def test_a_call_that_is_revoked_long_before_it_is_due_lets_go_at_once(
    tasks: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """The key would be blocked until the eta by a call that will not run."""
    worker(GUARDED)
    call = tasks.hasty.apply_async(("a",), countdown=3_000)
    wait_for(lambda: any(tasks.app.control.inspect().scheduled().values()))
    assert len(locks()) == 1
    call.revoke()
    wait_for(lambda: locks() == {})
    assert tasks.hasty.delay("a").get(timeout=20) == "a1"


@pytest.mark.parametrize("room", [True, False])
def test_calls_that_wait_run_in_the_order_in_which_they_came(
    room: bool, broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, locks: Any
) -> None:
    """Whoever happens to look when the key is free would overtake those who have waited for longer."""
    stage.conf["patterns_waiting_room"] = room
    tasks = stage.load(GUARDED)
    worker(GUARDED, concurrency=3)
    calls = [tasks.in_turn.delay("a", 0, str(gate))]
    wait_for(lambda: stage.history.count("ran"))
    for version in range(1, 6):
        calls.append(tasks.in_turn.delay("a", version))
        wait_for(lambda: stage.history.count("event", what="deferred", id=calls[-1].id))
    gate.touch()
    assert [call.get(timeout=30) for call in calls] == list(range(6))
    assert [entry["version"] for entry in stage.history.entries("ran")] == list(range(6))
    assert locks() == {}


def test_whose_turn_it_is_hears_of_it_from_whoever_looks(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, gate: Path, valkey: ValkeyServer
) -> None:
    """Nobody tells the next one when a holder dies: its turn would pass, a minute later, and so each."""
    stage.conf["patterns_waiting_room"] = True
    tasks = stage.load(GUARDED)
    first = worker(GUARDED)
    with valkey.client(1) as client:
        wait_for(lambda: client.exists("cp:room-leader:{cp}"))
        tasks.in_turn_soon.delay("a", 0, str(gate))
        wait_for(lambda: stage.history.count("ran"))
        calls = [tasks.in_turn_soon.delay("a", version) for version in (1, 2)]
        wait_for(lambda: all(client.exists(f"cp:room-entry:{{cp}}:{call.id}") for call in calls))
        (line,) = client.keys("cp:room-line:*singleton*")
        client.zadd(line, {calls[0].id: 1e9})  # as if it had come to the room later, from another wait
        client.hset(f"cp:room-entry:{{cp}}:{calls[0].id}", "score", "1000000000")
    first.kill()
    gate.touch()
    worker(GUARDED)
    assert [call.get(timeout=40) for call in calls] == [1, 2]
