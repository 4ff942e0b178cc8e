"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T],
    *,
    timeout: float = 10.0,
    every: float = 0.02,
    ignoring: tuple[type[BaseException], ...] = (),
    message: str | Callable[[], str] = "",
) -> T:
    """Return the first true answer of `condition`.

    Args:
        condition: asked again and again; a false answer means "not yet".
        timeout: seconds until the wait fails.
        every: seconds between two questions.
        ignoring: exceptions of `condition` that also mean "not yet".
        message: what was waited for, or a function that tells it when the wait has failed.

    Raises:
        AssertionError: the deadline passed; it names the last answer or exception.
    """
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            answer = condition()
        except ignoring as error:
            last = error
        else:
            if answer:
                return answer
            last = answer
        if time.monotonic() >= deadline:
            told = message() if callable(message) else message
            raise AssertionError(f"not within {timeout} s: {told or condition} (last: {last!r})")
        time.sleep(every)
