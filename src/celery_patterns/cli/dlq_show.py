"""How the command line shows dead letters: as tables for people, as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from celery_patterns.deadletters.redaction import HIDDEN, without

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery

    from celery_patterns.deadletters import Entry


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, whole: Sequence[str] = ()
) -> None:
    """A table; aligned columns where rich is not installed.

    Args:
        title: What stands above it.
        columns: Their names.
        rows: Texts.
        whole: Columns to be copied from, which are not broken into lines however narrow the terminal is.
    """
    try:
        from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - an extra, which a worker does not need
        from rich.console import Console  # noqa: PLC0415
        from rich.markup import escape  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
    except ImportError:
        _plain(title, columns, rows)
        return
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        shown.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        shown.add_row(*map(escape, row))
    console = Console()
    if not console.is_terminal:  # it goes to a file or another program, where lines have no end
        console = Console(width=_WIDE)
    console.print(shown)


_WIDE = 1_000


def _plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    click.echo(title)
    for row in (columns, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def when(moment: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")


def short(exception: str) -> str:
    """An exception's type without its module."""
    return exception.rpartition(".")[2]


def as_json(value: Any) -> None:
    """One JSON value on one line."""
    click.echo(json.dumps(value, default=str))


def arguments(app: Celery, entry: Entry) -> Mapping[str, Any]:
    """An entry's arguments, without those that its policy redacts; as text where they cannot be read."""
    decoded = entry.letter.decoded(app)
    if decoded is None:
        headers = entry.letter.headers
        unread = {"args": headers.get("argsrepr"), "kwargs": headers.get("kwargsrepr")}
        return dict.fromkeys(unread, HIDDEN) if entry.redact else unread
    args, kwargs, _ = decoded
    return {
        "args": [HIDDEN if hidden else value for hidden, value in _hidden(app, entry, args)],
        "kwargs": {name: HIDDEN if name in entry.redact else value for name, value in kwargs.items()},
    }


def _hidden(app: Celery, entry: Entry, args: list[Any]) -> list[tuple[bool, Any]]:
    """Positional arguments, and whether each is redacted. Of an unknown task any of them may be."""
    if not entry.redact:
        return [(False, value) for value in args]
    seam = getattr(app.tasks.get(entry.task), "__patterns__", None)
    if seam is None:
        return [(True, value) for value in args]
    names = list(seam.signature.parameters)
    return [(names[min(at, len(names) - 1)] in entry.redact, value) for at, value in enumerate(args)]


def veiled(app: Celery, entry: Entry, text: str) -> str:
    """A text about an entry, without the values of arguments that are redacted."""
    decoded = entry.letter.decoded(app) if entry.redact else None
    if decoded is None:
        return HIDDEN if entry.redact and text else text
    args, kwargs, _ = decoded
    secrets = [value for hidden, value in _hidden(app, entry, args) if hidden]
    secrets += [value for name, value in kwargs.items() if name in entry.redact]
    return without(text, secrets)


def _veiled_all(app: Celery, entry: Entry, value: Any) -> Any:
    """Headers without what is redacted: a header may tell what earlier attempts said."""
    if not entry.redact:
        return value
    if isinstance(value, dict):
        return {name: _veiled_all(app, entry, one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_veiled_all(app, entry, one) for one in value]
    return veiled(app, entry, value) if isinstance(value, str) else value


def fields(app: Celery, entry: Entry, *, full: bool = False) -> dict[str, Any]:
    """An entry as JSON shows it: without its raw body, and without what is redacted."""
    shown = asdict(entry)
    letter = shown.pop("letter")
    shown.pop("original")
    for name in ("message", "traceback", "error"):
        shown[name] = veiled(app, entry, shown[name])
    for one in (*shown["attempts"], *shown["history"]):
        word = "message" if "message" in one else "words"
        one[word] = veiled(app, entry, one[word])
    if not full:
        for name in ("traceback", "error", "history", "attempts"):
            shown.pop(name)
    else:
        reprs = {"argsrepr", "kwargsrepr"}
        headers = {name: value for name, value in letter["headers"].items() if name not in reprs}
        shown["headers"] = _veiled_all(app, entry, headers)
    return {
        **shown,
        **arguments(app, entry),
        "edited": entry.original is not None,
        "bytes": len(entry.letter.body),
    }
