"""Checked by mypy --strict, never run: what a type checker has to know about the public names.

Where a line is wrong on purpose, mypy has to say so: an `ignore` that is not needed is an error itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal, assert_type

from celery import Celery
from celery.app.task import Task
from celery.result import AsyncResult
from tenacity import retry_if_exception_type, stop_after_attempt, wait_fixed, wait_random

from celery_patterns import (
    ALL_ARGS,
    Call,
    ChordFailed,
    DeadLetter,
    DeadLetterMixin,
    DeadLetters,
    DeadLetterTask,
    Event,
    Idempotency,
    IdempotentTask,
    Lease,
    Outcome,
    Outcomes,
    PatternsError,
    Policy,
    PolicyError,
    PolicyTask,
    Progress,
    Rate,
    RateLimitManager,
    RateLimits,
    RetryableTask,
    RetryBudget,
    RetryPolicy,
    Rule,
    TaskPriority,
    TaskRouter,
    Throttled,
    TokenBucket,
    TokenBucketTask,
    WorkflowNode,
    acquire,
    as_decorator,
    attach,
    dead_letter,
    dead_letter_queue,
    disabled,
    idempotent,
    inspect_workflow,
    move_to_dlq,
    partial_chord,
    penalize,
    process_dlq,
    rate_limits,
    retryable,
    route_canvas,
    simulate,
    submit_with_priority,
    subscribe,
    task_queues_for,
    token_bucket,
    workflow_progress,
)
from celery_patterns.core.policy import Publish, Run
from celery_patterns.core.store import Store
from celery_patterns.deadletters import Entry, Filter, Plan, Report
from celery_patterns.errors import IdempotencyInProgress, RateLimitExceeded, Refused, StoreUnavailable
from celery_patterns.flows.routing.explanation import Explanation
from celery_patterns.testing import (
    CapturedEvents,
    MovableClock,
    assert_deferred,
    assert_replayed,
    memory_store,
)

app = Celery("shop")

# --- the value -------------------------------------------------------------------------------------------

assert_type(Idempotency("order_id"), Idempotency)
assert_type(
    Idempotency(key=("tenant", "order.id"), ttl=timedelta(days=1), on_in_progress="skip"), Idempotency
)
Idempotency(ALL_ARGS, name="charge", ttl=86_400, lease=0.5, on_lapsed="hold", cache_errors=True, max_result=0)
Idempotency(lambda order: order["id"], on_store_error="raise")
Idempotency("order_id").ttl = 5  # type: ignore[misc]
Idempotency()  # type: ignore[call-arg]
Idempotency("order_id", "charge")  # type: ignore[call-arg]
Idempotency(5)  # type: ignore[arg-type]
Idempotency("order_id", lease="60")  # type: ignore[arg-type]
Idempotency("order_id", on_in_progress="wait")  # type: ignore[arg-type]
Idempotency("order_id", on_lapsed="defer")  # type: ignore[arg-type]
Idempotency("order_id", retries=3)  # type: ignore[call-arg]

# --- the base class --------------------------------------------------------------------------------------


@app.task(base=IdempotentTask, idempotency=Idempotency(key="order_id"))
def charge(order_id: str, amount: int = 1) -> str:
    return f"{order_id} {amount}"


class PaymentTask(IdempotentTask):
    """A base of a project's own."""

    abstract = True
    idempotency = Idempotency(key="order_id")


class BrokenTask(IdempotentTask):
    """A base whose policy is none."""

    idempotency = "order_id"  # type: ignore[assignment]


# --- the decorator: a task stays what it was -------------------------------------------------------------


@app.task
def plain(order_id: str, amount: int = 1) -> str:
    return f"{order_id} {amount}"


@idempotent(key="order_id", lease=5)
@app.task
def refund(order_id: str, amount: int = 1) -> str:
    return f"{order_id} {amount}"


@idempotent(key="order_id")
@app.task(bind=True)
def notify(self: Any, order_id: str) -> None:
    lease: Lease = self.request.lease
    assert_type(lease.lost, bool)
    assert_type(lease.fence, int)


