"""The three jobs: their messages, and where the world outside Celery and Redis shows what they did."""

import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import Task

from examples.tour import payments, stdlib
from examples.tour.files import entries


@dataclass(frozen=True, kw_only=True)
class Job:
    """Calls of one task, and what is known about their effects."""

    task: Task
    claim: str
    """What is true when each key was done once and rightly."""
    calls: dict[str, tuple[Any, ...]]
    """The arguments of each call, by its key."""
    expected: dict[str, Any]
    """What the effect of each key must be."""
    effects: Callable[[], list[tuple[str, Any]]]
    """Reads every effect that exists: its key, and what it is."""
    caught: Callable[[], int]
    """Reads how many repeated requests the callee has recognised and made no second effect of."""
    refused: Callable[[], int] = int
    """Reads how many requests the callee has refused because there were too many; none, unless it can."""
    failing: frozenset[str] = frozenset()
    """The keys of calls that must fail, and have no effect."""
    together: Callable[[list[str]], dict[str, str]] | None = None
    """Sends calls in one go; returns the key of each task id. Without it they are sent one by one."""


REPORT = "the report"
"""The key of the report in which the index ends."""


def index(tasks: ModuleType, folder: Path, *, limit: int | None, fenced: bool) -> Job:
    """Index the standard library and its test data; a plain loop in this process says what must come out."""
    stdlib.create(folder, fenced=fenced)
    files = dict(list(stdlib.modules().items())[:limit]) | stdlib.test_data()
    expected, failing = _surveyed(files)
    return Job(
        task=tasks.index,
        claim="The index equals the one that a plain loop in one process makes, "
        f"and the report names the {len(failing)} files that are no Python.",
        calls={name: (name, path) for name, path in files.items()},
        expected={**expected, REPORT: sorted(failing)},
        effects=lambda: stdlib.read(folder) + _reported(folder),
        caught=lambda: stdlib.rewritten(folder) if fenced else 0,
        failing=failing,
        together=lambda names: _send_chord(tasks, [(name, files[name]) for name in names]),
    )


def _surveyed(files: dict[str, str]) -> tuple[dict[str, Any], frozenset[str]]:
    """The surveys of all files that can be parsed, and the names of the others."""
    surveys = {}
    for name, path in files.items():
        with suppress(stdlib.NotPython):
            surveys[name] = stdlib.survey(name, path)
    return surveys, frozenset(files.keys() - surveys.keys())


def _reported(folder: Path) -> list[tuple[str, Any]]:
    report = stdlib.read_report(folder)
    return [] if report is None else [(REPORT, report)]


def _send_chord(tasks: ModuleType, files: list[tuple[str, str]]) -> dict[str, str]:
    """Send the index as one chord, whose body makes the report."""
    result = tasks.index_all([tasks.index.s(*file) for file in files]).apply_async()
    sent = {part.id: name for part, (name, _) in zip(result.parent.results, files, strict=True)}
    sent[result.id] = REPORT
    del result
    gc.collect()  # results of a canvas hold each other, and would look for their server when it is gone
    return sent


def charges(tasks: ModuleType, folder: Path, *, limit: int | None) -> Job:
    """Charge the orders of the file; what must come out is one charge for each, of the right amount."""
    orders = dict(list(payments.orders().items())[:limit])
    return Job(
        task=tasks.charge,
        claim="The ledger holds one charge for each order, its amount is right, and nobody got a 429.",
        calls={order_id: (order_id, amount) for order_id, amount in orders.items()},
        expected=orders,
        **_at_the_service(folder, "order"),
    )


def renewals(tasks: ModuleType, folder: Path, *, limit: int | None) -> Job:
    """Charge renewals while the service is down, some of them from a card that is declined."""
    calls = payments.renewals(limit)
    return Job(
        task=tasks.renew,
        claim="After the outage, the ledger holds one charge for each renewal all the same.",
        calls={order_id: (order_id, amount, card) for order_id, (amount, card) in calls.items()},
        expected={order_id: amount for order_id, (amount, _) in calls.items()},
        **_at_the_service(folder, "renewal"),
    )


def _at_the_service(folder: Path, kind: str) -> dict[str, Any]:
    """What the service knows about one kind of orders."""

    def about(file: str, field: str) -> list[dict[str, Any]]:
        return [entry for entry in entries(folder / file) if str(entry[field]).startswith(kind)]

    return {
        "effects": lambda: [(made["order"], made["amount"]) for made in about("ledger.jsonl", "order")],
        "caught": lambda: len(about("known.jsonl", "key")),
        "refused": lambda: len(about("refused.jsonl", "order")),
    }
