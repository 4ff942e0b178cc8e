"""``celery -A proj dlq list|groups|show|replay|edit|archive|unarchive|resolve|reopen|purge|export|stats``.

Exit codes: 0, done; 1, nothing is meant, a replay stopped early, or the store or broker is away;
2, the command was not understood.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from kombu.exceptions import KombuError

from celery_patterns.cli import dlq_show
from celery_patterns.cli.dlq_filter import selecting
from celery_patterns.deadletters import DeadLetters, Plan
from celery_patterns.deadletters.triage import DECISIONS
from celery_patterns.errors import DeadLetterError, PatternsError

if TYPE_CHECKING:
    from celery_patterns.deadletters import Filter, Report


class Reporting(click.Group):
    """A group whose commands say in one line what went wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (PatternsError, KombuError, OSError) as error:
            raise click.ClickException(f"{type(error).__name__}: {error}") from error


@click.group(cls=Reporting)
def dlq() -> None:
    """Dead letters: tasks that failed for good, and what to do with them."""


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
yes = click.option("--yes", is_flag=True, help="Do not ask.")
AMOUNT = click.IntRange(min=1)
why = click.option("--why", default="", help="Words for the history of each entry.")


@dlq.command("list")
@selecting(default_state="open")
@click.option("--limit", type=AMOUNT, default=20, show_default=True, help="Entries of a page.")
@click.option("--before", type=int, help="Where the page begins: the end of the one before.")
@as_json
@click.pass_context
def list_(context: click.Context, wanted: Filter, limit: int, before: int | None, as_json: bool) -> None:
    """One page of entries, the latest death first."""
    desk = _desk(context)
    page = desk.list(wanted, limit=limit, before=before)
    if as_json:
        entries = [dlq_show.fields(desk.app, one) for one in page.entries]
        dlq_show.as_json({"entries": entries, "next": page.next})
        return
    rows = [
        (one.id, one.state, one.task, dlq_show.short(one.exception), dlq_show.when(one.died), str(one.deaths))
        for one in page.entries
    ]
    columns = ("id", "state", "task", "exception", "died (UTC)", "deaths")
    dlq_show.table("Dead letters", columns, rows, whole=("id",))
    if page.next is not None:
        click.echo(f"more: --before {page.next}")


@dlq.command()
@selecting(default_state="open")
@as_json
@click.pass_context
def groups(context: click.Context, wanted: Filter, as_json: bool) -> None:
    """Entries grouped by cause, the most frequent first."""
    found = _desk(context).groups(wanted)
    if as_json:
        dlq_show.as_json([asdict(one) for one in found])
        return
    rows = [
        (
            one.id,
            str(one.count),
            one.task,
            dlq_show.short(one.exception),
            one.message.partition("\n")[0],
            dlq_show.when(one.last),
        )
        for one in found
    ]
    columns = ("group", "count", "task", "exception", "latest message", "last (UTC)")
    dlq_show.table("Causes", columns, rows, whole=("group",))


@dlq.command()
@click.argument("entry")
@as_json
@click.pass_context
def show(context: click.Context, entry: str, as_json: bool) -> None:
    """All about one ENTRY. Exit code 1 when there is none."""
    desk = _desk(context)
    shown = dlq_show.fields(desk.app, desk.get(entry), full=True)
    if as_json:
        dlq_show.as_json(shown)
        return
    told, trace, before = shown.pop("history"), shown.pop("traceback"), shown.pop("attempts")
    rows = [
        (name.replace("_", " "), _readable(name, value)) for name, value in shown.items() if name != "error"
    ]
    dlq_show.table(f"Dead letter {entry}", ("", ""), rows)
    if before:
        tried = [(dlq_show.when(one["at"]), one["exception"], one["message"]) for one in before]
        dlq_show.table("Attempts before", ("when (UTC)", "exception", ""), tried)
    lines = [(dlq_show.when(one["at"]), one["what"], one["words"]) for one in told]
    dlq_show.table("History", ("when (UTC)", "what", ""), lines)
    click.echo(trace)


@dlq.command()
@selecting(default_state="open", needs_choice=True)
@click.option("--rate", default=50.0, show_default=True, help="Messages per second, at most.")
@click.option("--limit", type=AMOUNT, help="Entries, at most; the oldest first.")
@click.option("--no-canary", is_flag=True, help="Do not try one and then ten before the rest.")
@click.option(
    "--max-failing", default=0.2, show_default=True, help="The share that may die again before it stops."
)
@click.option("--patience", default=300.0, show_default=True, help="Seconds to wait for how a stage ends.")
@click.option("--to", "queue", help="Publish to this queue instead of where each message came from.")
@click.option("--new-ids", is_flag=True, help="Give each message a new task id.")
@click.option("--dry-run", is_flag=True, help="Only say how many are meant.")
@as_json
@yes
@click.pass_context
def replay(
    context: click.Context,
    /,
    wanted: Filter,
    *,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    no_canary: bool,
    **plan: Any,
) -> None:
    """Run entries again. Exit code 1 when it stops early, or nothing is meant."""
    desk, how = _desk(context), _plan(canary=not no_canary, **plan)
    count = desk.would_replay(wanted, how.limit)
    if dry_run:
        dlq_show.as_json({"planned": count}) if as_json else click.echo(f"{count} would be replayed")
        return
    if not count:
        raise click.ClickException("nothing is meant")
    if not yes and count > 1:
        click.confirm(f"Replay {count} dead letters?", abort=True)
    with click.progressbar(length=count, label="replaying", file=sys.stderr) as bar:
        report = desk.replay(
            wanted,
            how,
            progress=lambda report: bar.update(report.published - bar.pos),
        )
    if as_json:
        dlq_show.as_json(asdict(report))
    else:
        _tell(report)
    if report.stopped:
        raise click.exceptions.Exit(1)


