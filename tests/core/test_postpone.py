"""Putting a task off: what the next delivery brings, how long it waits, and what happens when it cannot."""

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from celery import Celery
from celery.exceptions import Reject
from celery.signals import before_task_publish
from kombu import Exchange, Queue
from kombu.exceptions import EncodeError, OperationalError
from typing_extensions import override

from celery_patterns import Call, Event, Policy, PolicyTask, RetryableTask, RetryPolicy, subscribe
from celery_patterns.core import postpone as postponing
from celery_patterns.core import republish, waits
from celery_patterns.core.policy import NONCE_HEADER
from celery_patterns.core.postpone import postpone, postpone_copy
from celery_patterns.core.redelivery import longest_wait
from celery_patterns.core.republish import WAKE_HEADER
from celery_patterns.core.waits import CONFLICT, LINE, backoff, deferrals
from celery_patterns.errors import DeferralExpired, Refused
from tests.apps.waits import PutOff
from tests.apps.witness import SEEN, alone, new_app, note
from tests.core.courier import Courier, Message, Outcome


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def app() -> Celery:
    app = new_app(task_default_queue=uuid.uuid4().hex)
    app.finalize()
    return app


class Clock:
    """The clock of postponement, which a test moves on."""

    def __init__(self) -> None:
        self.now = time.time()
        self.slept: list[float] = []

    def time(self) -> float:
        """What time it is."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(postponing, "time", clock)
    monkeypatch.setattr(republish, "time", clock)
    monkeypatch.setattr(waits, "time", clock)
    return clock


@pytest.fixture
def courier(app: Celery) -> Iterator[Courier]:
    with Courier(app) as courier:
        yield courier


@pytest.fixture
def count(app: Celery) -> Any:
    """A task that is put off as often, and for as long, as its arguments say."""

    def count(n: int = 0, *, times: int = 1, delay: float = 30.0) -> int:
        note("body", by=n)
        return n + 1

    return app.task(base=PolicyTask, put_off=PutOff(), name="count")(count)


@pytest.fixture
def events() -> Iterator[list[Event]]:
    found: list[Event] = []
    unsubscribe = subscribe(found.append)
    yield found
    unsubscribe()


def eta_of(message: Message) -> float:
    """How many seconds from now the message says that it may run; 0 if it does not say."""
    eta = message.headers["eta"]
    return (datetime.fromisoformat(eta) - datetime.now(UTC)).total_seconds() if eta else 0.0


def bodies() -> int:
    return len([entry for entry in SEEN if entry["event"] == "body"])


# --- what is kept ---------------------------------------------------------------------------------------


def test_put_off_and_delivered_again(count: Any, courier: Courier) -> None:
    """A task that must wait would be lost, run at once, or be another task afterwards."""
    result = count.delay(4)

    first = courier.deliver(courier.last)
    assert first.state == "RETRY"
    assert bodies() == 0
    assert len(courier.messages) == 2
    assert courier.last.id == result.id
    assert 29 < eta_of(courier.last) <= 30

    assert courier.deliver(courier.last) == Outcome("SUCCESS", 5)
    assert bodies() == 1


def test_everything_is_kept(count: Any, courier: Courier) -> None:
    """A postponed task would lose its chord, its links, its limits, or whose child it is."""
    body = count.si(1)
    body.freeze("body-1")
    signature = count.signature((4,), {"times": 3})
    signature.stamp(tenant="t-1", append_stamps=False)
    signature.apply_async(
        task_id="t-1",
        root_id="r-1",
        parent_id="p-1",
        group_id="g-1",
        group_index=7,
        chord=body,
        chain=[count.s(), count.s()],
        link=[count.si(2), count.si(3)],
        link_error=[count.si(4)],
        headers={"tenant-header": "t", "cp-key": "k"},
        priority=3,
        expires=3_000,
        time_limit=300,
        soft_time_limit=200,
        shadow="count of t",
        reply_to="somewhere",
        ignore_result=True,
        replaced_task_nesting=2,
        retries=1,
    )
    for _ in range(3):
        assert courier.deliver(courier.last).state == "RETRY"
    courier.deliver(courier.last)

    brought = [entry["carried"] for entry in SEEN if entry["event"] == "delivered"]
    plain = [{**one, "headers": own_headers(one)} for one in brought]
    assert plain[0] == plain[1] == plain[2] == plain[3]
    assert plain[0]["headers"]["tenant-header"] == "t"
    assert plain[0]["stamps"] == {"tenant": "t-1"}
    assert [len(plain[0][many]) for many in ("chain", "callbacks", "errbacks")] == [2, 2, 1]
    assert (plain[0]["group_index"], plain[0]["retries"], plain[0]["timelimit"]) == (7, 1, [300, 200])
    own = [message for message in courier.messages if message.id == "t-1"]
    assert [message.properties["priority"] for message in own] == [3] * 4
    assert len({message.routing_key for message in own}) == 1


def own_headers(brought: dict[str, Any]) -> dict[str, Any]:
    """The headers that the caller has given."""
    ours = {CONFLICT.count, CONFLICT.since, NONCE_HEADER}
    return {name: value for name, value in brought["headers"].items() if name not in ours}


def test_headers_of_earlier_deliveries_are_dropped(count: Any, courier: Courier) -> None:
    """A broker's own count would be carried on, and a new message pass for a redelivered one."""
    count.delay()
    death = {"x-death": [{"count": 1}], "x-first-death-queue": "celery_delayed_1", "x-last-death-queue": "q"}
    brokers_own = {"x-delivery-count": 3, "redelivered": True, **death, "kept": "yes"}

    courier.deliver(courier.last, **brokers_own)

    found = courier.last.headers
    assert not ({*brokers_own, NONCE_HEADER} - {"kept"}) & set(found)
    assert found["kept"] == "yes"


