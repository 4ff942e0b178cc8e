"""A call as a router sees it: before it is a message, with everything that rules may ask about."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from celery_patterns.flows.routing.parameters import parameters_of
from celery_patterns.flows.routing.priority import TaskPriority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery
    from celery.app.task import Task

    from celery_patterns.flows.routing.of_arguments import OfArguments

logger = logging.getLogger("celery_patterns")

TIER_HEADER: Final = "cp-tier"
"""The tenant's tier, as ``submit_with_priority`` sends it along."""

URGENT_HEADER: Final = "cp-urgent"
"""Present and true on a call that was published as urgent."""

PRIORITY_HEADER: Final = "cp-priority"
"""The priority of a call that is published without one: a meaning's name, or a number."""


class RoutedCall:
    """One call that is about to be published.

    Args:
        app: The app that publishes it.
        name: The task's name.
        args: Positional arguments.
        kwargs: Keyword arguments.
        options: The options of ``apply_async``, the task's own attributes among them.
        task: The task, where the app knows it.
        tier_of: How the router learns the tier of a call that carries none.
    """

    __slots__ = ("_arguments", "_tier_of", "app", "args", "kwargs", "name", "options", "task")

    def __init__(
        self,
        app: Celery,
        name: str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: dict[str, Any] | None,
        *,
        task: Task[Any, Any] | None = None,
        tier_of: OfArguments | None = None,
    ) -> None:
        self.app = app
        self.name = name
        self.args = args or ()
        self.kwargs = kwargs or {}
        self.options = {} if options is None else options
        # `send_task` of older Celerys does not look for the task that it names.
        is_made = app.finalized  # type: ignore[attr-defined]
        self.task = app.tasks.get(name) if task is None and is_made else task
        self._tier_of = tier_of
        self._arguments: Mapping[str, Any] | None = None

    def with_arguments(
        self, name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
    ) -> RoutedCall:
        """The same publication, with other arguments."""
        return RoutedCall(self.app, name, args, kwargs, self.options, task=self.task, tier_of=self._tier_of)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by name, defaults included.

        Of a task that this process does not know, only keyword arguments have names. The calls inside a
        ``starmap`` or ``chunks`` have none here: what is published is the task that makes them.
        """
        if self._arguments is None:
            self._arguments = self._bind()
        return self._arguments

    @property
    def urgent(self) -> bool:
        """Whether the call says ``urgent=True``: as an argument, as an option, or in a header."""
        if _is_yes(self.options.get("urgent")) or _is_yes(self.header(URGENT_HEADER)):
            return True
        return self.kwargs.get("urgent") is True or self.arguments.get("urgent") is True

    @property
    def tier(self) -> str | None:
        """The tenant's tier: from the header, else as the router was told to find it."""
        sent: str | None = self.header(TIER_HEADER)
        if sent is not None or self._tier_of is None or self._tier_of.missing(self.arguments):
            return sent
        found: str | None = self._tier_of(self.arguments)
        return found

    @property
    def priority(self) -> TaskPriority | int | None:
        """What the call itself says: its option, else its header; one that is none is logged and ignored."""
        said = self.options.get("priority")
        if said is not None:
            explicit: TaskPriority | int = said
            return explicit
        sent = (self.options.get("headers") or {}).get(PRIORITY_HEADER)
        if isinstance(sent, str) and sent.upper() in TaskPriority.__members__:
            return TaskPriority[sent.upper()]
        if sent is None or isinstance(sent, int):
            return sent
        logger.warning(
            "%s: the header %s=%r is no priority, and is ignored", self.name, PRIORITY_HEADER, sent
        )
        return None

    def header(self, name: str) -> Any:
        """A custom header or a stamp; ``None`` if the call has neither."""
        headers = self.options.get("headers")
        if headers and name in headers:
            return headers[name]
        return self.options.get(name) if name in (self.options.get("stamped_headers") or ()) else None

    def _bind(self) -> Mapping[str, Any]:
        if self.task is None:
            return self.kwargs
        if self.task.name != self.name:  # routed by the name of what it maps over
            return {}
        parameters = parameters_of(self.task)
        return self.kwargs if parameters is None else parameters.bind(self.args, self.kwargs)


def _is_yes(said: Any) -> bool:
    """Whether a flag is set; producers in other languages send it as text."""
    return said.strip().lower() in {"true", "yes", "1"} if isinstance(said, str) else bool(said)
