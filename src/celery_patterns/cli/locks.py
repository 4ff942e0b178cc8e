"""``celery -A proj patterns locks [--task NAME]``, ``locks release KEY``, ``locks explain KEY``.

KEY is what events and error messages show: ``<name>:<key>``, for example ``shop.sync:"A-17"``, or
``<name>`` alone where a limit has no key. For a key that is a plain word the quotes may be left out.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from celery_patterns.core.holders import policies_of
from celery_patterns.errors import PatternsError
from celery_patterns.policies.concurrency import operate as limits
from celery_patterns.policies.singleton import operate as singletons

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from celery_patterns.core.holders import Holder

_COLUMNS = ("key", "kind", "state", "task_id", "host", "age", "left", "fence", "waiters")


@click.group(invoke_without_command=True)
@click.option("--task", help="Only what this task holds or waits for.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_context
def locks(context: click.Context, task: str | None, as_json: bool) -> None:
    """List who holds locks and places now; see also release and explain."""
    if context.invoked_subcommand is not None:
        return
    app = _app(context)
    if task is not None and task not in app.tasks:
        raise click.ClickException(f"no task is called {task}")
    with _told():
        found = [*singletons.holders(app), *limits.holders(app)]
    if task is not None:
        found = [one for one in found if task in {name for name, _ in policies_of(app, one.kind, one.key)}]
    if as_json:
        click.echo(json.dumps([_shown(holder) for holder in found]))
    elif found:
        _print_table(sorted(found, key=lambda holder: (holder.key, holder.kind, -holder.age)))
    else:
        click.echo("nothing is held")


@locks.command()
@click.argument("key")
@click.option("--task-id", help="Only the place of this task, where several have one.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def release(context: click.Context, key: str, task_id: str | None, yes: bool) -> None:
    """Take KEY from whoever holds it, who is fenced off. Exit code 1 when nobody does."""
    app = _app(context)
    with _told():
        found = [*singletons.find(app, key), *limits.find(app, key)]
    found = [one for one in found if task_id in {None, one.task_id}]
    if not found:
        raise click.ClickException(f"nobody holds {key}")
    for holder in found:
        if holder.state == "running":
            click.echo(f"{holder.task_id} is running; a call that comes now would run beside it.")
        if not yes:
            click.confirm(
                f"Take {holder.key} ({holder.kind}, {holder.state}) from {holder.task_id}?", abort=True
            )
        of_kind = singletons if holder.kind in singletons.KINDS else limits
        with _told():
            done = of_kind.release(app, holder)
        click.echo(f"{'released' if done else 'had let go already:'} {holder.key}, {holder.task_id}")


@locks.command()
@click.argument("key")
@click.pass_context
def explain(context: click.Context, key: str) -> None:
    """Say why a call with KEY would not run now. Exit code 1 when no task has such a key."""
    app = _app(context)
    with _told():
        sentences = [*singletons.explain(app, key), *limits.explain(app, key)]
    if not sentences and not any(policies_of(app, "singleton", key)):
        raise click.ClickException(
            f"nobody holds {key}, and no task has a singleton or a limit of that name. "
            'KEY is what events show, such as shop.sync:"A-17": the name, by default the task\'s, and the key'
        )
    click.echo("\n".join(sentences) or f"A call of {key} would run now: nobody holds it.")


def _print_table(found: list[Holder]) -> None:
    rows = [[name.replace("_", " ") for name in _COLUMNS]]
    rows += [[_readable(name, getattr(holder, name)) for name in _COLUMNS] for holder in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(holder: Holder) -> dict[str, Any]:
    return {name: value for name, value in asdict(holder).items() if name != "owner"}


def _readable(name: str, value: Any) -> str:
    if name in {"age", "left"}:
        return f"{value:.0f} s"
    return str(value) if value not in {None, ""} else "-"


def _app(context: click.Context) -> Celery:
    """The app that ``celery -A`` names."""
    app: Celery = context.obj.app
    return app


@contextmanager
def _told() -> Iterator[None]:
    """Tell an operator of the library's errors in one line."""
    try:
        yield
    except PatternsError as error:
        raise click.ClickException(str(error)) from error
