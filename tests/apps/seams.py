"""Tasks of every make, each under a policy that writes down what it sees."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from celery import Task, shared_task
from celery.exceptions import Ignore, Reject
from pydantic import BaseModel
from typing_extensions import override

from celery_patterns import Call, Policy, PolicyTask, attach
from tests.apps.witness import Witness, WitnessTask, note, outer, witnessed
from tests.ground.app import ground_app

app = ground_app(__name__)


class FlaskStyle(Task):
    """As Flask's documentation has it: without `super`."""

    abstract = True

    @override
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note("context", id=self.request.id)
        return self.run(*args, **kwargs)


class SuperStyle(Task):
    """As others have it: with `super`."""

    abstract = True

    @override
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note("context", id=self.request.id)
        return super().__call__(*args, **kwargs)


# --- made in different ways -----------------------------------------------------------------------------


@witnessed()
@app.task(bind=True)
def decorated(self: Any, n: int) -> int:
    note("body", id=self.request.id)
    return n + 1


@app.task(bind=True, base=WitnessTask, witness=Witness())
def based(self: Any, n: int) -> int:
    note("body", id=self.request.id)
    return n + 1


@witnessed()
@shared_task(bind=True)
def shared(self: Any, n: int) -> int:
    note("body", id=self.request.id)
    return n + 1


@witnessed()
@app.task(bind=True, base=FlaskStyle)
def flask(self: Any, n: int) -> int:
    note("body", id=self.request.id)
    return n + 1


@witnessed()
@app.task(bind=True, base=SuperStyle)
def with_super(self: Any, n: int) -> int:
    note("body", id=self.request.id)
    return n + 1


class Named(WitnessTask):
    """A class-based task."""

    name = "named"
    witness = Witness()

    def run(self, n: int) -> int:
        """Count."""
        note("body", id=self.request.id)
        return n + 1


class Nameless(PolicyTask):
    """A class-based task that is called after its class."""

    whatever = Witness()

    def run(self, n: int) -> int:
        """Count."""
        note("body", id=self.request.id)
        return n + 1


named = app.register_task(Named())
nameless = app.register_task(Nameless())

app.finalize()


@witnessed()
@app.task(bind=True)
def after_finalising(self: Any, n: int) -> int:
    note("body", id=self.request.id)
    return n + 1


class Number(BaseModel):
    """An argument with a type of its own."""

    n: int


@witnessed()
@app.task(bind=True, pydantic=True)
def modelled(self: Any, number: Number) -> Number:
    note("body", id=self.request.id)
    return Number(n=number.n + 1)


@app.task
def plain(n: int) -> int:
    return n + 1


# --- that call themselves, others, or themselves again ----------------------------------------------------


@witnessed()
@app.task(bind=True)
def recursive(self: Any, n: int) -> int:
    """Call itself as a function, in both ways."""
    return 1 + (self(n - 1) if n % 2 else self.run(n - 1)) if n else 0


@witnessed()
@app.task(bind=True, base=SuperStyle)
def recursive_with_super(self: Any, n: int) -> int:
    return 1 + (self(n - 1) if n % 2 else self.run(n - 1)) if n else 0


@witnessed()
@app.task
def calling(n: int) -> list[int]:
    """Call another task as a function, and eagerly."""
    return [decorated(n), decorated.apply((n,)).get(disable_sync_subtasks=False)]


@witnessed()
@app.task(bind=True)
def spawning(self: Any, n: int) -> str | None:
    """Send itself once more: a new call, with an id of its own."""
    note("body", id=self.request.id)
    return self.delay(n - 1).id if n else None


@witnessed()
@app.task(bind=True, max_retries=3)
def retrying(self: Any, times: int) -> int:
    note("body", id=self.request.id)
    if self.request.retries < times:
        raise self.retry(countdown=0)
    return self.request.retries


@outer()
@app.task(bind=True, base=WitnessTask, witness=Witness(), autoretry_for=(ConnectionError,), max_retries=1)
def auto(self: Any, times: int) -> int:
    if self.request.retries < times:
        raise ConnectionError
    return self.request.retries


