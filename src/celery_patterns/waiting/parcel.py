"""What waits in the room: one message, verbatim, and a producer that captures it on its way out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kombu import Exchange, Producer
from kombu.compression import compress
from kombu.serialization import dumps
from kombu.utils import json

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One message as it would have been published.

    Args:
        body: As the serializer wrote it.
        content_type: Which serializer that was.
        content_encoding: In which encoding.
        headers: All of them.
        properties: All of them: correlation id, priority, ``reply_to``, delivery mode...
        exchange: Where to.
        routing_key: With which key; without an exchange it is the queue's name.
    """

    body: bytes
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    properties: dict[str, Any] = field(default_factory=dict)
    exchange: str = ""
    routing_key: str = ""

    @classmethod
    def of_publication(cls, body: Any, options: dict[str, Any], serializer: str | None) -> Parcel:
        """What a producer was asked to publish.

        Args:
            body: The arguments of a task and what belongs to them.
            options: What ``Producer.publish`` was given.
            serializer: The producer's own.
        """
        more = {name: value for name, value in options.items() if name not in _ABOUT_PUBLISHING}
        headers = dict(more.pop("headers", None) or {})
        content_type, encoding, text = dumps(body, serializer=more.pop("serializer", None) or serializer)
        raw: bytes = text.encode(encoding) if isinstance(text, str) else text
        compression = more.pop("compression", None)
        if compression:
            raw, headers["compression"] = compress(raw, compression)
        exchange = more.pop("exchange", None)
        mode = more.pop("delivery_mode", None)
        if isinstance(exchange, Exchange):
            mode, exchange = mode or exchange.delivery_mode, exchange.name
        return cls(
            body=raw,
            content_type=content_type,
            content_encoding=encoding,
            headers=headers,
            exchange=exchange or "",
            routing_key=more.pop("routing_key", None) or "",
            properties={name: value for name, value in more.items() if value is not None}
            | ({"delivery_mode": mode} if mode else {}),
        )

    def head(self) -> str:
        """All but the body, as text."""
        return str(
            json.dumps(
                [
                    self.content_type,
                    self.content_encoding,
                    self.headers,
                    self.properties,
                    self.exchange,
                    self.routing_key,
                ]
            )
        )

    @classmethod
    def of_stored(cls, head: bytes, body: bytes) -> Parcel:
        """A parcel from what was stored of it."""
        content_type, encoding, headers, properties, exchange, routing_key = json.loads(head)
        return cls(
            body=body,
            content_type=content_type,
            content_encoding=encoding,
            headers=headers,
            properties=properties,
            exchange=exchange,
            routing_key=routing_key,
        )


_ABOUT_PUBLISHING = {
    "retry",
    "retry_policy",
    "declare",
    "timeout",
    "confirm_timeout",
    "mandatory",
    "immediate",
}
"""How to publish, which is the pump's affair."""


class CapturingProducer(Producer):
    """A producer that hands the message of a task over instead of sending it.

    Celery sends more than that by the same producer (``task-sent`` events): only the first message is
    captured, and what follows is sent.

    Args:
        connection: What to send the rest by; opened when it is needed.
        capture: Called with the body and the options of ``publish``; its result is that of ``publish``.
    """

    def __init__(self, connection: Any, capture: Callable[[Any, dict[str, Any]], Any]) -> None:
        super().__init__(connection, auto_declare=False)
        self._capture: Callable[[Any, dict[str, Any]], Any] | None = capture

    def publish(self, body: Any, *args: Any, **options: Any) -> Any:
        """Capture the first message; send any other."""
        capture, self._capture = self._capture, None
        if capture is None:
            return super().publish(body, *args, **options)
        return capture(body, options)
