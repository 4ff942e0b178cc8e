"""Answers that are the same for every plain call of a task, kept so that publishing costs next to nothing.

A router is asked for each message. Celery's own dict tries its globs one by one; here the second call of a
task is one look-up and a copy, unless a rule asks for more than the task's name, or the call says something
about where it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_patterns.flows.routing.routed_call import RoutedCall

_KEPT: Final = 10_000


class ReadyAnswer(NamedTuple):
    """What is answered to the plain calls of one task, on the broker for which it was found."""

    task: Any
    producers: Any
    route: dict[str, Any] | None


class ReadyAnswers:
    """The answers of one router, by task name."""

    __slots__ = ("_answers",)

    def __init__(self) -> None:
        self._answers: dict[str, ReadyAnswer] = {}

    def find(self, name: str, task: Any, options: Mapping[str, Any]) -> ReadyAnswer | None:
        """The answer to a call, if it is known without a closer look.

        It was found for one task object, and so for one app. It holds as long as the app keeps its pool of
        producers: a new pool may mean another broker, and other numbers.
        """
        found = self._answers.get(name)
        if found is None:
            return None
        known_task, producers, _ = found
        if known_task is not task or task._app.amqp._producer_pool is not producers:  # noqa: SLF001 - see _producers
            return None
        said = options.get
        if (
            said("queue")
            or said("headers")
            or said("exchange")
            or said("urgent")
            or said("priority") is not None
        ):
            return None
        return found

    def keep(self, call: RoutedCall, route: dict[str, Any] | None) -> None:
        """Remember the answer to a plain call, which is the same for all of them."""
        if call.task is None or any(isinstance(value, dict | list) for value in (route or {}).values()):
            return
        if len(self._answers) >= _KEPT:  # names that somebody makes up as they go
            self._answers.clear()
        kept = None if route is None else route.copy()
        self._answers[call.name] = ReadyAnswer(call.task, _producers(call.task), kept)


def is_plain(options: Mapping[str, Any]) -> bool:
    """Whether a call says nothing that a router has to respect, besides its name."""
    return (
        not any(map(options.get, ("queue", "headers", "exchange", "urgent")))
        and options.get("priority") is None
    )


def _producers(task: Any) -> Any:
    # The public ways to the same object cost more than all the rest of a look-up.
    return task._app.amqp._producer_pool  # noqa: SLF001