auto.default_retry_delay = 0


@witnessed()
@app.task(bind=True)
def replaced_by_itself(self: Any, n: int) -> Any:
    note("body", id=self.request.id)
    return self.replace(self.s(n - 1)) if n else "replaced"


@witnessed()
@app.task(bind=True)
def replaced_by_another(self: Any, n: int) -> Any:
    return self.replace(decorated.s(n))


@app.task(bind=True)
def late(self: Any) -> str:
    """Attach a policy to a task that the worker has built already."""
    try:
        attach(plain, Witness())
    except TypeError as error:
        return str(error)
    return "attached"


# --- that end in different ways ---------------------------------------------------------------------------


@witnessed()
@app.task(bind=True)
def raising(self: Any, why: str) -> None:
    raise ValueError(why)


@witnessed()
@app.task(bind=True)
def ignoring(self: Any) -> None:
    raise Ignore


@witnessed()
@app.task(bind=True, acks_late=True)
def rejecting(self: Any, requeue: bool) -> str:
    """Reject the message, and end well if it comes again."""
    note("body", id=self.request.id)
    if requeue and Path(note_path(self.request.id)).exists():
        return "came again"
    Path(note_path(self.request.id)).touch()
    raise Reject("not mine", requeue=requeue)


def note_path(task_id: str) -> str:
    """A file by which the second delivery of a task knows that it is one."""
    return os.environ["GROUND_HISTORY"] + "." + task_id


@witnessed()
@app.task(bind=True)
def gated(self: Any, gate: str) -> str:
    """Run until the gate is open, acknowledged early."""
    return _until_open(self, gate)


@witnessed()
@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def gated_late(self: Any, gate: str) -> str:
    """The same, and delivered again when its process is killed."""
    return _until_open(self, gate)


@witnessed()
@app.task(bind=True, acks_late=True, reject_on_worker_lost=False)
def gated_given_up(self: Any, gate: str) -> str:
    """The same, and given up when its process is killed."""
    return _until_open(self, gate)


@witnessed()
@app.task(bind=True, time_limit=1)
def limited(self: Any, gate: str) -> str:
    """Run into the hard limit."""
    return _until_open(self, gate)


@witnessed()
@app.task(bind=True, soft_time_limit=1)
def softly_limited(self: Any, gate: str) -> str:
    """Run into the soft limit."""
    return _until_open(self, gate)


@witnessed()
@app.task
def unserialisable() -> object:
    """Return what no serializer can carry."""
    return object()


@dataclass(frozen=True)
class Clumsy(Policy):
    """A policy whose clean-up fails, and which stands outside the witness."""

    kind: ClassVar[str] = "clumsy"
    order: ClassVar[int] = 1

    @override
    def failed(self, call: Call, error: BaseException) -> None:
        raise RuntimeError("cannot clean up")

    @override
    def lost(self, call: Call, grace: float) -> None:
        raise RuntimeError("cannot clean up")


@app.task(
    bind=True,
    base=PolicyTask,
    clumsy=Clumsy(),
    witness=Witness(),
    acks_late=True,
    reject_on_worker_lost=True,
)
def clumsy(self: Any, gate: str) -> str:
    return _until_open(self, gate)


@witnessed()
@app.task(bind=True, acks_late=True, max_retries=1, default_retry_delay=0)
def retried_when_lost(self: Any, gate: str) -> str:
    return _until_open(self, gate)


retried_when_lost.retry_on_worker_lost = True  # Celery 5.7


@witnessed()
@app.task(bind=True, acks_late=True)
def exiting(self: Any) -> None:
    """Leave by the back door."""
    note("body", id=self.request.id)
    raise SystemExit(3)


def _until_open(self: Any, gate: str) -> str:
    note("body", id=self.request.id, pid=os.getpid())
    while not Path(gate).exists():
        time.sleep(0.01)
    return "told"