assert_type(plain, Task[Any, Any])
assert_type(refund, Task[Any, Any])
assert_type(notify, Task[Any, Any])
assert_type(charge, IdempotentTask)
assert_type(refund.delay("A-17"), AsyncResult[Any])
assert_type(idempotent("order_id")(charge), IdempotentTask)
assert_type(attach(charge, Idempotency("order_id")), IdempotentTask)
idempotent()  # type: ignore[call-arg]
idempotent("order_id", lease="60")  # type: ignore[arg-type]
idempotent("order_id", on_in_progress="wait")  # type: ignore[arg-type]
attach(charge, "order_id")  # type: ignore[arg-type]

# --- rate limits -----------------------------------------------------------------------------------------

assert_type(TokenBucket("25/s", burst=100, name="stripe", key=("tenant", "region")), TokenBucket)
TokenBucket(Rate(5, per=timedelta(seconds=10)), cost="pages", strict=True, max_wait=timedelta(minutes=5))
TokenBucket("25/s", cost=lambda pages: 2 * len(pages), on_limited="skip", on_store_error="allow")
TokenBucket("25/s").burst = 5  # type: ignore[misc]
TokenBucket()  # type: ignore[call-arg]
TokenBucket(25)  # type: ignore[arg-type]
TokenBucket("25/s", 100)  # type: ignore[call-arg]
TokenBucket("25/s", burst="100")  # type: ignore[arg-type]
TokenBucket("25/s", on_limited="wait")  # type: ignore[arg-type]
assert_type(RateLimits(TokenBucket("25/s"), TokenBucket("1000/h")), RateLimits)
RateLimits("25/s")  # type: ignore[arg-type]
assert_type(Rate.of("25/s").per, float)


@app.task(base=TokenBucketTask, token_bucket=RateLimits(TokenBucket("25/s"), TokenBucket("1000/h")))
def limited(order_id: str) -> str:
    raise Throttled(retry_after="120", limit="stripe")


@rate_limits(TokenBucket("25/s"), TokenBucket("1000/h", name="hourly"))
@token_bucket("25/s", burst=100)
@app.task
def twice_limited() -> None:
    raise Throttled(timedelta(seconds=5))


class LimitedTask(TokenBucketTask):
    """A base with a limit."""

    token_bucket = TokenBucket("25/s")


class FlatTask(TokenBucketTask):
    """A base with the flat options."""

    rate_limit_key = "stripe_api"
    tokens_per_second = 0.5
    bucket_size = "100"  # type: ignore[assignment]


assert_type(limited, TokenBucketTask)
assert_type(twice_limited, Task[Any, Any])
token_bucket(burst=100)  # type: ignore[call-arg]
rate_limits("25/s")  # type: ignore[arg-type]
Throttled()  # type: ignore[call-arg]
answer = acquire(TokenBucket("25/s", name="stripe"), {"tenant": "eu"}, timeout=5, app=app)
assert_type(answer.wait, float)
assert_type(bool(answer), bool)
acquire("stripe")  # type: ignore[arg-type]
manager = RateLimitManager(app)
manager.adjust_rate("stripe", "50/m", burst=5)
manager.adjust_rate("stripe", 50)  # type: ignore[arg-type]
manager.reduce_for_high_load(0.5)
manager.restore_defaults()
penalize("stripe", timedelta(seconds=30), key=("eu", 7))
penalize("stripe")  # type: ignore[call-arg]

# --- a pattern of one's own --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timed(Policy):
    """A policy as a project would write it."""

    name: str
    limit: float = 1.0

    kind: ClassVar[str] = "timed"
    order: ClassVar[int] = 65
    late_acks: ClassVar[Literal["set", "warn"]] = "warn"

    def publish(self, call: Call, proceed: Publish) -> AsyncResult[Any]:
        """Around `apply_async`."""
        assert_type(call.id, str | None)
        assert_type(call.name, str)
        return proceed(call)

    def run(self, call: Call, proceed: Run) -> Any:
        """Around the body."""
        assert_type(call.key("order_id"), str)
        return proceed(call)

    def failed(self, call: Call, error: BaseException) -> None:
        """The call will not run again."""


