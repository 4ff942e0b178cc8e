"""``celery -A proj patterns limits [show NAME|set NAME RATE|penalize NAME SECONDS|reset NAME]``.

NAME is a limit's name: what ``name=`` says, or else the name of its task. Changes act on all workers
at once, and stay until they are reset.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from celery_patterns.errors import PatternsError
from celery_patterns.policies.rate_limits.status import LimitStatus, survey
from celery_patterns.policies.rate_limits.steering import RateLimitManager

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery import Celery

AT_MOST = 20
"""How many keys ``show`` prints unless asked for all."""


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each limit.")
@click.pass_context
def limits(context: click.Context, as_json: bool) -> None:
    """Rate limits: list them, or look at one and steer it."""
    if context.invoked_subcommand is None:
        _print(_survey(context), as_json=as_json)


@limits.command()
@click.argument("name")
@click.option(
    "--all", "everything", is_flag=True, help=f"All keys, not only the {AT_MOST} with fewest tokens."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show(context: click.Context, name: str, everything: bool, as_json: bool) -> None:
    """Show limit NAME, by key. Exit code 1 when nobody knows it."""
    found = _known(context, name)
    if as_json:
        click.echo(json.dumps(_as_dict(found)))
        return
    _print([found], as_json=False)
    if found.tasks:
        click.echo(f"\ntasks: {', '.join(found.tasks)}")
    shown = found.buckets if everything else found.buckets[:AT_MOST]
    if shown:
        click.echo("")
        rows = [
            (one.key or "-", f"{one.tokens:.1f}", str(one.waiting), _seconds(one.penalty)) for one in shown
        ]
        _table(("key", "tokens", "waiting", "penalty"), rows)
    if len(shown) < len(found.buckets):
        click.echo(f"... and {len(found.buckets) - len(shown)} more (--all)")


@limits.command(name="set")
@click.argument("name")
@click.argument("rate")
@click.option("--burst", type=click.IntRange(min=1), help="Another burst as well.")
@click.pass_context
def set_rate(context: click.Context, name: str, rate: str, burst: int | None) -> None:
    """Give limit NAME another RATE, such as 25/s, 100/m or 5/10s."""
    _warn_of_a_typo(context, name)
    with _reporting():
        RateLimitManager(_app(context)).adjust_rate(name, rate, burst=burst)
    _print([_known(context, name)], as_json=False)


@limits.command()
@click.argument("name")
@click.argument("seconds", type=click.FloatRange(min=0))
@click.pass_context
def penalize(context: click.Context, name: str, seconds: float) -> None:
    """Let nobody pass limit NAME for SECONDS. A penalty under way is not shortened: reset it."""
    _warn_of_a_typo(context, name)
    with _reporting():
        RateLimitManager(_app(context)).penalize(name, seconds)
    click.echo(f"closed {name} for {seconds:g} s")


@limits.command()
@click.argument("name")
@click.option("--full", is_flag=True, help="Fill its buckets, too: then a whole burst may follow.")
@click.pass_context
def reset(context: click.Context, name: str, full: bool) -> None:
    """Take back what was set for limit NAME: rate, burst, penalties."""
    _warn_of_a_typo(context, name)
    manager = RateLimitManager(_app(context))
    with _reporting():
        manager.restore_defaults(name)
        if full:
            manager.refill(name)
    click.echo(f"reset {name}")


def _warn_of_a_typo(context: click.Context, name: str) -> None:
    """Say that a name may be misspelt. It may be right as well: web processes have limits, too."""
    if not _survey(context, name):
        click.echo(f"note: no task of this app declares a limit {name}, and none is in use", err=True)


def _known(context: click.Context, name: str) -> LimitStatus:
    found = _survey(context, name)
    if not found:
        raise click.ClickException(f"no task declares a limit {name}, and none is in use")
    return found[0]


def _survey(context: click.Context, name: str | None = None) -> list[LimitStatus]:
    with _reporting():
        return survey(_app(context), name)


def _print(found: list[LimitStatus], *, as_json: bool) -> None:
    if as_json:
        for one in found:
            click.echo(json.dumps(_as_dict(one)))
        return
    rows = [
        (
            one.name,
            one.rate or "-",
            f"(declared {one.declared})" if one.declared not in {None, one.rate} else "",
            str(one.burst or "-"),
            _tokens(one),
            str(len(one.buckets)),
            str(one.waiting),
            _seconds(max([one.penalty, *(bucket.penalty for bucket in one.buckets)])),
        )
        for one in found
    ]
    _table(("name", "rate", "", "burst", "tokens", "keys", "waiting", "penalty"), rows)


def _tokens(one: LimitStatus) -> str:
    """The fewest that a bucket holds; a full one is not kept, so it holds the burst."""
    fewest = min((bucket.tokens for bucket in one.buckets), default=one.burst)
    return "-" if fewest is None else f"{fewest:.1f}"


def _as_dict(one: LimitStatus) -> dict[str, Any]:
    return {**asdict(one), "waiting": one.waiting}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value else "-"


@contextmanager
def _reporting() -> Iterator[None]:
    try:
        yield
    except PatternsError as error:
        raise click.ClickException(str(error)) from error


def _app(context: click.Context) -> Celery:
    """The app that ``celery -A`` names."""
    app: Celery = context.obj.app
    return app
