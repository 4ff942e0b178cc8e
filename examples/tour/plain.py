"""The same tasks as people write them by default: compare with `tasks.py`."""

from typing import Any

from celery import Signature, chord

from examples.tour import payments, stdlib
from examples.tour.app import FOLDER, SERVICE_URL, create_app

app = create_app()


@app.task(name="index", acks_late=True, reject_on_worker_lost=True)
def index(module: str, path: str) -> stdlib.Survey:
    """Survey one file and put it into the index."""
    survey = stdlib.survey(module, path)
    with stdlib.opened(FOLDER) as database:
        stdlib.write(database, module, survey)
    return survey


@app.task(name="report", acks_late=True, reject_on_worker_lost=True)
def report(_surveys: list[stdlib.Survey]) -> list[str]:
    """Say which files are missing from the index: none, or this would not run."""
    stdlib.write_report(FOLDER, [])
    return []


def index_all(header: list[Signature[Any]]) -> Signature[Any]:
    """Index many files, and report at the end."""
    return chord(header, report.s())


@app.task(
    name="charge",
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(payments.TooManyRequests,),
    retry_backoff=True,
)
def charge(order_id: str, amount: int) -> str:
    """Charge one order."""
    return payments.charge(SERVICE_URL, order_id, amount)


@app.task(
    name="renew",
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(payments.ServiceDown,),
    max_retries=1,
    default_retry_delay=0.2,
)
def renew(order_id: str, amount: int, card: str) -> str:
    """Charge one renewal. When it has failed, what is left of it is a line in the log."""
    return payments.charge(SERVICE_URL, order_id, amount, card=card)