def test_waiting_shows_as_retry_with_its_reason(app: Celery, count: Any, courier: Courier) -> None:
    """Whoever looks at a waiting task would think that it is lost, or that it failed."""
    result = count.delay()

    courier.deliver(courier.last)

    assert result.state == "RETRY"
    assert isinstance(result.info, Refused)
    assert (str(result.info), result.info.retry_after) == ("count is busy", 30.0)
    assert not result.children


@pytest.mark.parametrize(("n", "state"), [(4, "SUCCESS"), ("4", "FAILURE")])
def test_next_delivery_may_end_before_this_one(count: Any, courier: Courier, n: Any, state: str) -> None:
    """A task that another process ran at once would show RETRY for ever, and its result be lost."""
    result = count.delay(n)

    def deliver_at_once(**_: Any) -> None:
        assert courier.deliver(courier.last).state == state

    before_task_publish.connect(deliver_at_once)
    try:
        assert courier.deliver(courier.messages[0]).state == "RETRY"
    finally:
        before_task_publish.disconnect(deliver_at_once)

    assert result.state == state


def test_result_backend_that_is_away_stops_nobody(
    app: Celery, count: Any, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task would be lost because nobody could be told that it waits."""

    def away(*_: Any, **__: Any) -> None:
        raise OSError("away")

    result = count.delay()
    monkeypatch.setattr(app.backend, "store_result", away)
    assert courier.deliver(courier.last).state == "RETRY"
    monkeypatch.undo()

    assert result.state == "PENDING"
    assert courier.deliver(courier.last).state == "SUCCESS"


def test_copy_waits_without_showing(app: Celery, courier: Courier, events: list[Event], clock: Clock) -> None:
    """A redelivered copy would write over the state of the delivery that works."""

    @dataclass(frozen=True)
    class Copy(Policy):
        kind: ClassVar[str] = "copy"
        order: ClassVar[int] = 1

        @override
        def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
            postpone_copy(call, 2.0, Refused("another works on it", 2.0), policy=self.kind, key="k")

    copied = app.task(base=PolicyTask, policy=Copy(), name="copied")(lambda_free)
    result = copied.delay()

    assert courier.deliver(courier.last).state == "IGNORED"

    assert result.state == "PENDING"
    assert (len(courier.messages), courier.last.id) == (2, result.id)
    assert courier.last.headers[CONFLICT.count] == 1
    assert [(event.kind, event.detail["copy"]) for event in events] == [("deferred", True)]


def lambda_free() -> None:
    """A body that nobody calls."""


def test_copy_that_hops_shows_nothing_either(app: Celery, courier: Courier, clock: Clock) -> None:
    """A copy that waits for longer than one countdown would write RETRY over the state of the other."""

    @dataclass(frozen=True)
    class Copy(Policy):
        kind: ClassVar[str] = "copy"
        order: ClassVar[int] = 1

        @override
        def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
            if clock.now < works_until:
                postpone_copy(call, 100, Refused("another works on it"), policy=self.kind)
            return proceed(call)

    works_until = clock.now + 50
    app.conf.broker_transport_options = {"visibility_timeout": 100}
    copied = app.task(base=PolicyTask, policy=Copy(), name="copied")(lambda_free)
    result = copied.delay()
    states = []
    while (outcome := courier.deliver(courier.last)).state == "IGNORED":
        states.append(result.state)
        clock.now += eta_of(courier.last)

    assert states == ["PENDING"] * 3
    assert outcome.state == "SUCCESS"
    assert len(courier.messages) == 4


class InLine(Policy):
    """Stands in a line until `open`, after a conflict if there is one."""

    kind: ClassVar[str] = "in_line"
    order: ClassVar[int] = 70

    def __init__(self) -> None:
        self.open = False
        self.conflict = False

    @override
    def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
        if self.conflict:
            postpone(call, 60, Refused("busy"), policy=self.kind)
        if not self.open:
            postpone(call, 1, Refused("in line"), policy=self.kind, waits=LINE, tokens=0)
        return proceed(call)


def test_line_does_not_end_after_a_day(
    app: Celery, courier: Courier, clock: Clock, events: list[Event]
) -> None:
    """Whoever stands in a long line for days would be thrown out of it."""
    line = InLine()
    task = app.task(base=PolicyTask, policy=line, name="limited")(lambda_free)
    task.delay()
    for _ in range(5):
        assert courier.deliver(courier.last).state == "RETRY"
        clock.now += CONFLICT.longest
    assert [event.detail["deferrals"] for event in events] == [1, 2, 3, 4, 5]
    assert events[0].detail["tokens"] == 0
    line.open = True
    assert courier.deliver(courier.last).state == "SUCCESS"


def test_conflict_after_a_line_counts_anew(app: Celery, courier: Courier, clock: Clock) -> None:
    """A conflict would fail at its first moment because the task had stood in a line before."""
    line = InLine()
    task = app.task(base=PolicyTask, policy=line, name="limited")(lambda_free)
    task.delay()
    line.conflict = True
    courier.deliver(courier.last)
    line.conflict = False
    for _ in range(3):
        clock.now += CONFLICT.longest / 2
        courier.deliver(courier.last)
    assert CONFLICT.since not in courier.last.headers
    line.conflict = True
    assert courier.deliver(courier.last).state == "RETRY"


def test_retry_stands_in_line_anew(app: Celery, courier: Courier, clock: Clock) -> None:
    """The second attempt of a task would be thrown out of a line in which it has just taken its place."""
    line = InLine()

    @app.task(bind=True, base=PolicyTask, policy=line, max_retries=1)
    def flaky(self: Any) -> int:
        if self.request.retries < 1:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    flaky.delay()
    courier.deliver(courier.last)
    assert courier.last.headers[LINE.count] == 1
    line.open = True
    courier.deliver(courier.last)
    assert not {LINE.count, LINE.since} & set(courier.last.headers)
    assert courier.deliver(courier.last) == Outcome("SUCCESS", 1)


def test_putting_off_is_told(count: Any, courier: Courier, events: list[Event]) -> None:
    """Nobody could count, or see, how often tasks wait and for what."""
    result = count.delay(times=2)
    courier.deliver(courier.last)
    courier.deliver(courier.last)

    one, two = events
    assert (one.kind, one.policy, one.task, one.task_id, one.key) == (
        "deferred",
        "put_off",
        "count",
        result.id,
        "some-key",
    )
    assert one.detail == {"delay": 30.0, "deferrals": 1, "reason": "count is busy", "copy": False}
    assert two.detail["deferrals"] == 2


# --- how often ------------------------------------------------------------------------------------------


def test_being_put_off_is_counted_in_its_own_header(count: Any, courier: Courier) -> None:
    """Being put off would cost retries, and a busy task be given up."""
    count.delay(times=3)
    for times in range(1, 4):
        courier.deliver(courier.last)
        assert courier.last.headers[CONFLICT.count] == times
        assert courier.last.headers["retries"] == 0
    since = {message.headers.get(CONFLICT.since) for message in courier.messages[1:]}
    assert len(since) == 1

    assert courier.deliver(courier.last).state == "SUCCESS"


def test_retry_after_being_put_off(app: Celery, courier: Courier) -> None:
    """A retry would forget how long the task has been waiting, or count as a deferral."""

    @app.task(bind=True, base=PolicyTask, put_off=PutOff(), max_retries=2)
    def flaky(self: Any, *, times: int, delay: float) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    flaky.delay(times=1, delay=1)
    found = []
    while (outcome := courier.deliver(courier.last)).state == "RETRY":
        found.append((courier.last.headers["retries"], courier.last.headers[CONFLICT.count]))

    assert outcome == Outcome("SUCCESS", 2)
    assert found == [(0, 1), (1, 1), (2, 1)]


def test_being_put_off_after_a_retry(app: Celery, courier: Courier) -> None:
    """A deferral would take the retries back, and the task never give up; or use them up."""

    @dataclass(frozen=True)
    class Between(Policy):
        kind: ClassVar[str] = "between"
        order: ClassVar[int] = 1

        @override
        def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
            if deferrals(call) <= call.request.retries:
                postpone(call, 1, Refused("busy"), policy=self.kind)
            return proceed(call)

    @app.task(bind=True, base=PolicyTask, between=Between(), max_retries=1)
    def hopeless(self: Any) -> None:
        raise self.retry(countdown=0, exc=ValueError("given up"))

    hopeless.delay()
    found = []
    while (outcome := courier.deliver(courier.last)).state == "RETRY":
        found.append((courier.last.headers["retries"], courier.last.headers[CONFLICT.count]))

    assert (outcome.state, found) == ("FAILURE", [(0, 1), (1, 1), (1, 2)])


@pytest.mark.parametrize(
    ("times", "waits"), [(0, 0.5), (1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (16, 10.0), (99_999, 10.0)]
)
def test_backoff_doubles_up_to_its_longest(count: Any, times: int, waits: float) -> None:
    """A task that waits for nobody knows what would spin, or wait for hours."""
    context = type("Context", (), {"headers": {CONFLICT.count: times}})()
    call = Call(seam=count.__patterns__, args=(), kwargs={}, request=context)

    assert backoff(call, 10.0) == waits


def test_expires_after_a_day(count: Any, courier: Courier, clock: Clock) -> None:
    """A task whose turn never comes would wait for ever, and nobody hear of it."""
    result = count.delay(times=9, delay=1.0)
    courier.deliver(courier.last)
    clock.now += CONFLICT.longest - 1
    assert courier.deliver(courier.last).state == "RETRY"
    clock.now += 2

    outcome = courier.deliver(courier.last)

    assert outcome.state == "FAILURE"
    assert isinstance(result.result, DeferralExpired)
    assert f"count[{result.id}] was put off for 86401 s: count is busy" in str(result.result)
    assert (bodies(), len(courier.messages)) == (0, 3)
    assert [entry["error"] for entry in SEEN if entry["event"] == "failed"] == ["DeferralExpired"]


# --- how long -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "redelivers_after"),
    [
        ("redis://localhost", {}, 3_600),
        ("rediss://localhost", {}, 3_600),
        ("sentinel://a:1;sentinel://b:1", {}, 3_600),
        ("redis://localhost", {"visibility_timeout": 60}, 60),
        ("redis://localhost", {"visibility_timeout": 43_200}, 43_200),
        ("amqp://localhost", {}, 1_800),
        ("amqps://localhost", {}, 1_800),
        ("pyamqp://localhost", {}, 1_800),
        ("amqp://a;amqp://b", {}, 1_800),
        (["amqp://a", "amqp://b"], {}, 1_800),
        (["redis://a", "redis://b"], {}, 3_600),
        (None, {}, 1_800),
    ],
)
def test_no_wait_comes_near_a_redelivery(url: Any, options: dict[str, Any], redelivers_after: float) -> None:
    """The broker would deliver a waiting task again, and it would run twice."""
    app = new_app(broker=url)
    app.conf.broker_transport_options = options

    assert redelivers_after / 4 < longest_wait(app) < redelivers_after / 2


def test_workers_broker_decides(app: Celery) -> None:
    """Where messages are sent by one way and consumed by another, the wrong timeout would count."""
    app.conf.update(broker_url="redis://a", broker_read_url="amqp://a", broker_write_url="amqp://b")

    assert longest_wait(app) < 900


def test_long_wait_hops(app: Celery, count: Any, courier: Courier, clock: Clock) -> None:
    """A long wait would be delivered again in the middle of it, or end too early, or expire too early."""
    app.conf.broker_transport_options = {"visibility_timeout": 100}
    count.delay(delay=200)
    hops = [courier.deliver(courier.last)]
    published = clock.now
    while SEEN[-1]["event"] != "body":
        message = courier.last
        waited = eta_of(message)
        assert waited < 50
        assert message.headers[CONFLICT.count] == 1
        clock.now += waited
        hops.append(courier.deliver(message))

    assert [hop.state for hop in hops] == ["RETRY"] * 5 + ["SUCCESS"]
    assert clock.now - published == pytest.approx(200, abs=1)
    assert WAKE_HEADER not in courier.last.headers
    assert len([entry for entry in SEEN if entry["event"] == "delivered"]) == 2


def test_hops_are_not_told(
    app: Celery, count: Any, courier: Courier, clock: Clock, events: list[Event]
) -> None:
    """One long wait would count as many deferrals, and stretch every backoff."""
    app.conf.broker_transport_options = {"visibility_timeout": 100}
    count.delay(delay=200)
    for _ in range(3):
        courier.deliver(courier.last)

    assert len(courier.messages) == 4
    assert [event.detail["deferrals"] for event in events] == [1]


def test_second_long_wait_after_a_long_wait(app: Celery, count: Any, courier: Courier, clock: Clock) -> None:
    """The header of the first long wait would end, or prolong, the second one."""
    app.conf.broker_transport_options = {"visibility_timeout": 100}
    count.delay(times=2, delay=60)
    began = clock.now
    courier.deliver(courier.last)
    while SEEN[-1]["event"] != "body":
        clock.now += eta_of(courier.last)
        courier.deliver(courier.last)

    assert clock.now - began == pytest.approx(120, abs=1)


def test_expiry_of_the_message_is_not_prolonged(count: Any, courier: Courier) -> None:
    """A task that its sender wants only for a minute would live on while it is put off."""
    count.apply_async(kwargs={"times": 2}, expires=60)
    courier.deliver(courier.last)
    courier.deliver(courier.last)

    moments = {datetime.fromisoformat(message.headers["expires"]) for message in courier.messages}
    assert len(moments) == 1
    assert moments.pop() < datetime.now(UTC) + timedelta(seconds=61)


# --- when the broker is away ----------------------------------------------------------------------------


@pytest.fixture
def broken(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let so many publications fail."""
    send = app.amqp.send_task_message

    def begin(times: int, error: Exception | None = None) -> None:
        numbers = itertools.count()

        def send_or_fail(*args: Any, **options: Any) -> Any:
            if next(numbers) < times:
                raise error or OperationalError("the broker is away")
            return send(*args, **options)

        monkeypatch.setattr(app.amqp, "send_task_message", send_or_fail)

    return begin


def test_late_acked_is_handed_back(
    count: Any, courier: Courier, broken: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The message would be lost, or come back hundreds of times a second."""
    count.acks_late = True
    count.delay()
    broken(99)

    outcome = courier.deliver(courier.last)

    assert isinstance(outcome.value, Reject)
    assert outcome.value.requeue
    assert clock.slept == [5.0]
    assert "handing it back to the broker" in caplog.text
    assert len(courier.messages) == 1


def test_early_acked_is_tried_until_it_is_out(
    count: Any, courier: Courier, broken: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The task exists nowhere else any more: it would be lost."""
    count.delay()
    broken(6)

    assert courier.deliver(courier.last).state == "RETRY"

    assert clock.slept == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == 6
    assert len(courier.messages) == 2
    assert courier.last.headers[CONFLICT.count] == 1


def test_early_acked_is_logged_whole_when_the_process_ends(
    count: Any, courier: Courier, broken: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody would know what was lost with a worker that was shut down during an outage."""

    def end(_: float) -> None:
        raise SystemExit(0)

    count.delay(n=4711)
    broken(99)
    clock.sleep = end  # type: ignore[method-assign]

    with pytest.raises(SystemExit):
        courier.deliver(courier.last)

    (lost,) = [one for one in caplog.records if one.levelno == logging.CRITICAL]
    assert "count" in lost.getMessage()
    assert "4711" in lost.getMessage()


@pytest.mark.parametrize("late", [True, False])
def test_what_can_never_be_published_fails(
    count: Any, courier: Courier, broken: Any, clock: Clock, late: bool
) -> None:
    """A message that no broker would take, broken as it is, would be tried for ever."""
    count.acks_late = late
    count.delay()
    broken(99, EncodeError("not serialisable"))

    outcome = courier.deliver(courier.last)

    assert outcome.state == "FAILURE"
    assert clock.slept == []


# --- to the right queue ---------------------------------------------------------------------------------


@pytest.fixture
def topics(app: Celery) -> Celery:
    """An app whose queues hang on a topic exchange, as quorum queues must to be delayed."""
    tests = Exchange("tests", type="topic")
    app.conf.update(
        task_queues=[Queue(name, tests, routing_key=f"to.{name}") for name in ("default", "other")],
        task_default_queue="default",
        task_default_exchange="tests",
        task_default_exchange_type="topic",
        task_default_routing_key="to.default",
    )
    return app


@pytest.mark.parametrize("queue", ["default", "other"])
def test_stays_in_its_queue_of_a_topic_exchange(
    topics: Celery, count: Any, courier: Courier, queue: str
) -> None:
    """A postponed task would move to the default queue, whose workers may not know it."""
    count.apply_async(kwargs={"times": 2}, queue=queue)
    courier.deliver(courier.last)
    courier.deliver(courier.last)

    assert [(one.exchange, one.routing_key) for one in courier.messages] == [("tests", f"to.{queue}")] * 3


def test_where_in_the_policies_it_was_put_off_is_not_written_down(count: Any, courier: Courier) -> None:
    """Celery describes each frame of a traceback: half of what it costs a worker to put a task off."""
    told = []
    count.on_retry = lambda exc, task_id, args, kwargs, einfo: told.append(einfo.traceback)
    count.delay()
    courier.deliver(courier.last)
    (traceback,) = told
    assert "count is busy" in traceback
    assert "in postpone" not in traceback


def test_where_a_body_failed_that_is_tried_again_is_written_down(app: Celery, courier: Courier) -> None:
    """Nobody could tell from `on_retry` what had gone wrong."""
    told = []

    @app.task(base=RetryableTask, retry_policy=RetryPolicy(ValueError), name="frail")
    def frail() -> None:
        raise ValueError("no luck")

    frail.on_retry = lambda exc, task_id, args, kwargs, einfo: told.append(einfo.traceback)
    frail.delay()
    assert courier.deliver(courier.last).state == "RETRY"
    assert "in frail" in told[0]
    assert "ValueError: no luck" in told[0]
