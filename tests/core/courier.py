"""Carries messages from where they are published to the task, as a broker and a worker would."""

import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from celery import Celery, signals
from celery.app.trace import build_tracer


@dataclass(frozen=True, slots=True)
class Message:
    """A published message of a task."""

    headers: dict[str, Any]
    body: Any
    exchange: str
    routing_key: str
    properties: dict[str, Any]

    @property
    def id(self) -> str:
        """The task id."""
        return self.headers["id"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a delivery ended."""

    state: str
    value: Any


class Courier:
    """Collects what is published in this process, and delivers it when a test says so.

    A context manager. Nothing of it needs a broker that works: messages are taken before they are sent.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.messages: list[Message] = []

    def __enter__(self) -> Self:
        signals.before_task_publish.connect(self._collect)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signals.before_task_publish.disconnect(self._collect)

    @property
    def last(self) -> Message:
        """The message that was published last."""
        return self.messages[-1]

    def deliver(self, message: Message, *, redelivered: bool = False, **headers: Any) -> Outcome:
        """Run the task as a worker would; ``headers`` are what brokers add to those of the message."""
        args, kwargs, embed = json.loads(json.dumps(message.body))
        delivery_info = {
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "priority": message.properties.get("priority"),
            "redelivered": redelivered,
        }
        request = json.loads(json.dumps({**message.headers, **headers}))
        request |= {"args": args, "kwargs": kwargs, "delivery_info": delivery_info, "is_eager": False}
        request |= {"properties": message.properties, "reply_to": message.properties.get("reply_to")}
        task = self.app.tasks[message.headers["task"]]
        answer = build_tracer(task.name, task, app=self.app)(message.id, args, kwargs, {**request, **embed})
        if answer.info is None:
            return Outcome("SUCCESS", answer.retval)
        return Outcome(answer.info.state, answer.info.retval)

    def _collect(
        self, headers: Any, body: Any, exchange: Any, routing_key: str, properties: Any, **_: Any
    ) -> None:
        name = getattr(exchange, "name", exchange) or ""
        self.messages.append(Message(dict(headers), body, name, routing_key, dict(properties)))
