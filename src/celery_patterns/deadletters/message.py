"""The message of a task: taken before its body runs, kept byte for byte, and published again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kombu.serialization import (  # type: ignore[attr-defined]
    dumps,
    loads,
    prepare_accept_content,
    registry,
)

from celery_patterns.core.parking import HOME_HEADER
from celery_patterns.core.policy import CONTENT_HEADER
from celery_patterns.core.republish import is_of_one_delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery
    from celery.app.task import Context

_HEADERS = (
    "lang",
    "task",
    "id",
    "shadow",
    "eta",
    "expires",
    "group",
    "group_index",
    "retries",
    "timelimit",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
)
"""The headers of Celery's message protocol 2."""

_DELAYED = "celery_delayed"
_DELAY_LEVELS = 28
"""What RabbitMQ's native delays put before a routing key: one bit each, and a dot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One task message.

    Args:
        body: As it was written by the serializer.
        content_type: Which serializer that was.
        content_encoding: In which encoding.
        headers: All of them, without those that are about one delivery.
        exchange: Where it was published.
        routing_key: With which key; without an exchange it is the queue's name.
        priority: Its priority, if it had one.
        reply_to: Where results go with the RPC backend.
    """

    body: bytes
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    exchange: str = ""
    routing_key: str = ""
    priority: int | None = None
    reply_to: str | None = None

    @classmethod
    def of_request(cls, app: Celery, task: Any, request: Context, args: Any, kwargs: Any) -> Message:
        """The message of a running or reported request. Its body is written anew, as it was written first."""
        known = vars(request)
        headers = {name: known[name] for name in _HEADERS if name in known}
        headers |= {"task": task.name, "id": request.id, "retries": request.retries or 0}
        custom = request.headers or {}
        headers |= {name: value for name, value in custom.items() if not is_of_one_delivery(name)}
        embed = {
            "callbacks": request.callbacks,
            "errbacks": request.errbacks,
            "chain": request.chain,
            "chord": request.chord,
        }
        content_type, encoding, body = dumps(
            (args, kwargs, embed), serializer=_serializer(app, task, known.get(CONTENT_HEADER))
        )
        delivery = request.delivery_info or {}
        return cls(
            body=body.encode(encoding) if isinstance(body, str) else body,
            content_type=content_type,
            content_encoding=encoding,
            headers=headers,
            **_home(delivery.get("exchange"), delivery.get("routing_key")),
            priority=delivery.get("priority"),
            reply_to=request.reply_to,
        )

    @classmethod
    def of_delivery(cls, message: Any) -> Message:
        """A message as the broker delivered it."""
        body = message.body
        delivery, properties = message.delivery_info or {}, message.properties or {}
        headers = dict(message.headers) if isinstance(message.headers, dict) else {}
        return cls(
            body=body.encode() if isinstance(body, str) else bytes(body),
            content_type=message.content_type or "application/data",
            content_encoding=message.content_encoding or "binary",
            headers={
                name: value
                for name, value in headers.items()
                if name != "compression" and not is_of_one_delivery(name)
            },
            **_home(*_meant_for(headers, delivery)),
            priority=properties.get("priority"),
            reply_to=properties.get("reply_to"),
        )

    def decoded(self, app: Celery) -> tuple[list[Any], dict[str, Any], dict[str, Any]] | None:
        """Arguments, keyword arguments and what is attached; ``None`` for what the app does not accept."""
        accept = prepare_accept_content(app.conf.accept_content)
        try:
            args, kwargs, embed = loads(self.body, self.content_type, self.content_encoding, accept=accept)
        except Exception:  # noqa: BLE001 - a body may be anything; that is why it may be here
            return None
        return list(args), dict(kwargs), dict(embed or {})

    def with_arguments(self, args: list[Any], kwargs: Mapping[str, Any], embed: Mapping[str, Any]) -> Message:
        """The same message with other arguments, written by the same serializer.

        Raises:
            kombu.exceptions.EncodeError: The serializer cannot carry them.
        """
        content_type, encoding, body = dumps(
            (args, dict(kwargs), dict(embed)), serializer=registry.type_to_name[self.content_type]
        )
        return replace(
            self,
            body=body.encode(encoding) if isinstance(body, str) else body,
            content_type=content_type,
            content_encoding=encoding,
            headers={**self.headers, "argsrepr": repr(args), "kwargsrepr": repr(dict(kwargs))},
        )


def _serializer(app: Celery, task: Any, content_type: str | None) -> str:
    name = registry.type_to_name.get(content_type)
    return str(name or task.serializer or app.conf.task_serializer)


def _meant_for(headers: Mapping[str, Any], delivery: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Exchange and routing key: those that a release from the waiting room names, or of the delivery."""
    home = headers.get(HOME_HEADER)
    if home:
        exchange, _, routing_key = str(home).partition("\n")
        return exchange, routing_key
    return delivery.get("exchange"), delivery.get("routing_key")


def _home(exchange: str | None, routing_key: str | None) -> dict[str, str]:
    """Where a message belongs, also when it has come through RabbitMQ's delays."""
    parts = (routing_key or "").split(".", _DELAY_LEVELS)
    if (exchange or "").startswith(_DELAYED) and len(parts) > _DELAY_LEVELS:
        return {"exchange": "", "routing_key": parts[-1]}
    return {"exchange": exchange or "", "routing_key": routing_key or ""}
