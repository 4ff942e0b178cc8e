"""Who goes first to a pool process."""

from types import SimpleNamespace
from typing import Any

from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from celery_patterns.waiting.worker import let_turns_pass


def worker_of(slots: int) -> Any:
    semaphore = LaxBoundedSemaphore(slots)
    return SimpleNamespace(semaphore=semaphore, _quick_acquire=semaphore.acquire)


def test_turns_pass_in_their_own_order() -> None:
    """The last released would go before the first, and who has none would go never."""
    worker, gone = worker_of(1), []
    let_turns_pass(worker)
    for name in ("runs", "a", "B", "c", "D", "E", "f"):
        worker._quick_acquire(gone.append, SimpleNamespace(name=name, has_turn=name.isupper()))
    for _ in range(7):
        worker.semaphore.release()
    assert "".join(one.name[0] for one in gone) == "rBDEacf"


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
    assert gone[0] == "runs"
    assert gone[2] == "nothing"
