"""Every way for a task to end, on both brokers, acknowledged early and late: an entry, or none."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Task

from celery_patterns.deadletters import DeadLetters, Filter
from tests.ground.stage import Stage
from tests.ground.workers import Worker

LETTERS = "tests.apps.letters"
StartWorker = Callable[..., Worker]
pytestmark = pytest.mark.integration

LIMITS: dict[str, dict[str, Any]] = {"soft": {"soft_time_limit": 1}, "hard": {"time_limit": 1}}
DIES = {
    "raise": "failed",
    "retries": "failed",
    "soft": "soft time limit",
    "hard": "time limit",
    "unserialisable": "failed",
    "reject": "rejected",
}
UNROUTABLE = {"unknown": "unknown task", "rejected message": "rejected message"}
LOST = {"early": "worker lost", "late": "poison"}
VANISH = ("sigkill", "exit", "sysexit")
LIVES = ("ignore", "fine", "requeue")


def _send_raw(app: Any, task_id: str, body: str, **headers: Any) -> None:
    """A message of a known task that is not as Celery would have made it."""
    with app.producer_or_acquire() as producer:
        producer.publish(
            body,
            content_type="application/json",
            content_encoding="utf-8",
            headers={"task": "tests.apps.letters.late", "id": task_id, **headers},
            exchange="",
            routing_key="celery",
        )


@pytest.mark.parametrize("acks", ["early", "late"])
def test_each_death_leaves_one_entry_and_nothing_else_leaves_any(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, acks: str
) -> None:
    """A death would be missed, told twice, or invented for a task that a person has revoked."""
    letters = stage.load(LETTERS)
    app, task = letters.app, getattr(letters, acks)
    desk = DeadLetters(app)
    sent = {how: task.apply_async((how,), **LIMITS.get(how, {})).id for how in (*DIES, *VANISH, *LIVES)}
    sent["unknown"] = app.send_task("nobody.knows", ("A",), {"b": 1}).id
    sent["rejected message"] = "nonsense"
    _send_raw(app, "nonsense", "[[], 7, {}]", eta="never")
    _send_raw(app, "undecodable", "[[], {")
    sent["expired"] = task.apply_async(("fine",), expires=datetime.now(UTC) - timedelta(seconds=5)).id
    worker(LETTERS, concurrency=2)
    expected = {**DIES, **UNROUTABLE, **dict.fromkeys(VANISH, LOST[acks])}
    wait_for(
        lambda: len(desk.list(Filter(state=None), limit=100).entries) >= len(expected) or None,
        timeout=60,
        message=lambda: str([one.source for one in desk.list(Filter(state=None), limit=100).entries]),
    )
    letters.note.delay(1, "last").get(timeout=20)
    wait_for(lambda: _is_quiet(stage, app, sent), timeout=20)
    wait_for(lambda: stage.history.count("began", how="requeue") == (1 if acks == "early" else 2), timeout=20)
    entries = {one.id: one for one in desk.list(Filter(state=None), limit=100).entries}
    assert {how: entries[sent[how]].source for how in expected} == expected
    assert len(entries) == len(expected), "nothing else left an entry"
    assert all(one.deaths == 1 and one.state == "open" for one in entries.values())
    for how in expected:
        entry = entries[sent[how]]
        assert entry.letter.headers["id"] == sent[how]
        if how not in UNROUTABLE:
            assert entry.letter.decoded(app)[:2] == ([how], {})
            assert entry.letter.headers["task"] == task.name
    assert entries[sent["unknown"]].letter.decoded(app)[:2] == (["A"], {"b": 1})
    for how in VANISH:
        assert stage.history.count("began", how=how) == (1 if acks == "early" else 2)
    assert stage.history.count("began", how="retries") == 2


_UNTOLD = ("expired", "reject")
"""RabbitMQ drops what has expired unseen, and Celery 5.5 stores nothing of a rejection."""


def _is_quiet(stage: Stage, app: Any, sent: dict[str, str]) -> bool:
    """Whether all that was sent has ended, as far as Celery knows."""
    return all(
        app.AsyncResult(one).state in {"FAILURE", "SUCCESS", "REVOKED"}
        for how, one in sent.items()
        if how not in {"ignore", "requeue", "rejected message", *_UNTOLD}
    )


def test_memory_errors_do_not_kill_one_worker_after_the_other(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A late-acked task that runs out of memory is redelivered to the next worker, and ends that as well."""
    stage.redeliver_after(1)
    letters = stage.load(LETTERS)
    desk = DeadLetters(letters.app)
    sent = letters.late.delay("memory")
    first = worker(LETTERS, concurrency=1)
    wait_for(lambda: not first.running, timeout=20)
    second = worker(LETTERS, concurrency=1)
    wait_for(lambda: stage.history.count("event", what="buried"), timeout=20)
    assert letters.note.delay(1, "alive").get(timeout=20) == 1
    assert second.running
    (entry,) = desk.list().entries
    assert (entry.id, entry.exception, entry.deaths) == (sent.id, "MemoryError", 1)


@pytest.mark.parametrize("acks", ["early", "late"])
def test_a_revoked_task_is_no_dead_letter(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, acks: str
) -> None:
    """What a person took back, before it ran or while it ran, would be offered for replay."""
    letters = stage.load(LETTERS)
    task = getattr(letters, acks)
    worker(LETTERS, concurrency=1)
    running, waiting = task.delay("soft"), task.apply_async(("fine",), countdown=1)
    wait_for(lambda: stage.history.count("began"))
    letters.app.control.revoke(waiting.id)
    letters.app.control.revoke(running.id, terminate=True, signal="SIGKILL")
    wait_for(lambda: running.state == waiting.state == "REVOKED", timeout=20)
    assert letters.note.delay(1, "after").get(timeout=20) == 1
    assert sum(DeadLetters(letters.app).counts().values()) == 0
    assert stage.history.count("began") == 1


@pytest.mark.parametrize(("how", "source"), [("raise", "failed"), ("hard", "time limit")])
def test_a_death_whose_message_goes_back_to_the_broker_is_one(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, how: str, source: str
) -> None:
    """With acks_on_failure=False a failed message may come again, and would run again, or die twice."""
    letters = stage.load(LETTERS)
    worker(LETTERS, concurrency=1)
    sent = letters.unacknowledged.apply_async((how,), **LIMITS.get(how, {}))
    desk = DeadLetters(letters.app)
    wait_for(lambda: desk.counts()["open"], timeout=20)
    wait_for(lambda: sent.state == "FAILURE")
    assert letters.note.delay(1, "after").get(timeout=20) == 1
    (entry,) = desk.list().entries
    assert (entry.id, entry.source, entry.deaths) == (sent.id, source, 1)
    assert stage.history.count("began") == 1


@pytest.mark.skipif(not hasattr(Task, "retry_on_worker_lost"), reason="Celery 5.7 has it first")
def test_what_celery_retries_when_its_process_is_lost_is_kept_when_it_gives_up(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A retry of a lost process would be taken for a death, or the last one for none."""
    letters = stage.load(LETTERS)
    worker(LETTERS, concurrency=1)
    sent = letters.again.delay("sigkill")
    desk = DeadLetters(letters.app)
    wait_for(lambda: desk.counts()["open"], timeout=30)
    assert letters.note.delay(1, "after").get(timeout=20) == 1
    (entry,) = desk.list().entries
    assert (entry.id, entry.source, entry.deaths) == (sent.id, "worker lost", 1)
    assert stage.history.count("began") == 2
