"""Which dead letters a command means: the options that all commands share."""

from __future__ import annotations

import functools
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from celery_patterns.deadletters import Filter
from celery_patterns.deadletters.entry import STATES

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # since click 8.3
    """A time: ``2h`` (that long ago; s, m, h, d, w), or an ISO time, local unless it says its zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The time in seconds since the epoch."""
        ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", str(value))
        if ago:
            return time.time() - float(ago[1]) * _UNITS[ago[2]]
        try:
            return datetime.fromisoformat(str(value)).timestamp()
        except ValueError:
            self.fail(f"{value!r} is no time: write 2h, 7d, or 2025-01-31T12:00", param, ctx)


def selecting(*, default_state: str, needs_choice: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Give a command the options that make a ``Filter``, which it takes as ``wanted``.

    Args:
        default_state: The state that is meant unless the user names one.
        needs_choice: Whether the user must choose, if only with ``--all``.
    """

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def with_filter(
            *args: Any, ids: tuple[str, ...], state: str, all_: bool = False, **options: Any
        ) -> Any:
            chosen = {
                name: options.pop(name)
                for name in ("task", "exception", "group", "in_queue", "since", "until")
            }
            if needs_choice and not (ids or all_ or any(value is not None for value in chosen.values())):
                raise click.UsageError(
                    "say which: ids, --task, --exception, --group, --in, --since, or --all"
                )
            queue = chosen.pop("in_queue")
            named = None if state == "any" else state
            return command(*args, wanted=Filter(ids=ids, state=named, queue=queue, **chosen), **options)

        wrapped: Any = with_filter
        for option in reversed(_options(default_state, needs_choice=needs_choice)):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _options(default_state: str, *, needs_choice: bool) -> list[Any]:
    options = [
        click.argument("ids", nargs=-1, metavar="[ENTRY]..."),
        click.option("--task", help="The task's name, or a pattern such as 'shop.*'."),
        click.option("--exception", help="The exception's type, or a pattern."),
        click.option("--group", help="A cause, as `dlq groups` prints it, or its beginning."),
        click.option("--in", "in_queue", help="The dead-letter queue."),
        click.option("--since", type=Moment(), help="Died since then: 2h, 7d, or an ISO time."),
        click.option("--until", type=Moment(), help="Died until then."),
        click.option(
            "--state",
            type=click.Choice([*STATES, "any"]),
            default=default_state,
            show_default=True,
            help="The state they are in.",
        ),
    ]
    if needs_choice:
        options.append(click.option("--all", "all_", is_flag=True, help="All in that state."))
    return options
