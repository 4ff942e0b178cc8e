"""Who goes first to a pool process."""

from types import SimpleNamespace
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from celery_patterns import TokenBucket, TokenBucketTask
from celery_patterns.core.parking import HOME_HEADER, TICKET_HEADER
from celery_patterns.testing import MovableClock, memory_store
from celery_patterns.waiting.worker import PASSES, let_turns_pass
from tests.ground.inline import InlineWorker, inline_app


def worker_of(slots: int) -> Any:
    semaphore = LaxBoundedSemaphore(slots)
    return SimpleNamespace(semaphore=semaphore, _quick_acquire=semaphore.acquire)


def test_turns_pass_in_their_own_order() -> None:
    """The last released would go before the first, and who has none would go never."""
    worker, gone = worker_of(1), []
    let_turns_pass(worker)
    for name in "raBcDEf":
        worker._quick_acquire(gone.append, SimpleNamespace(name=name, has_turn=name.isupper()))
    for _ in range(7):
        worker.semaphore.release()
    assert "".join(one.name for one in gone) == "rBDEacf"


def test_nobody_is_passed_for_ever() -> None:
    """A limit that lets more start than there are slots would keep all else from running."""
    worker, gone = worker_of(1), []
    let_turns_pass(worker)
    for name in "rab":
        worker._quick_acquire(gone.append, SimpleNamespace(name=name, has_turn=False))
    for _ in range(20):
        worker._quick_acquire(gone.append, SimpleNamespace(name="T", has_turn=True))
        worker.semaphore.release()
    order = "".join(one.name for one in gone)
    assert order == "r" + PASSES * "T" + "ab" + (18 - PASSES) * "T"


def test_a_worker_that_runs_at_once_what_it_gets_is_left_alone() -> None:
    """Workers of other pools would not start."""
    for worker in (SimpleNamespace(), SimpleNamespace(semaphore=None), SimpleNamespace(semaphore=object())):
        before = vars(worker).copy()
        let_turns_pass(worker)
        assert vars(worker) == before


def test_what_else_waits_for_a_slot_is_left_in_its_place() -> None:
    """Celery's own callbacks have other arguments, or none."""
    worker, gone = worker_of(1), []
    let_turns_pass(worker)
    worker._quick_acquire(gone.append, "runs")
    worker.semaphore.acquire(lambda: gone.append("nothing"))
    worker._quick_acquire(gone.append, SimpleNamespace(has_turn=True))
    worker.semaphore.release()
    worker.semaphore.release()
    assert gone[:2] == ["runs", "nothing"]
    assert gone[2].has_turn


def test_a_retry_that_the_parent_publishes_has_no_turn() -> None:
    """It would pass the line with a ticket that was another run's."""
    app = inline_app(task_acks_late=True)
    with memory_store() as store:

        def body() -> None:
            pass

        task = app.task(base=TokenBucketTask, token_bucket=TokenBucket("1/s"), name="limited")(body)
        worker = InlineWorker(app, MovableClock(store))
        task.apply_async(headers={TICKET_HEADER: '["a","1",[]]', HOME_HEADER: "\ncelery", "mine": 1})
        (message,) = worker.take()
        request = worker.request(message)
        assert request.has_turn
        assert TICKET_HEADER in request._context.headers
        try:
            raise WorkerLostError("gone")  # noqa: TRY301 - it needs a traceback
        except WorkerLostError:
            request.on_failure(ExceptionInfo())
        assert TICKET_HEADER not in request._context.headers
        assert request._context.headers["mine"] == 1


def test_a_call_that_never_waited_has_no_turn() -> None:
    """With the gate all calls carry tickets, and all of a limit would pass all others."""
    app = inline_app()
    with memory_store() as store:

        def body() -> None:
            pass

        task = app.task(base=TokenBucketTask, token_bucket=TokenBucket("1/s"), name="limited")(body)
        worker = InlineWorker(app, MovableClock(store))
        task.apply_async(headers={TICKET_HEADER: '["a","",[]]'})
        (message,) = worker.take()
        assert not worker.request(message).has_turn
