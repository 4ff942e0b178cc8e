"""Parts of chords that end in every way there is, and bodies that write down what they were given."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from billiard import current_process
from celery.exceptions import Ignore, Reject

from celery_patterns import (
    ChordFailed,
    DeadLetterTask,
    Event,
    Idempotency,
    IdempotentTask,
    Outcomes,
    partial_chord,
    subscribe,
)
from tests.ground.app import ground_app, history, in_worker

app = ground_app(__name__, worker_send_task_events=False)
task = partial(app.task, shared=False)  # the test's process loads this module once for each broker


def _happened(event: Event) -> None:
    history().add("event", what=event.kind, id=event.task_id, key=event.key, **event.detail)


if in_worker():
    subscribe(_happened)


def both_ways(**options: Any) -> Any:
    """Make two tasks of a function: `NAME` is acknowledged early, `NAME_late` late."""

    def make(function: Any) -> Any:
        name = f"{__name__}.{function.__name__}"
        late = task(name=f"{name}_late", acks_late=True, **options)(function)
        setattr(sys.modules[__name__], f"{function.__name__}_late", late)
        return task(name=name, **options)(function)

    return make


class Business(Exception):
    """An error of the user's own."""


# --- parts


@both_ways()
def give(value: Any = None) -> Any:
    """Succeed."""
    return value


@both_ways()
def fail(message: str = "no") -> None:
    """Fail."""
    raise Business(message)


@both_ways()
def unencodable() -> object:
    """Return what no result serializer takes."""
    return object()


@both_ways(soft_time_limit=0.3)
def too_slow() -> None:
    """Run into the soft limit."""
    time.sleep(10)


@both_ways(time_limit=0.5)
def far_too_slow() -> None:
    """Run into the hard limit."""
    time.sleep(10)


@both_ways()
def killed() -> None:
    """Be killed."""
    os.kill(current_process().pid, signal.SIGKILL)


@both_ways()
def leave() -> None:
    """End the process."""
    sys.exit(1)


@both_ways(bind=True, max_retries=2)
def retry_in_vain(self: Any) -> None:
    """Fail again and again."""
    raise self.retry(exc=Business("in vain"), countdown=0)


@both_ways(bind=True, max_retries=3)
def second_try(self: Any, value: Any) -> Any:
    """Succeed at the second try."""
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return value


@both_ways()
def reject() -> None:
    """Reject the message, for good."""
    raise Reject("no good", requeue=False)


@both_ways(bind=True)
def requeue_once(self: Any, value: Any) -> Any:
    """Hand the message back, which only a late acknowledgement makes possible; then succeed."""
    if _delivered(self) == 1:
        raise Reject("not now", requeue=True)
    return value


@both_ways()
def ignore() -> None:
    """End without a result."""
    raise Ignore("never mind")


@both_ways(bind=True)
def ignore_with_state(self: Any) -> None:
    """End with a state of its own making, as Celery's manual shows it."""
    meta = {"exc_type": "Business", "exc_message": ["own"], "exc_module": __name__}
    self.update_state(state="FAILURE", meta=meta)
    raise Ignore


@both_ways(bind=True)
def replaced(self: Any, value: Any) -> Any:
    """Be replaced by another task, which takes its place."""
    return self.replace(give.si(value))


@both_ways(bind=True)
def wait(self: Any, gate: str, value: Any = None) -> Any:
    """Run until the gate is open."""
    history().add("waiting", id=self.request.id, value=value)
    while not Path(gate).exists():
        time.sleep(0.01)
    return value


@both_ways(bind=True, max_retries=3)
def retry_later(self: Any, gate: str) -> None:
    """Wait for the gate, then retry in an hour."""
    history().add("waiting", id=self.request.id)
    while not Path(gate).exists():
        time.sleep(0.01)
    raise self.retry(countdown=3600)


@task(bind=True, acks_late=True, reject_on_worker_lost=True)
def killed_once(self: Any, value: Any) -> Any:
    """Be killed at the first delivery, and succeed at the second."""
    if _delivered(self) == 1:
        os.kill(current_process().pid, signal.SIGKILL)
    return value


@task(acks_late=True, reject_on_worker_lost=True)
def again_after_a_kill(value: Any, seconds: float) -> Any:
    """Take a while; whoever is killed meanwhile is run again."""
    time.sleep(seconds)
    return value