def _plan(**options: Any) -> Plan:
    try:
        return Plan(**options)
    except DeadLetterError as error:
        raise click.UsageError(str(error)) from error


def _tell(report: Report) -> None:
    click.echo(
        f"published {report.published} of {report.planned}; so far {report.resolved} succeeded and "
        f"{report.failed} died again"
    )
    if report.recovered:
        click.echo(f"{report.recovered} had been left half-way by a replay that was killed")
    for entry, trouble in report.unhealed.items():
        click.echo(f"{entry}: {trouble}")
    if report.stopped:
        click.echo(f"stopped: {report.stopped}")


@dlq.command()
@click.argument("entry")
@click.option("--args", help="All positional arguments, as a JSON list.")
@click.option("--kwargs", help="Keyword arguments to set, as a JSON object.")
@as_json
@click.pass_context
def edit(context: click.Context, entry: str, args: str | None, kwargs: str | None, as_json: bool) -> None:
    """Give an ENTRY other arguments before it is replayed. What it died with is kept."""
    if args is None and kwargs is None:
        raise click.UsageError("give --args or --kwargs")
    desk = _desk(context)
    new_args, new_kwargs = _parsed("--args", args, list), _parsed("--kwargs", kwargs, dict)
    shown = dlq_show.fields(desk.app, desk.edit(entry, args=new_args, kwargs=new_kwargs))
    dlq_show.as_json(shown) if as_json else click.echo(
        f"{entry} will run with {shown['args']} {shown['kwargs']}"
    )


def _parsed(option: str, text: str | None, kind: type) -> Any:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{option} is not JSON: {error}") from error
    if not isinstance(value, kind):
        raise click.UsageError(f"{option} must be a JSON {'list' if kind is list else 'object'}")
    return value


@dlq.command()
@selecting(default_state="open", needs_choice=True)
@click.option("--raw", is_flag=True, help="With each message as it is, nothing redacted, body in base64.")
@click.option("--output", type=click.File("w"), default="-", help="A file; default: standard output.")
@click.pass_context
def export(context: click.Context, wanted: Filter, raw: bool, output: Any) -> None:
    """Write entries as JSON lines."""
    desk = _desk(context)
    for entry in desk.walk(wanted):
        shown = dlq_show.fields(desk.app, entry, full=True)
        if raw:
            letter = asdict(entry.letter)
            shown["letter"] = {**letter, "body": base64.b64encode(letter["body"]).decode()}
        output.write(json.dumps(shown, default=str) + "\n")


@dlq.command()
@as_json
@click.pass_context
def stats(context: click.Context, as_json: bool) -> None:
    """How many entries are in each state."""
    counts = _desk(context).counts()
    if as_json:
        dlq_show.as_json(counts)
        return
    dlq_show.table("Dead letters", ("state", "count"), [(state, str(n)) for state, n in counts.items()])


def _deciding(name: str, done: str, text: str, state: str) -> None:
    """Add the command for one decision."""

    @dlq.command(name, help=f"{text} Exit code 1 when nothing is meant.")
    @selecting(default_state=state, needs_choice=True)
    @why
    @yes
    @as_json
    @click.pass_context
    def command(context: click.Context, wanted: Filter, why: str, yes: bool, as_json: bool) -> None:
        desk = _desk(context)
        count = desk.query.count(wanted)
        if not count:
            raise click.ClickException("nothing is meant")
        if not yes and (count > 1 or name == "purge"):
            click.confirm(f"{name.capitalize()} {count} dead letters?", abort=True)
        decision = getattr(desk, name)
        moved = decision(wanted) if name == "purge" else decision(wanted, why)
        dlq_show.as_json({name: moved}) if as_json else click.echo(f"{done} {moved} of {count}")


for _name, _done, _text, _state in (
    (
        "archive",
        "archived",
        "Put entries aside: they are not replayed, and deleted after their retention.",
        "open",
    ),
    (
        "unarchive",
        "opened",
        "Open archived entries again, or quarantined ones with --state quarantined.",
        "archived",
    ),
    ("resolve", "resolved", "Close entries that were dealt with elsewhere.", "open"),
    ("reopen", "opened", "Open entries again whose replay will never report.", "replaying"),
    ("purge", "deleted", "Delete entries for good.", "open"),
):
    assert _name in DECISIONS  # noqa: S101 - said when this module is imported
    _deciding(_name, _done, _text, _state)


def _desk(context: click.Context) -> DeadLetters:
    """The dead letters of the app that ``celery -A`` names."""
    return DeadLetters(context.obj.app)


def _readable(name: str, value: Any) -> str:
    if name in {"first_died", "died"}:
        return dlq_show.when(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)
