"""The tasks with celery-patterns: compare with `plain.py`, which does without."""

from typing import Any

from celery import Signature, Task
from tenacity import stop_after_attempt, wait_fixed

from celery_patterns import (
    DeadLetter,
    DeadLetterMixin,
    Event,
    Idempotency,
    IdempotentTask,
    Outcomes,
    RetryableTask,
    RetryPolicy,
    Throttled,
    TokenBucket,
    TokenBucketTask,
    partial_chord,
    subscribe,
)
from examples.tour import payments, stdlib
from examples.tour.app import FOLDER, REDIS_URL, SERVICE_URL, create_app
from examples.tour.files import append

app = create_app(backend=f"partial+{REDIS_URL}")

# Both tasks take well under a second, so after ten without a sign of life nobody is at it any more.
LEASE = 10


@app.task(name="index", base=IdempotentTask, idempotency=Idempotency(key="module", lease=LEASE), bind=True)
def index(self: Task, module: str, path: str) -> stdlib.Survey:
    """Survey one file and put it into the index.

    The fence goes along, so that an attempt which was overtaken by a later one cannot write over it.
    """
    survey = stdlib.survey(module, path)
    with stdlib.opened(FOLDER) as database:
        stdlib.write_fenced(database, module, survey, fence=self.request.fence)
    return survey


@app.task(name="report", acks_late=True, reject_on_worker_lost=True)
def report(results: list[Any]) -> list[str]:
    """Say which files are missing from the index: it is told what became of every part."""
    failed = {str(part.message).partition(":")[0] for part in Outcomes(results).failures}
    stdlib.write_report(FOLDER, sorted(failed))
    return sorted(failed)


def index_all(header: list[Signature[Any]]) -> Signature[Any]:
    """Index many files, and report at the end; also when some of them cannot be parsed."""
    return partial_chord(header, report.s(), min_share=0.9)


class PaymentTask(IdempotentTask, TokenBucketTask):
    """What calls the payments service: each order once, and never more calls than the service takes.

    It takes 60 requests in any second; a call that was let in may arrive a moment late, so stay below that.
    """

    abstract = True
    idempotency = Idempotency(key="order_id", lease=LEASE)
    token_bucket = TokenBucket("45/s", burst=5, name="payments")


@app.task(name="charge", base=PaymentTask)
def charge(order_id: str, amount: int) -> str:
    """Charge one order.

    An attempt may be killed after the service charged and before anybody here could write that down. Only
    the service can tell then, so it gets the same key. Should it say 429, it is left alone by everybody
    for as long as it asks for; the tour shows that it never has to.
    """
    try:
        return payments.charge(SERVICE_URL, order_id, amount, key=order_id)
    except payments.TooManyRequests as error:
        raise Throttled(error.retry_after) from error


class RenewalTask(PaymentTask, RetryableTask, DeadLetterMixin):
    """What calls the service, tries once more when it is down, and is kept when that was in vain.

    A declined card is not tried again: the bank would say the same. The policies are written in any order.
    """

    abstract = True
    retry_policy = RetryPolicy(
        payments.ServiceDown,
        never_on=payments.CardDeclined,
        wait=wait_fixed(0.2),
        stop=stop_after_attempt(2),
    )
    dead_letter = DeadLetter("renewals")


@app.task(name="renew", base=RenewalTask)
def renew(order_id: str, amount: int, card: str) -> str:
    """Charge one renewal."""
    try:
        return payments.charge(SERVICE_URL, order_id, amount, card=card, key=order_id)
    except payments.TooManyRequests as error:
        raise Throttled(error.retry_after) from error


@subscribe
def remember(event: Event) -> None:
    """Write down what the library did, for the columns "replayed" and "deferred"."""
    append(FOLDER / "history.jsonl", kind=event.kind, task=event.task)
