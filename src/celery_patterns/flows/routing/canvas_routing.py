"""One queue and one priority for a whole canvas, its nested steps included."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.canvas import Signature, chunks, maybe_signature, xmap, xstarmap
from celery.utils.functional import maybe_list

from celery_patterns.errors import RuleError
from celery_patterns.flows.routing.decision import number_of
from celery_patterns.flows.routing.priority import TaskPriority
from celery_patterns.flows.routing.routed_call import PRIORITY_HEADER
from celery_patterns.flows.routing.rule import check_priority

if TYPE_CHECKING:
    from celery import Celery

_SIGNATURE_OPTIONS = ("link", "link_error", "chord", "chain")
"""Options that hold further steps: callbacks, and what ``freeze`` has attached."""


def route_canvas(
    signature: Signature[Any],
    *,
    queue: str | None = None,
    priority: TaskPriority | int | None = None,
    app: Celery | None = None,
) -> Signature[Any]:
    """Set the queue, the priority, or both on every task of a canvas.

    ``chain.set(queue=...)`` reaches the first step only, and ``chord.set`` leaves the steps of a body that is
    a chain alone. This reaches the members of groups and chains at any depth, headers and bodies of chords,
    callbacks and errbacks, ``map`` and ``chunks``, and generators without consuming them. It is explicit, so
    it wins over rules, and each step carries it in its message.

    Like ``set``, it changes the canvas and returns it. But ``chunks`` (and maps, in older Celerys) drop
    their options when they are published, so they become the tasks that they stand for: use what is returned.
    The number that a
    :class:`TaskPriority` means is settled here, since later steps may be published by workers that do not
    know this library; meanings that steps were given by ``set(priority=TaskPriority.LOW)`` are settled too.

    Args:
        signature: The canvas.
        queue: Where to.
        priority: How soon.
        app: The app whose broker will carry the canvas; by default the signature's own.

    Raises:
        RuleError: The queue is no name, or the priority no priority.

    Example:
        ``route_canvas(chain(fetch.s(url), group(parse.s(), index.s())), queue="bulk").delay()``
    """
    if queue is not None and (not isinstance(queue, str) or not queue):
        raise RuleError(f"queue={queue!r}: write the queue's name")
    check_priority(priority)
    routed: Signature[Any] = _Routing(queue, priority, app or signature.app).visit(signature)
    return routed


@dataclass(frozen=True, slots=True)
class _Routing:
    queue: str | None
    priority: TaskPriority | int | None
    app: Celery

    def visit(self, step: Any) -> Any:
        """The step, routed, with everything in it. Steps that came out of JSON are plain dicts."""
        signature: Any = maybe_signature(step)
        if isinstance(signature, chunks):
            signature = signature.group()
        elif isinstance(signature, xmap | xstarmap):
            signature = _plain(signature)
        self._set_options(signature)
        kind, inside = signature.subtask_type, signature.kwargs
        if kind in {"group", "chain"}:
            inside["tasks"] = self._visit_all(inside["tasks"])
        elif kind in {"chord", "partial_chord"}:
            header = inside["header"]
            inside["header"] = self.visit(header) if isinstance(header, dict) else self._visit_all(header)
            inside["body"] = None if inside["body"] is None else self.visit(inside["body"])
        return signature

    def _visit_all(self, steps: Any) -> Any:
        if hasattr(steps, "map"):  # Celery's list of what a generator has yet to yield
            steps.map(self.visit)
            return steps
        if isinstance(steps, MutableSequence):
            steps[:] = [self.visit(step) for step in steps]
            return steps
        return [self.visit(step) for step in steps]

    def _set_options(self, signature: Any) -> None:
        options = signature.options
        level = options.get("priority") if self.priority is None else self.priority
        for name in _SIGNATURE_OPTIONS:
            if options.get(name):
                steps = [self.visit(step) for step in maybe_list(options[name])]
                options[name] = steps if isinstance(options[name], MutableSequence) else steps[0]
        if self.queue is not None:
            for name in ("exchange", "exchange_type", "routing_key"):
                options.pop(name, None)
            options["queue"] = self.queue
        if level is None:
            return
        options["priority"] = number_of(level, self.app, options.get("queue"))
        if signature.subtask_type is None:
            # Where a chord is a step of a chain, Celery publishes its body with priority=None. The header is
            # for the router of the worker that does. Not on groups and chords: theirs replace their members'.
            said = level.name if isinstance(level, TaskPriority) else level
            options["headers"] = {**(options.get("headers") or {}), PRIORITY_HEADER: said}


def _plain(mapped: Any) -> Any:
    """The task that a map is when it is published, with options of its own.

    Rules still see it by the name of the task that it maps over.
    """
    task, items = mapped.kwargs["task"], list(mapped.kwargs["it"])
    options = {"route_name": task["task"], **mapped.options}
    return Signature(mapped.task, (), {"task": task, "it": items}, options, immutable=True, app=mapped._app)  # noqa: SLF001
