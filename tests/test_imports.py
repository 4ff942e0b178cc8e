"""What an import brings along: a program that publishes one kind of task pays for nothing else."""

import subprocess
import sys

import pytest

IN_WORKERS = (
    "celery.worker.control",
    "celery.worker.request",
    "celery_patterns.core.request",
    "celery_patterns.core.revokes",
    "celery_patterns.waiting.worker",
    "celery_patterns.waiting.helper",
    "celery_patterns.waiting.pump",
)
FOR_OPERATORS = (
    "celery_patterns.cli",
    "celery_patterns.deadletters.desk",
    "celery_patterns.deadletters.query",
    "celery_patterns.deadletters.replay",
    "celery_patterns.policies.idempotency.operate",
    "celery_patterns.policies.singleton.operate",
    "celery_patterns.policies.rate_limits.status",
    "statistics",
)
FACE = ("celery", "kombu", "redis", "tenacity", "celery_patterns.core", "celery_patterns.policies")
PATTERNS = {
    "Idempotency": ("tenacity", "celery_patterns.waiting", "celery_patterns.deadletters"),
    "Singleton": ("tenacity", "celery_patterns.waiting", "celery_patterns.deadletters"),
    "ConcurrencyLimit": ("tenacity", "celery_patterns.waiting", "celery_patterns.deadletters"),
    "TokenBucket": ("tenacity", "celery_patterns.deadletters"),
    "RetryPolicy": ("celery_patterns.waiting", "celery_patterns.deadletters"),
    "DeadLetter": ("tenacity", "celery_patterns.waiting"),
}


def imported_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after ``statement``."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def among(modules: set[str], names: tuple[str, ...]) -> set[str]:
    """Those of ``modules`` that are, or are in, one of ``names``."""
    return {one for one in modules if any(one == name or one.startswith(f"{name}.") for name in names)}


def test_the_face_imports_nothing() -> None:
    """Whoever merely has the pytest plugin, or asks for an error, would pay for Celery and Redis."""
    assert not among(imported_by("import celery_patterns"), FACE)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_imports_what_publishing_needs_and_no_more(name: str) -> None:
    """Each web process would pay at its start for what workers, operators and other patterns need."""
    found = imported_by(f"from celery_patterns import {name}")
    assert not among(found, (*IN_WORKERS, *FOR_OPERATORS, *PATTERNS[name]))


def test_a_tasks_request_class_is_left_to_the_worker() -> None:
    """Making a task would import the half of Celery that only workers need."""
    found = imported_by(
        "from celery import Celery\n"
        "from celery_patterns import Idempotency, IdempotentTask\n"
        "app = Celery('app', broker='memory://')\n"
        "def charge(order): ...\n"
        "app.task(base=IdempotentTask, idempotency=Idempotency('order'))(charge)\n"
        "app.finalize()\n"
    )
    assert not among(found, IN_WORKERS)


def test_every_worker_opens_the_waiting_room_and_hears_of_revokes() -> None:
    """A worker of tasks without rate limits, if no command started it, would keep in memory what waits."""
    found = imported_by(
        "from celery import Celery\n"
        "from celery_patterns import Idempotency, IdempotentTask\n"
        "app = Celery('app', broker='memory://')\n"
        "app.Worker(pool='solo')\n"
    )
    assert {"celery_patterns.waiting", "celery_patterns.core.revokes"} <= found
