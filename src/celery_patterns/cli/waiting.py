"""``celery -A proj patterns waiting`` and ``... pump``: who waits, and what lets them go."""

from __future__ import annotations

import json
import logging
import signal
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from celery_patterns.core.store import store_of
from celery_patterns.errors import PatternsError
from celery_patterns.waiting.broker import room_of
from celery_patterns.waiting.look import TIMED, entries, lines
from celery_patterns.waiting.pump import Pump

if TYPE_CHECKING:
    from celery import Celery

    from celery_patterns.waiting.room import Room

AT_MOST = 20


class _ShowByDefault(click.Group):
    """``waiting NAME`` is ``waiting show NAME``."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args[:1] not in ([], ["--help"], *([name] for name in self.commands)):
            args = ["show", *args]
        return super().parse_args(context, args or ["show"])


@click.group(cls=_ShowByDefault)
def waiting() -> None:
    """Show who waits in the waiting room, and revoke it."""


@waiting.command()
@click.argument("name", required=False)
@click.option(
    "--key", "-k", help="Show who waits under this key; give an empty one for a limit without keys."
)
@click.option("--all", "everything", is_flag=True, help=f"Show all who wait, not the first {AT_MOST}.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def show(context: click.Context, name: str | None, key: str | None, everything: bool, as_json: bool) -> None:
    """Show the lines, or those of limit NAME; with --key, who waits in one."""
    try:
        room = _room(context)
        found = lines(room, name)
        if key is None:
            rows = [asdict(one) for one in found]
        else:
            in_it = [one.name for one in found if one.name == f"{name}:{key}"]
            who = (asdict(entry) for one in in_it for entry in entries(room, one))
            rows = list(who if everything else islice(who, AT_MOST))
    except PatternsError as error:
        raise click.ClickException(str(error)) from error
    for row in rows:
        click.echo(json.dumps(row) if as_json else _line(row))


@waiting.command()
@click.argument("ids", nargs=-1, required=True)
@click.pass_context
def cancel(context: click.Context, ids: tuple[str, ...]) -> None:
    """Revoke tasks that wait. Exit code 1 when none of them does."""
    try:
        count = _room(context).cancel(ids)
    except PatternsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"revoked {count} of {len(ids)}")
    if not count:
        context.exit(1)


@click.command()
@click.option(
    "--adopt",
    is_flag=True,
    help="The broker has moved: publish what waits to the one that the app has now.",
)
@click.pass_context
def pump(context: click.Context, adopt: bool) -> None:
    """Publish what waits when its turn has come, until told to end (SIGTERM, Ctrl-C).

    Each worker has a pump of its own already. Run this where the workers are stopped for a while.
    """
    ended = False

    def end(*_: Any) -> None:
        nonlocal ended
        ended = True

    logging.basicConfig(level=logging.INFO, format="[%(asctime)s: %(levelname)s/pump] %(message)s")
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    app: Celery = context.obj.app
    try:
        if adopt:
            _room(context).adopt()
        Pump(app, store_of(app)).run(lambda: ended)
    except PatternsError as error:
        raise click.ClickException(str(error)) from error


def _line(row: dict[str, Any]) -> str:
    if "waiting" in row:
        name = "(for a time)" if row["name"] == TIMED else row["name"].rstrip(":")
        return f"{name:<40} {row['waiting']:>8} waiting, the first for {row['oldest']:.1f} s"
    return f"{row['id']}  {row['waited']:>8.1f} s  {row['task']} {row['args']}"


def _room(context: click.Context) -> Room:
    return room_of(context.obj.app)
