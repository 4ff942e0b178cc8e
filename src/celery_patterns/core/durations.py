"""Durations and sizes, checked and turned into one unit where they are declared."""

from __future__ import annotations

from datetime import timedelta

from celery_patterns.errors import PolicyError

Seconds = float | timedelta

LONGEST = 100 * 365 * 86_400.0
"""The longest duration that is taken, in seconds: far below what Redis can count in milliseconds."""


def seconds(name: str, value: object, *, least: float = 0.001) -> float:
    """A duration in seconds.

    Args:
        name: The option's name, for the message.
        value: Seconds, or a ``timedelta``.
        least: The shortest that makes sense.

    Raises:
        PolicyError: It is neither, or shorter.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PolicyError(f"{name}={value!r}: give seconds, or a timedelta")
    if not least <= value <= LONGEST:
        raise PolicyError(f"{name}={value!r}: give at least {least:g} seconds, and at most 100 years")
    return value


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        PolicyError: Naming them.
    """
    if value not in choices:
        raise PolicyError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}")
