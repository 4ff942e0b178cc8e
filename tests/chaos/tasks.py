"""What runs under fire: a task under all policies at once, in both forms, and what follows it.

Each process writes down what it does. Polls are shorter than in production, so that a short session holds as
many meetings as a long one; leases are shorter for the same reason.
"""

from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from celery_patterns import dead_letter, idempotent, rate_limits, retryable, singleton
from celery_patterns.core import guard
from celery_patterns.policies.idempotency import delivery as idempotency
from celery_patterns.policies.rate_limits import start as limits
from celery_patterns.policies.singleton import delivery as singletons
from tests.chaos.body import GuardedTask, book
from tests.chaos.broken import break_in_worker
from tests.chaos.disturbed import disturb
from tests.chaos.terms import LEASE, POLICIES, QUEUED_TTL, TTL, Flaky
from tests.chaos.watch import watch
from tests.ground.app import ground_app, history, in_worker

app = ground_app(
    __name__,
    worker_send_task_events=False,
    worker_lost_wait=0.5,
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
)

break_in_worker()
idempotency.LONGEST_POLL = singletons.LONGEST_POLL = 1.0
singletons.TURN_POLL = 0.3
idempotency.LONGEST_OUTAGE = guard.LONGEST_OUTAGE = limits.LONGEST_OUTAGE = 2.0


@app.task(bind=True, base=GuardedTask)
def pay(self: Any, order: str, account: str, branch: int, fate: str) -> dict[str, Any]:
    """Book a payment."""
    return book(self, order, account, branch, fate)


@idempotent("order", ttl=TTL, lease=LEASE)
@rate_limits(*POLICIES["token_bucket"].limits)
@dead_letter()
@singleton(
    "account", name="book", scope="until_executed", on_conflict="defer", queued_ttl=QUEUED_TTL, lease=LEASE
)
@retryable(Flaky, wait=wait_fixed(0.3), stop=stop_after_attempt(4))
@app.task(bind=True)
def transfer(self: Any, order: str, account: str, branch: int, fate: str) -> dict[str, Any]:
    """The same by decorators in another order; its account is its own from publishing to its end."""
    return book(self, order, account, branch, fate)


@app.task(bind=True)
def note(self: Any, value: Any, label: str) -> Any:
    """What links and chains lead to."""
    history().add("noted", id=self.request.id, label=label, value=value)
    return value


@app.task(bind=True)
def gather(self: Any, values: list[Any], label: str) -> list[Any]:
    """What chords lead to."""
    history().add("gathered", id=self.request.id, label=label, values=values)
    return values


if in_worker():
    watch()
disturb(app)
