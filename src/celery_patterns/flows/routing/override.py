"""Routers in the classic style: a subclass that overrides ``route_for_task(task, args, kwargs)``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.exceptions import SoftTimeLimitExceeded

from celery_patterns.errors import RuleError, UnroutableQueue
from celery_patterns.flows.routing.decision import Decision
from celery_patterns.flows.routing.rule import check_options, check_priority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_patterns.flows.routing.routed_call import RoutedCall
    from celery_patterns.flows.routing.router import TaskRouter
    from celery_patterns.flows.routing.rule_table import Failed


class Asked(NamedTuple):
    """What an override is being asked about, which its arguments do not tell."""

    call: RoutedCall
    failed: Failed


_asked: ContextVar[Asked | None] = ContextVar("celery_patterns_asked", default=None)


def asked_now() -> Asked | None:
    """What is being asked; ``None`` where somebody calls ``route_for_task`` from outside."""
    return _asked.get()


def answering_whole(override: Callable[..., Any]) -> Callable[..., Any]:
    """An override that gives its own word to its router alone, and the router's to everybody else."""

    @functools.wraps(override)
    def route_for_task(
        self: TaskRouter,
        task: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.route(task, args, kwargs) if _asked.get() is None else override(self, task, args, kwargs)

    return route_for_task


def ask_override(router: TaskRouter, call: RoutedCall, failed: Failed) -> Decision | None:
    """What the override says; ``None`` if it leaves the call to the table.

    One that raises, or says what Celery would not take, is reported to ``failed``, and the default decides.
    """
    source = f"{type(router).__name__}.route_for_task"
    token = _asked.set(Asked(call, failed))
    try:
        return _decision_from(router.route_for_task(call.name, call.args, call.kwargs), source)
    except (SoftTimeLimitExceeded, UnroutableQueue):
        raise
    except Exception as error:  # noqa: BLE001 - a user's method must not lose a task; it is reported
        failed(source, call, error)
        return router.table.default
    finally:
        _asked.reset(token)


def _decision_from(said: object, source: str) -> Decision | None:
    if not said:
        return None
    if isinstance(said, str):
        return Decision(source, {"queue": said}, None)
    if not isinstance(said, Mapping):
        raise RuleError(f"{source} returned {said!r}; return a dict of options, a queue's name, or None")
    check_options(said, source)
    route = dict(said)
    priority = route.pop("priority", None)
    check_priority(priority)
    return Decision(source, route, priority)
