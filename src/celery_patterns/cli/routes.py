"""``celery -A proj patterns routes [TASK] [--check]``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from celery_patterns.flows.routing.decision import NOTHING, Decision, number_of
from celery_patterns.flows.routing.priority import TaskPriority
from celery_patterns.flows.routing.routed_call import TIER_HEADER, URGENT_HEADER
from celery_patterns.flows.routing.router import TaskRouter, routers_of
from celery_patterns.flows.routing.routing_check import check_routes
from celery_patterns.flows.routing.rule_names import describe_names, is_users_task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery import Celery

Row = tuple[str, ...]
_HEAD: Row = ("rule", "tasks", "asks", "queue", "priority")


class _Json(click.ParamType[Any]):
    """An argument in JSON, of one type."""

    name = "json"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the value, and say what is wrong with it."""
        try:
            read = json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)
        if not isinstance(read, self.kind):
            self.fail(f"{value!r} is no JSON {'array' if self.kind is list else 'object'}", param, ctx)
        return read


@click.command()
@click.argument("task", required=False)
@click.option(
    "--args", type=_Json(list), default="[]", help="Positional arguments of a call of TASK, as JSON."
)
@click.option(
    "--kwargs", type=_Json(dict), default="{}", help="Keyword arguments of a call of TASK, as JSON."
)
@click.option("--header", "headers", metavar="NAME=VALUE", multiple=True, help="A header of the call.")
@click.option("--tier", help="The tenant's tier, as submit_with_priority sends it.")
@click.option("--urgent", is_flag=True, help="The call is urgent.")
@click.option("--check", is_flag=True, help="Look for what is wrong; exit code 1 if anything is.")
@click.option("--offline", is_flag=True, help="With --check: do not ask workers which queues they consume.")
@click.option(
    "--timeout",
    type=float,
    default=1.0,
    show_default=True,
    help="With --check: seconds for workers to answer.",
)
@click.pass_context
def routes(
    context: click.Context,
    *,
    task: str | None,
    args: list[Any],
    kwargs: dict[str, Any],
    headers: Sequence[str],
    tier: str | None,
    urgent: bool,
    check: bool,
    offline: bool,
    timeout: float,
) -> None:
    """Show the routing table, or why a call of TASK goes where it goes.

    --check looks for rules that no call can reach, queues that are not declared or that no worker consumes,
    and tasks that no rule speaks of.
    """
    app: Celery = context.obj.app
    app.loader.import_default_modules()
    app.finalize()
    routers = list(routers_of(app))
    if not routers:
        raise click.ClickException("there is no TaskRouter in task_routes")
    if task is not None:
        sent = _headers(headers, tier, urgent=urgent)
        for router in routers:
            click.echo(str(router.explain(task, args, kwargs, app=app, headers=sent or None)))
    elif not check:
        for router in routers:
            _print_table([_HEAD, *_rows(router, app)])
    if check:
        _check(app, None if offline else _consumed(app, timeout))


def _headers(given: Sequence[str], tier: str | None, *, urgent: bool) -> dict[str, Any]:
    pairs = [one.partition("=") for one in given]
    headers: dict[str, Any] = {name: value for name, _, value in pairs}
    if tier is not None:
        headers[TIER_HEADER] = tier
    return {**headers, URGENT_HEADER: True} if urgent else headers


def _check(app: Celery, consumed: set[str] | None) -> None:
    findings = check_routes(app, consumed=consumed)
    for finding in findings:
        click.echo(str(finding))
    failed = sum(finding.fails for finding in findings)
    if failed:
        raise click.ClickException(f"{failed} of these would misroute a task or strand it")
    click.echo("the routes are sound" + (" (no worker was asked)" if consumed is None else ""))


def _consumed(app: Celery, timeout: float) -> set[str]:
    """The queues that running workers consume."""
    replies = app.control.inspect(timeout=timeout).active_queues()
    if not replies:
        raise click.ClickException(
            f"no worker answered within {timeout:g} s: start them, raise --timeout, or check --offline"
        )
    return {queue["name"] for queues in replies.values() for queue in queues}


def _rows(router: TaskRouter, app: Celery) -> Iterator[Row]:
    if router.is_overridden:
        yield (f"{type(router).__name__}.route_for_task", "*", "(code)", "?", "?")
    known = [name for name in app.tasks if is_users_task(name)]
    for rule, decision in router.table.decisions:
        about = sum(map(rule.speaks_of, known))
        asks = " and ".join(map(str, rule.conditions)) or "-"
        yield (decision.source, f"{describe_names(rule.patterns)} ({about})", asks, *_result(decision, app))
    if router.table.default is NOTHING:
        yield ("(no default)", "*", "-", "the next router's, else the default queue", "-")
    else:
        yield ("default", "*", "-", *_result(router.table.default, app))


def _result(decision: Decision, app: Celery) -> tuple[str, str]:
    queue = decision.route.get("queue") or decision.route.get("exchange") or app.conf.task_default_queue
    priority = decision.priority
    if not isinstance(priority, TaskPriority):
        return str(getattr(queue, "name", queue)), "-" if priority is None else str(priority)
    return str(getattr(queue, "name", queue)), f"{priority.name} ({number_of(priority, app, queue)})"


def _print_table(rows: Sequence[Row]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