@dataclass(frozen=True, slots=True)
class Wrong(Policy):
    """A policy whose hook does not fit."""

    def run(self, call: str, proceed: Run) -> Any:  # type: ignore[override]
        """Around the body."""


timed = as_decorator(Timed)
assert_type(timed("checkout", limit=2)(charge), IdempotentTask)
timed()  # type: ignore[call-arg]
timed("checkout", limit="2")  # type: ignore[arg-type]


class TimedTask(PolicyTask):
    """A base with two policies."""

    timed = Timed("checkout")
    idempotency = Idempotency("order_id")


# --- routing ---------------------------------------------------------------------------------------------

rule = Rule("proj.*", when=lambda order: order["total"] > 1000, queue="large", priority=TaskPriority.HIGH)
Rule(("a", "b"), tier=("gold", "silver"), urgent=True, header={"region": "eu"}, options={"exchange": "e"})
Rule("proj.*", "large")  # type: ignore[call-arg]
Rule("proj.*", priority="high")  # type: ignore[arg-type]
rule.queue = "other"  # type: ignore[misc]

router = TaskRouter([rule], default="rest", tiers={"gold": TaskPriority.HIGH}, tier_of=lambda tenant: "gold")
TaskRouter({"proj.*": "reports", "proj.charge": {"queue": "payments"}}, default=None)
TaskRouter("proj.*")  # type: ignore[arg-type]
assert_type(router.explain(charge, ("A-17",), {"amount": 1}, urgent=True), Explanation)
assert_type(router.explain("proj.charge").queue, str | None)
assert_type(task_queues_for(router, "extra", queue_type="quorum"), dict[str, Any])
task_queues_for(router, queue_type="stream")  # type: ignore[arg-type]
assert_type(TaskPriority.BULK < TaskPriority.CRITICAL, bool)
assert_type(submit_with_priority(charge, ("A-17",), user_tier="gold", is_urgent=True), AsyncResult[Any])
submit_with_priority(charge, user_tier=3)  # type: ignore[arg-type]
route_canvas(charge.s("A-17"), queue="bulk", priority=TaskPriority.BULK)
route_canvas(charge.s("A-17"), priority="high")  # type: ignore[arg-type]

# --- watching and switching off ----------------------------------------------------------------------------

event = Event(kind="replayed", policy="idempotency", task="charge", key="charge:1", detail={"holder": "id"})
assert_type(event.task_id, str | None)
event.kind = "skipped"  # type: ignore[misc]
Event("replayed", "idempotency", "charge")  # type: ignore[call-arg]

stop = subscribe(lambda event: assert_type(event, Event))
assert_type(stop, Callable[[], None])
subscribe(print)
subscribe(lambda: None)  # type: ignore[arg-type, misc]

with disabled(), disabled("idempotency", "singleton"):
    pass
disabled(True)  # type: ignore[arg-type]

# --- errors ------------------------------------------------------------------------------------------------

try:
    pass
except IdempotencyInProgress as refusal:
    assert_type(refusal.retry_after, float | None)
except RateLimitExceeded as exceeded:
    assert_type(exceeded.retry_after, float | None)
except Throttled as throttled:
    assert_type(throttled.retry_after, float)
except PolicyError as mistake:
    not_only_ours: TypeError = mistake
except (Refused, StoreUnavailable) as error:
    ours: PatternsError = error

# --- for the tests of projects -----------------------------------------------------------------------------

with memory_store() as store, assert_replayed(charge, times=1) as replays, assert_deferred("charge"):
    assert_type(store, Store)
    assert_type(replays, CapturedEvents)
    assert_type(replays.of("replayed", charge), list[Event])
    MovableClock(store).advance(timedelta(hours=1))
    MovableClock(store).advance("1h")  # type: ignore[arg-type]
