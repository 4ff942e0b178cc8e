"""``celery -A proj patterns workflow ID``: the tree of states of a workflow, in the terminal.

ID is that of a task, of a partial chord's result, or of a group that was saved.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from celery import states
from celery.backends.redis import RedisBackend
from redis.exceptions import RedisError

from celery_patterns.errors import PatternsError
from celery_patterns.flows.chords.workflow import WorkflowNode, inspect_workflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

MANY = 20
"""How many members of a group are shown, unless ``--all`` is given."""
_COLOURS = {"SUCCESS": "green", "FAILURE": "red", "REVOKED": "red", "RETRY": "yellow", "STARTED": "cyan"}


@click.command()
@click.argument("id_", metavar="ID")
@click.option("--all", "show_all", is_flag=True, help=f"Show all members of groups with more than {MANY}.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def workflow(context: click.Context, id_: str, show_all: bool, as_json: bool) -> None:
    """Show the states of the workflow that ends with ID, or that ID has sent.

    Exit code 1 when nothing is known of ID, or the result backend is away.
    """
    found = _find(context.obj.app, id_)
    if found.state == states.PENDING and not found.children:
        raise click.ClickException(f"nothing is known of {id_}: it has not begun, or its result has expired")
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    for line in draw(found, most=None if show_all else MANY):
        click.echo(line)


def _find(app: Celery, id_: str) -> WorkflowNode:
    backend: Any = app.backend
    try:
        if isinstance(backend, RedisBackend):
            backend.client.ping()  # everything else would be tried again for 20 seconds
        return inspect_workflow(app.GroupResult.restore(id_) or app.AsyncResult(id_))
    except (PatternsError, RedisError, OSError) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from error


def draw(node: WorkflowNode, *, most: int | None = None, indent: str = "", branch: str = "") -> Iterator[str]:
    """The lines of a tree.

    Args:
        node: Its root.
        most: How many children of one node are shown.
        indent: What lines below this one begin with.
        branch: What this one begins with.
    """
    yield branch + _line(node)
    shown = node.children[:most]
    hidden = node.children[len(shown) :]
    for child in shown:
        last = child is shown[-1] and not hidden
        rail, elbow = ("   ", "└─ ") if last else ("│  ", "├─ ")
        yield from draw(child, most=most, indent=indent + rail, branch=indent + elbow)
    if hidden:
        told = ", ".join(f"{count} {state}" for state, count in Counter(one.state for one in hidden).items())
        yield f"{indent}└─ and {len(hidden)} more: {told}"


def _line(node: WorkflowNode) -> str:
    state = node.state
    if node.outcome in {"lost", "revoked"} and node.outcome.upper() != state:
        state = f"{state}, {node.outcome} to its chord"
    told = click.style(state, fg=_COLOURS.get(node.state))
    kind = node.name or node.kind
    return "  ".join(one for one in (told, kind, node.id, node.error) if one)
