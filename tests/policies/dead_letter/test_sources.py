"""Every way for a task to end, on both brokers, acknowledged early and late: an entry, or none."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celery_patterns.deadletters import DeadLetters, Filter
from tests.ground.stage import Stage
from tests.ground.workers import Worker

LETTERS = "tests.apps.letters"
StartWorker = Callable[..., Worker]
pytestmark = pytest.mark.integration

LIMITS: dict[str, dict[str, Any]] = {"soft": {"soft_time_limit": 1}, "hard": {"time_limit": 1}}
DIES = {
    "raise": "failed",
    "soft": "soft time limit",
    "hard": "time limit",
    "unserialisable": "failed",
    "reject": "rejected",
    "unknown": "unknown task",
    "rejected message": "rejected message",
}
LOST = {"early": "worker lost", "late": "poison"}
LIVES = ("ignore", "fine")


def _send_nonsense(app: Any) -> None:
    """A message of a known task whose arguments are no arguments."""
    with app.producer_or_acquire() as producer:
        producer.publish(
            "[[], 7, {}]",
            content_type="application/json",
            content_encoding="utf-8",
            headers={"task": "tests.apps.letters.note", "id": "nonsense", "eta": "never"},
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
    sent = {
        how: task.apply_async((how,), **LIMITS.get(how, {})).id for how in (*DIES, "sigkill", "exit", *LIVES)
    }
    del sent["unknown"], sent["rejected message"]
    sent["unknown"] = app.send_task("nobody.knows", ("A",), {"b": 1}).id
    sent["rejected message"] = "nonsense"
    _send_nonsense(app)
    sent["expired"] = task.apply_async(("fine",), expires=datetime.now(UTC) - timedelta(seconds=5)).id
    worker(LETTERS, concurrency=2)
    expected = {**DIES, "sigkill": LOST[acks], "exit": LOST[acks]}
    wait_for(
        lambda: len(desk.list(Filter(state=None), limit=100).entries) >= len(expected) or None,
        timeout=60,
        message=lambda: str([one.source for one in desk.list(Filter(state=None), limit=100).entries]),
    )
    letters.note.delay(1, "last").get(timeout=20)
    wait_for(lambda: _is_quiet(stage, app, sent))
    entries = {one.id: one for one in desk.list(Filter(state=None), limit=100).entries}
    assert {how: entries[sent[how]].source for how in expected} == expected
    assert len(entries) == len(expected), "nothing else left an entry"
    assert all(one.deaths == 1 and one.state == "open" for one in entries.values())
    for how in expected:
        entry = entries[sent[how]]
        assert entry.letter.headers["id"] == sent[how]
        if how not in {"unknown", "rejected message"}:
            assert entry.letter.decoded(app)[:2] == ([how], {})
            assert entry.letter.headers["task"] == task.name
    assert entries[sent["unknown"]].letter.decoded(app)[:2] == (["A"], {"b": 1})
    assert stage.history.count("began", how="sigkill") == (1 if acks == "early" else 2)


_UNTOLD = ("expired", "reject")
"""RabbitMQ drops what has expired unseen, and Celery 5.5 stores nothing of a rejection."""


def _is_quiet(stage: Stage, app: Any, sent: dict[str, str]) -> bool:
    """Whether all that was sent has ended, as far as Celery knows."""
    return all(
        app.AsyncResult(one).state in {"FAILURE", "SUCCESS", "REVOKED"}
        for how, one in sent.items()
        if how not in {"ignore", "rejected message", *_UNTOLD}
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


def test_a_revoked_task_is_no_dead_letter(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """What a person took back would be offered for replay."""
    letters = stage.load(LETTERS)
    worker(LETTERS, concurrency=1)
    running = letters.late.delay("soft")
    wait_for(lambda: stage.history.count("began"))
    letters.app.control.revoke(running.id, terminate=True, signal="SIGKILL")
    wait_for(lambda: running.state == "REVOKED", timeout=20)
    assert letters.note.delay(1, "after").get(timeout=20) == 1
    assert sum(DeadLetters(letters.app).counts().values()) == 0