assert_replayed(charge, 1)  # type: ignore[call-arg]


# --- retries and dead letters ------------------------------------------------------------------------------

RetryPolicy(OSError)
RetryPolicy((OSError, ValueError), never_on=PermissionError, deadline=timedelta(hours=1))
RetryPolicy(
    retry_if_exception_type(OSError), wait=wait_fixed(1) + wait_random(0, 2), stop=stop_after_attempt(3)
)
RetryPolicy(OSError, budget=RetryBudget("stripe", share=0.1), retry_after=lambda error: timedelta(seconds=5))
RetryPolicy()  # type: ignore[call-arg]
RetryPolicy("OSError")  # type: ignore[arg-type]
RetryPolicy(OSError, stop=3)  # type: ignore[arg-type]
RetryPolicy(OSError, wait=5)  # type: ignore[arg-type]
RetryPolicy(OSError, budget="stripe")  # type: ignore[arg-type]
assert_type(simulate(RetryPolicy(OSError), took=1.0).calls, int)
assert_type(retryable(OSError)(plain), Task[Any, Any])
retryable()  # type: ignore[call-arg]

DeadLetter()
DeadLetter("payments", retention=timedelta(days=7), max_deliveries=3, redact=["card"])
DeadLetter(retention="30d")  # type: ignore[arg-type]
DeadLetter("payments", 5)  # type: ignore[call-arg]
assert_type(dead_letter()(plain), Task[Any, Any])
dead_letter(max_deliveries="5")  # type: ignore[arg-type]


class KeptTask(RetryableTask, IdempotentTask, DeadLetterMixin):
    """All of them on one base."""

    abstract = True
    retry_policy = RetryPolicy(OSError)
    idempotency = Idempotency(key="order_id")
    dead_letter = DeadLetter("payments")


@app.task(base=DeadLetterTask, dead_letter=DeadLetter(max_deliveries=2))
def kept(order_id: str) -> None: ...


desk = DeadLetters(app)
assert_type(desk.list(Filter(task="shop.*", state=None), limit=5).entries, tuple[Entry, ...])
assert_type(desk.replay(Filter(ids=("a",)), Plan(rate=10, limit=5)), Report)
assert_type(desk.archive(Filter(group="ab"), "known"), int)
assert_type(desk.get("a").edit, Any)  # type: ignore[attr-defined]
assert_type(move_to_dlq(kept, {"order_id": "A-17"}, ValueError()), str)
assert_type(process_dlq("shop.charge", limit=5), Report)
assert_type(dead_letter_queue("payments", delivery_limit=3).name, str)
Filter("open")  # type: ignore[call-arg]
Plan(10)  # type: ignore[call-arg]

# --- chords and workflows --------------------------------------------------------------------------------


@app.task
def fetch(page: int) -> int:
    return page


@app.task
def summarise(results: list[Any]) -> int:
    outcomes = Outcomes(results)
    assert_type(outcomes[0], Outcome)
    assert_type(outcomes.failures, tuple[Outcome, ...])
    assert_type(outcomes.values(default=0), list[Any])
    assert_type(outcomes.counts["lost"], int)
    assert_type(outcomes[0].state, Literal["ok", "failed", "revoked", "lost"])
    return len(outcomes)


pages = [fetch.s(page) for page in range(3)]
chord_of_pages = partial_chord(pages, summarise.s(), min_share=0.5, deadline=timedelta(minutes=1))
partial_chord(pages, summarise.s(), min_success=2, on_failure="fail_fast", on_late="rerun")
partial_chord(pages, summarise.s(), on_failure="raise")  # type: ignore[arg-type]
partial_chord(pages, summarise.s(), 2)  # type: ignore[call-arg]
sent_chord = chord_of_pages.apply_async()
assert_type(workflow_progress(sent_chord), Progress)
assert_type(inspect_workflow(sent_chord), WorkflowNode)
assert_type(inspect_workflow(sent_chord).outcome, Literal["ok", "failed", "revoked", "lost"] | None)
assert_type(ChordFailed("too few").message, str)
