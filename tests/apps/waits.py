"""Tasks that are put off, and write down what each delivery carries."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from celery import Task
from kombu import Exchange, Queue
from typing_extensions import override

from celery_patterns import Call, Event, Policy, PolicyTask, subscribe
from celery_patterns.core import postpone as postponing
from celery_patterns.core.policy import NONCE_HEADER
from celery_patterns.core.postpone import deferrals, postpone
from celery_patterns.errors import Refused
from tests.apps.witness import note
from tests.ground.app import ground_app

app = ground_app(__name__)
IN_WORKER = "WAITS_IN_WORKER" in os.environ
if IN_WORKER:
    postponing._LONGEST_PAUSE = 0.5  # a test waits for an outage of a second, not of a minute

if app.conf.get("ground_topic"):
    arguments = {"x-queue-type": "quorum"} if app.conf.ground_topic == "quorum" else {}
    exchange = Exchange("tests", type="topic")
    app.conf.update(
        task_queues=[
            Queue(name, exchange, routing_key=f"to.{name}", queue_arguments=arguments)
            for name in ("celery", "other")
        ],
        task_default_exchange="tests",
        task_default_exchange_type="topic",
        task_default_routing_key="to.celery",
    )

KEPT = (
    "args",
    "callbacks",
    "chain",
    "chord",
    "errbacks",
    "expires",
    "group",
    "group_index",
    "ignore_result",
    "origin",
    "parent_id",
    "replaced_task_nesting",
    "reply_to",
    "retries",
    "root_id",
    "shadow",
    "stamped_headers",
    "stamps",
    "task",
    "time_limit",
    "timelimit",
    "utc",
)
"""What a delivery brings that the next one must bring as well."""


def _happened(event: Event) -> None:
    note("event", what=event.kind, id=event.task_id, policy=event.policy, key=event.key, **event.detail)


if IN_WORKER:
    subscribe(_happened)


def carried(call: Call) -> dict[str, Any]:
    """What a delivery brings, in JSON's types."""
    request = call.request
    brought = {name: getattr(request, name, None) for name in KEPT}
    brought["headers"] = dict(call.headers)
    brought["kwargs"] = dict(call.kwargs)
    brought["priority"] = (request.delivery_info or {}).get("priority")
    return cast(
        "dict[str, Any]", json.loads(json.dumps(brought, default=str))
    )  # chains are taken apart in place


@dataclass(frozen=True)
class PutOff(Policy):
    """Puts each call off as often as its arguments say."""

    kind: ClassVar[str] = "put_off"
    order: ClassVar[int] = 60

    @override
    def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
        note(
            "delivered",
            id=call.id,
            nonce=getattr(call.request, NONCE_HEADER),
            deferrals=deferrals(call),
            routing_key=(call.request.delivery_info or {}).get("routing_key"),
            carried=carried(call),
        )
        times, delay = call.arguments["times"], call.arguments["delay"]
        if deferrals(call) < times:
            postpone(call, delay, Refused(f"{call.name} is busy", delay), policy=self.kind, key="some-key")
        return proceed(call)

    @override
    def failed(self, call: Call, error: BaseException) -> None:
        note("failed", id=call.id, error=type(error).__name__)


class WaitingTask(PolicyTask):
    """A task that is put off."""

    abstract = True
    put_off = PutOff()


@app.task(bind=True, base=WaitingTask)
def count(self: Task, n: Any = 0, *, times: int = 1, delay: float = 0.05) -> Any:
    """Wait, acknowledged early, then count."""
    note("body", id=self.request.id)
    return n + 1 if isinstance(n, int) else sorted(n)


@app.task(bind=True, base=WaitingTask, acks_late=True)
def count_late(self: Task, n: Any = 0, *, times: int = 1, delay: float = 0.05) -> Any:
    """The same, acknowledged late."""
    note("body", id=self.request.id)
    return n + 1


@app.task(bind=True, base=WaitingTask)
def fail(self: Task, *, times: int = 1, delay: float = 0.05) -> None:
    """Wait, then fail."""
    note("body", id=self.request.id)
    raise ValueError("after all")


@app.task(bind=True, base=WaitingTask, max_retries=2, default_retry_delay=0)
def flaky(self: Task, retries: int, *, times: int = 1, delay: float = 0.05) -> int:
    """Wait, then be retried so often."""
    note("body", id=self.request.id, retries=self.request.retries)
    if self.request.retries < retries:
        raise self.retry(countdown=0)
    return self.request.retries


@dataclass(frozen=True)
class PutOffBetween(PutOff):
    """Puts each attempt off once more than the one before."""

    kind: ClassVar[str] = "put_off_between"

    @override
    def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
        retries = call.request.retries
        note("delivered", id=call.id, deferrals=deferrals(call), retries=retries)
        if deferrals(call) <= retries:
            postpone(call, 0.05, Refused("busy", 0.05), policy=self.kind)
        return proceed(call)


@app.task(bind=True, base=PolicyTask, put_off=PutOffBetween(), max_retries=2, default_retry_delay=0)
def flaky_and_put_off(self: Task) -> int:
    """Be put off and retried in turns."""
    note("body", id=self.request.id, retries=self.request.retries)
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(bind=True)
def linked(self: Task, *args: Any) -> list[Any]:
    """What links, chains and chords lead to."""
    note("linked", id=self.request.id, parent=self.request.parent_id, root=self.request.root_id, got=args)
    return list(args)
