"""The two jobs: their messages, and where the world outside Celery and Redis shows what they did."""

from collections.abc import Callable
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


def index(tasks: ModuleType, folder: Path, *, limit: int | None, fenced: bool) -> Job:
    """Index the standard library; what must come out is what a plain loop in this process makes."""
    stdlib.create(folder, fenced=fenced)
    modules = dict(list(stdlib.modules().items())[:limit])
    return Job(
        task=tasks.index,
        claim="The index equals the one that a plain loop in one process makes.",
        calls={module: (module, path) for module, path in modules.items()},
        expected={module: stdlib.survey(path) for module, path in modules.items()},
        effects=lambda: stdlib.read(folder),
        caught=lambda: stdlib.rewritten(folder) if fenced else 0,
    )


def charges(tasks: ModuleType, folder: Path, *, limit: int | None) -> Job:
    """Charge the orders of the file; what must come out is one charge for each, of the right amount."""
    orders = dict(list(payments.orders().items())[:limit])
    return Job(
        task=tasks.charge,
        claim="The ledger holds one charge for each order, its amount is right, and nobody got a 429.",
        calls={order_id: (order_id, amount) for order_id, amount in orders.items()},
        expected=orders,
        effects=lambda: [(made["order"], made["amount"]) for made in entries(folder / "ledger.jsonl")],
        caught=lambda: len(entries(folder / "known.jsonl")),
        refused=lambda: len(entries(folder / "refused.jsonl")),
    )
