"""Makes Redis brokers deliver unacknowledged messages again within seconds."""

from typing import Any

from kombu.transport import redis

_EVERY = 1


def transport_options(visibility_timeout: float) -> dict[str, Any]:
    """Return `broker_transport_options` under which a lost message comes again soon after the timeout.

    By default the sweep that restores messages runs once in 100 s, whatever the timeout, and a worker
    killed in the middle of it blocks it for 5 minutes.
    """
    return {
        "visibility_timeout": visibility_timeout,
        "unacked_restore_interval": _EVERY,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 2,
    }


def hasten() -> None:
    """Make this process sweep as often on a kombu that has no options for it (before 5.7)."""
    if hasattr(redis.Channel, "unacked_restore_interval") or getattr(redis.QoS, "hastened", False):
        return
    restore = redis.QoS.restore_visible
    register = redis.Transport.register_with_event_loop

    def restore_visible(self: redis.QoS, start: int = 0, num: int = 10, interval: int = 1) -> None:
        restore(self, start, num, interval)

    def register_with_event_loop(self: redis.Transport, connection: Any, loop: Any) -> None:
        register(self, connection, loop)
        loop.call_repeatedly(_EVERY, self.cycle.maybe_restore_messages)

    redis.QoS.restore_visible = restore_visible
    redis.QoS.hastened = True
    redis.Transport.register_with_event_loop = register_with_event_loop