@task(acks_late=True, retry_on_worker_lost=True, max_retries=1, default_retry_delay=0)
def killed_each_time() -> None:
    """Be killed; Celery 5.7 retries that as often as `max_retries` says."""
    os.kill(current_process().pid, signal.SIGKILL)


@both_ways()
def out_of_memory() -> None:
    """Run out of memory, which ends the whole worker."""
    time.sleep(0.5)  # with late acknowledgement it ends each worker; others must have a chance meanwhile
    raise MemoryError


@task(base=IdempotentTask, idempotency=Idempotency(key="key", lease=60))
def once(key: str, gate: str | None = None) -> str:
    """Run once per key; a duplicate of a running call is deferred."""
    history().add("effect", key=key)
    while gate and not Path(gate).exists():
        time.sleep(0.01)
    return key


@task(base=DeadLetterTask)
def fragile(gate: str, value: Any) -> Any:
    """Fail, and be kept as a dead letter, until the gate is open."""
    if not Path(gate).exists():
        raise Business(value)
    return value


@task(bind=True)
def add_parts(self: Any, values: list[Any]) -> str:
    """Add parts to its own chord."""
    for value in values:
        self.add_to_chord(give.si(value))
    return "added"


@task(bind=True)
def become_group(self: Any, values: list[Any]) -> Any:
    """Be replaced by a group, whose results become this part's value."""
    from celery import group  # noqa: PLC0415 - a task of this module is called `chain` elsewhere

    return self.replace(group(give.si(value) for value in values))


def _delivered(running: Any) -> int:
    history().add("delivered", id=running.request.id)
    return history().count("delivered", id=running.request.id)


# --- bodies, and what comes after


@task(bind=True)
def try_again(self: Any, results: list[Any], label: str) -> Any:
    """Have the parts that failed run once more, by a chord in the place of this body."""
    told = [tell(outcome) for outcome in Outcomes(results)]
    if "failed Business" not in told:
        return told
    history().add("tried", label=label, told=told)
    header = [give.si("new") if one == "failed Business" else give.si("old") for one in told]
    return self.replace(partial_chord(header, try_again.s(label), deadline=300))


@task
def gather(results: list[Any], label: str = "body") -> list[str]:
    """Write down what there is, and return it."""
    told = [tell(outcome) for outcome in Outcomes(results)]
    history().add("body", label=label, told=told)
    return told


@task(acks_late=True, reject_on_worker_lost=True)
def gather_again_after_a_kill(results: list[Any], label: str) -> list[str]:
    """The same; run again if it is killed."""
    return [tell(outcome) for outcome in Outcomes(results)]


@task
def gather_plain(results: list[Any], label: str = "plain") -> list[Any]:
    """The body of a plain chord."""
    history().add("body", label=label, told=results)
    return results


@task
def type_of(workflow: Any) -> str:
    """What a signature among the arguments of a task is."""
    return type(app.signature(workflow)).__name__


@task
def size(results: list[Any]) -> int:
    """The body of a plain chord whose parts come in any order."""
    return len(results)


@task
def join(*values: Any) -> list[Any]:
    """What comes next in a chain."""
    return list(values)


@task
def on_error(request: Any, error: Exception, traceback: Any) -> None:
    """An errback of the new kind, called in the process that noticed the failure."""
    assert isinstance(error, ChordFailed), repr(error)
    told = [tell(outcome) for outcome in Outcomes(error.results)]
    history().add("errback", id=request.id, told=told, error=str(error))


@task
def on_any_error(request: Any, error: Exception, traceback: Any) -> None:
    """The same for plain chords."""
    history().add("errback", id=request.id, error=type(error).__name__)


@task
def on_error_by_id(task_id: str) -> None:
    """An errback of the old kind, called as a task."""
    error = app.AsyncResult(task_id).result
    told = [tell(outcome) for outcome in Outcomes(error.results)]
    history().add("errback by id", id=task_id, told=told)


@task
def on_error_by_id_eagerly(task_id: str) -> None:
    """The same in eager mode, where no result is kept."""
    history().add("errback by id", id=task_id)


def tell(outcome: Any) -> str:
    """An outcome in a word: its value, or its state and the type of its error."""
    return f"ok {outcome.value}" if outcome.ok else f"{outcome.state} {outcome.error or '-'}"
