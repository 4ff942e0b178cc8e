"""``celery -A proj patterns idempotency show|forget KEY``.

KEY is what events and error messages show: ``<name>:<key>``, for example ``shop.charge:"A-17"`` or
``shop.charge:42``. For a key that is a plain word the quotes may be left out.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from celery_patterns.errors import PatternsError
from celery_patterns.policies.idempotency import operate as records

if TYPE_CHECKING:
    from celery import Celery


@click.group()
def idempotency() -> None:
    """The records of idempotency keys."""


@idempotency.command()
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show(context: click.Context, key: str, as_json: bool) -> None:
    """Show what is recorded for KEY. Exit code 1 when nothing is."""
    found = _find(_app(context), key)
    if found is None:
        raise click.ClickException(f"nothing is recorded for {key}")
    fields = asdict(found)
    if as_json:
        click.echo(json.dumps(fields))
        return
    for name, value in fields.items():
        click.echo(f"{name.replace('_', ' '):<12} {_readable(name, value)}")


@idempotency.command()
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def forget(context: click.Context, key: str, yes: bool) -> None:
    """Forget KEY, so that its next call runs the task again. Exit code 1 when nothing is recorded."""
    app = _app(context)
    found = _find(app, key)
    if found is None:
        raise click.ClickException(f"nothing is recorded for {key}")
    if found.state == "running":
        click.echo(f"{found.task_id} is running; a call that comes now would run beside it.")
    if not yes:
        click.confirm(f"Forget {found.key} ({found.state}, by {found.task_id})?", abort=True)
    try:
        records.forget(app, found.key)
    except PatternsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"forgot {found.key}")


def _find(app: Celery, key: str) -> records.Snapshot | None:
    try:
        return records.find(app, key)
    except PatternsError as error:
        raise click.ClickException(str(error)) from error


def _app(context: click.Context) -> Celery:
    """The app that ``celery -A`` names."""
    app: Celery = context.obj.app
    return app


def _readable(name: str, value: Any) -> str:
    if name in {"lease_left", "expires_in"}:
        return f"{value:.0f} s"
    return "-" if value is None else str(value)
