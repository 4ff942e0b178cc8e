"""What the tour shows: a progress bar while it runs, a table and a verdict at its end."""

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from examples.tour.count import Outcome

FIGURES = (
    *("sent", "done", "done\ntwice", "lost", "dead", "re-\nplayed", "de-\nferred", "caught", "429"),
    *("kills", "sec-\nonds"),
)


def progress(console: Console, *, quiet: bool) -> Progress:
    """The bars, one for each job, which also tell how many children have been killed."""
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[kills]} killed", style="red"),
        console=console,
        disable=quiet,
    )


def show(console: Console, outcomes: list[Outcome], *, patterns: bool) -> None:
    """Print the table and what it means."""
    console.print(_table(outcomes, patterns=patterns))
    for outcome in outcomes:
        if outcome.dead:
            console.print(_graves(outcome))
    for outcome in outcomes:
        console.print(_verdict(outcome) if patterns else _demonstration(outcome), highlight=False)
    if not patterns:
        console.print("This demonstrates what goes wrong otherwise; the exit code is 0 all the same.")


def _table(outcomes: list[Outcome], *, patterns: bool) -> Table:
    title = f"The same work sent two or three times, {'with' if patterns else 'without'} celery-patterns"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("job", no_wrap=True)
    for figure in FIGURES:
        table.add_column(figure, justify="right", no_wrap=True)
    for outcome in outcomes:
        counted = [outcome.sent, outcome.done, outcome.twice, outcome.lost]
        dead = sum(group.count for group in outcome.dead)
        told = [dead, outcome.replayed, outcome.deferred, outcome.caught] if patterns else ["-"] * 4
        more = [outcome.refused, outcome.kills]
        table.add_row(outcome.job, *map(str, [*counted, *told, *more]), f"{outcome.seconds:.3g}")
    return table


def _graves(outcome: Outcome) -> Table:
    """The dead letters as `celery dlq groups` shows them."""
    title = f"What an outage left of {outcome.job}, by cause"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("count", justify="right")
    for column in ("task", "exception", "latest message"):
        table.add_column(column)
    for group in outcome.dead:
        exception = group.exception.rpartition(".")[2]
        table.add_row(str(group.count), group.task, exception, group.message)
    return table


def _verdict(outcome: Outcome) -> str:
    problems = {
        "done twice": outcome.twice,
        "lost": outcome.lost,
        "with a wrong effect": outcome.wrong,
        "with copies that got different results": outcome.differing,
        "requests too many": outcome.refused,
    }
    found = ", ".join(f"{calls} {problem}" for problem, calls in problems.items() if calls)
    line = f"[red]NO[/]  {outcome.job}, {outcome.keys} calls: {found}."
    if outcome.good:
        line = f"[green]ok[/]  {outcome.job}: {outcome.claim}"
    if outcome.caught:
        line += (
            f"\n    Runs killed between effect and record, repeated, caught by the callee: {outcome.caught}."
        )
    return line


def _demonstration(outcome: Outcome) -> str:
    return (
        f"[red]NO[/]  {outcome.job}, {outcome.keys} calls: {outcome.effects} effects, "
        f"{outcome.twice} done twice or more, {outcome.lost} lost, {outcome.refused} refused with 429."
    )
