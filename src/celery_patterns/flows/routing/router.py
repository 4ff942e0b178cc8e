"""The router as Celery sees it: asked at each publication, it answers with a fresh dict of options."""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING, Any, ClassVar

from kombu.utils.functional import lazy

from celery_patterns.errors import RuleError
from celery_patterns.flows.routing.decision import NOTHING, Decision, route_for, settle_options
from celery_patterns.flows.routing.of_arguments import OfArguments
from celery_patterns.flows.routing.override import answering_whole, ask_override, asked_now
from celery_patterns.flows.routing.priority import TaskPriority
from celery_patterns.flows.routing.ready import ReadyAnswers, is_plain
from celery_patterns.flows.routing.routed_call import RoutedCall
from celery_patterns.flows.routing.router_apps import app_of, router_behind
from celery_patterns.flows.routing.rule_failures import RuleFailures
from celery_patterns.flows.routing.rule_table import UNSET, Failed, Route, Routes, RuleTable, rules_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from celery import Celery
    from celery.app.task import Task
    from kombu import Queue

    from celery_patterns.flows.routing.explanation import Explanation
    from celery_patterns.flows.routing.rule import Rule


class TaskRouter(lazy):
    """Routes tasks by rules: ``app.conf.task_routes = [TaskRouter([Rule(...), ...])]``.

    The first rule that matches decides; what a caller or a task's attributes say explicitly wins over it, and
    a retry goes where its first attempt went. A rule that raises is logged with its name, counted in
    :attr:`failures`, told as a ``rule_failed`` event, and the default decides: a router never loses a task.

    Once a rule or the default speaks of a :class:`TaskPriority`, every call gets one: NORMAL where nobody
    says. The router then answers for every task, so put it last in ``task_routes``, or give ``default=None``.

    Use it where Celery's own dict is not enough: for rules by arguments, tier, urgency or header, for
    priorities on more than one kind of broker, or for a table that can be explained and checked. Give
    ``task_routes`` the instance, or the path of an instance. From the path of a class Celery makes a
    router that sees no options, so that rules by header or by the option ``urgent`` never match.

    Args:
        rules: Rules, in order. A dict in the form of Celery's ``task_routes`` will do: as there, its exact
            names come before its patterns.
        default: Where calls go that match no rule: a queue's name, a dict of options, or a :class:`Rule`
            that asks nothing. Left out: Celery's default queue, with priority NORMAL if any rule speaks of
            priorities. ``None``: no answer, and Celery asks its next router.
        tiers: The tiers that there are, with the priority that :func:`submit_with_priority` gives each. Rules
            that name another tier then fail when declared.
        tier_of: A function of the task's arguments by name, which tells the tier of a call that carries no
            ``cp-tier`` header.

    Raises:
        RuleError: Something in the table is wrong; raised when it is declared.

    Example:
        >>> router = TaskRouter(
        ...     [
        ...         Rule("proj.charge", when=lambda amount: amount > 1000, priority=TaskPriority.HIGH),
        ...         Rule("proj.reports.*", queue="reports", priority=TaskPriority.BULK),
        ...     ]
        ... )

    See Also:
        :func:`task_queues_for`, which declares the queues that a router names.
    """

    ROUTES: ClassVar[Routes] = ()
    """A table for subclasses, asked after the rules that the instance was given."""

    def __init__(
        self,
        rules: Routes = (),
        *,
        default: Route | object | None = UNSET,
        tiers: Mapping[str, TaskPriority] | None = None,
        tier_of: Any = None,
    ) -> None:
        # Celery asks an object with `route_for_task` in the style of 3.x, without options or task. Being
        # `lazy`, the router is evaluated first: Celery gets `route`, and the method stays for subclasses.
        super().__init__(self.route)
        self.tiers = None if tiers is None else dict(tiers)
        self.tier_of = None if tier_of is None else OfArguments(tier_of, "tier_of")
        self.table = RuleTable((*rules_of(rules), *rules_of(self.ROUTES)), default)
        self._ready = ReadyAnswers()
        self.failures = RuleFailures()
        """How often each rule has raised in this process, by its name."""
        self.is_overridden = type(self).route_for_task is not TaskRouter.route_for_task
        _check_tiers(self.tiers, self.table.rules)

    @property
    def answers_all(self) -> bool:
        """Whether Celery never gets to ask a router after this one."""
        return self.table.default is not NOTHING

    @property
    def queues(self) -> tuple[str | Queue, ...]:
        """The queues that the rules and the default name, in the order of the table."""
        named = (*(rule.queue for rule in self.table.rules), self.table.default.route.get("queue"))
        return tuple(queue for queue in named if queue is not None)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        override = vars(cls).get("route_for_task")
        if override is not None:
            cls.route_for_task = answering_whole(override)  # type: ignore[method-assign]

    def __call__(
        self,
        name: str | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        task: Task[Any, Any] | None = None,
    ) -> Any:
        """Route a call. Without a name be evaluated, as Celery does with what a path in its setting names."""
        return self.route if name is None else self.route(name, args, kwargs, options, task)

    def evaluate(self) -> Any:
        """What Celery asks at each publication."""
        return self.route

    def route(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        task: Task[Any, Any] | None = None,
    ) -> dict[str, Any] | None:
        """The options for a call, or ``None`` if the router has no opinion.

        Raises:
            UnroutableQueue: A rule names a queue that is not declared and that Celery may not make.
        """
        options = {} if options is None else options
        ready = self._ready.find(name, task, options)
        if ready is not None:
            return ready.route and ready.route.copy()
        call = RoutedCall(app_of(self, task), name, args, kwargs, options, task=task, tier_of=self.tier_of)
        is_same_for_all = not self.is_overridden and self.table.plan(name).is_sure and is_plain(options)
        route = self._answer(self.decide(call, self.failures.tell), call)
        if is_same_for_all:
            self._ready.keep(call, route)
        return route

    def route_for_task(
        self, task: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | str | None:
        """The options for a call by name and arguments alone: the classic style, for subclasses to override.

        What an override returns is taken as a rule's word, and ``None`` or ``{}`` as none: then the table
        decides. ``super().route_for_task(task, args, kwargs)`` asks the table; it sees the options of the
        call, although they are not among the arguments. Whoever calls the method from outside, as tests do,
        gets the whole answer: what Celery would get.
        """
        asked = asked_now()
        if asked is None:
            return self.route(task, args, kwargs)
        call = asked.call.with_arguments(task, args, kwargs)
        return self._answer(self.table.decide(call, asked.failed), call)

    def explain(
        self,
        task: str | Task[Any, Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        app: Celery | None = None,
        **options: Any,
    ) -> Explanation:
        """Which rule would decide about a call, why, and with what result. Nothing is published or counted.

        Args:
            task: The task, or its name.
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
            app: The app that would publish; by default the task's, or the one that has the router.
            options: Options of ``apply_async``: ``queue``, ``headers``, ``urgent``...

        Example:
            ``print(router.explain("proj.charge", (), {"amount": 2000}))``
        """
        from celery_patterns.flows.routing.explain import (  # noqa: PLC0415 - for people, not for publishing
            call_to_explain,
            explain,
        )

        return explain(self, call_to_explain(self, task, args, kwargs, app=app, options=options))

    def decide(self, call: RoutedCall, failed: Failed) -> Decision:
        """What an override says, else what the table says; ``failed`` is told of what raises."""
        said = ask_override(self, call, failed) if self.is_overridden else None
        return said or self.table.decide(call, failed)

    def _answer(self, decision: Decision, call: RoutedCall) -> dict[str, Any] | None:
        settle_options(decision, call)
        return None if decision is NOTHING else route_for(decision, call)

    __eq__ = object.__eq__  # `lazy` would compare what it evaluates to
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.table.rules)} rules>"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        state = {**vars(self), "_ready": ReadyAnswers()}
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]


def routers_of(app: Celery) -> Iterator[TaskRouter]:
    """The TaskRouters in an app's ``task_routes``, in the order in which Celery asks them."""
    for entry in app.amqp.routes:
        router = router_behind(entry)
        if isinstance(router, TaskRouter):
            yield router


def _check_tiers(tiers: Mapping[str, TaskPriority] | None, rules: Iterable[Rule]) -> None:
    if tiers is None:
        return
    if not all(isinstance(level, TaskPriority) for level in tiers.values()):
        raise RuleError(f"tiers={tiers!r}: give each tier a TaskPriority")
    for rule in rules:
        unknown = sorted(rule.tiers - tiers.keys())
        if unknown:
            raise RuleError(f"{rule.name!r}: no tier {unknown[0]!r} among tiers={sorted(tiers)}")
