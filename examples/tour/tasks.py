"""The tasks with celery-patterns: compare with `plain.py`, which does without."""

from celery import Task

from celery_patterns import Event, Idempotency, IdempotentTask, subscribe
from examples.tour import payments, stdlib
from examples.tour.app import FOLDER, SERVICE_URL, create_app
from examples.tour.files import append

app = create_app()

# Both tasks take well under a second, so after ten without a sign of life nobody is at it any more.
LEASE = 10


@app.task(name="index", base=IdempotentTask, idempotency=Idempotency(key="module", lease=LEASE), bind=True)
def index(self: Task, module: str, path: str) -> stdlib.Survey:
    """Survey one module and put it into the index.

    The fence goes along, so that an attempt which was overtaken by a later one cannot write over it.
    """
    survey = stdlib.survey(path)
    with stdlib.opened(FOLDER) as database:
        stdlib.write_fenced(database, module, survey, fence=self.request.fence)
    return survey


@app.task(name="charge", base=IdempotentTask, idempotency=Idempotency(key="order_id", lease=LEASE))
def charge(order_id: str, amount: int) -> str:
    """Charge one order.

    An attempt may be killed after the service charged and before anybody here could write that down. Only
    the service can tell then, so it gets the same key.
    """
    return payments.charge(SERVICE_URL, order_id, amount, key=order_id)


@subscribe
def remember(event: Event) -> None:
    """Write down what the library did, for the columns "replayed" and "deferred"."""
    append(FOLDER / "history.jsonl", kind=event.kind, task=event.task)
