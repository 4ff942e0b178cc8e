"""Why a call goes where it goes, for people: what ``TaskRouter.explain`` answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_patterns.flows.routing.priority import TaskPriority

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one rule said of the call, and why."""

    rule: str
    matched: bool
    why: str
    raised: bool = False

    def __str__(self) -> str:
        return f"{'->' if self.matched else '  '} {self.rule}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Which rule decides about a call, why, and what comes of it. ``print`` it.

    Args:
        task: The task's name.
        rule: The rule that decides: its name, ``"default"``, or ``None`` where the router says nothing.
        why: The reason, in a few words.
        considered: What each rule said, in order, down to the one that decides.
        queue: The queue that the message goes to.
        priority: What its priority means; a number where the caller or the rule gave a number.
        options: What it is published with: the route, and what the call says itself, which wins.
        error: What the call raises instead of being published.
    """

    task: str
    rule: str | None
    why: str
    considered: tuple[Verdict, ...]
    queue: str | None
    priority: TaskPriority | int | None
    options: Mapping[str, Any]
    error: Exception | None = None

    def __str__(self) -> str:
        lines = [f"{self.task}: {self.rule or 'no rule'}, because {self.why}", *map(str, self.considered)]
        result = f"=> {self._result()}" if self.error is None else f"=> fails: {self.error}"
        return "\n".join((*lines, result))

    def _result(self) -> str:
        others = {name: value for name, value in self.options.items() if name not in {"queue", "priority"}}
        said = [f"queue {self.queue}"]
        if self.priority is not None:
            meaning = f" ({self.priority.name})" if isinstance(self.priority, TaskPriority) else ""
            said.append(f"priority {self.options['priority']}{meaning}")
        return ", ".join((*said, *(f"{name} {value!r}" for name, value in others.items())))
