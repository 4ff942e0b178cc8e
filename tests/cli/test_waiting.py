"""``celery -A proj patterns waiting``: what an operator types, and sees."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner

from celery_patterns.cli import waiting
from celery_patterns.core.parking import Spot
from celery_patterns.core.store import Store
from celery_patterns.policies.rate_limits.buckets import Bucket, Demand, as_text, close
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.testing import memory_store
from celery_patterns.waiting.parcel import Parcel
from celery_patterns.waiting.room import Room

Run = Callable[..., str]


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with memory_store(store_url) as store:
        yield store


@pytest.fixture
def room(store: Store) -> Room:
    """Three wait for Stripe in line, 600 for a time."""
    room = Room(store)
    room.release("pump", (), 0)
    close(store, [Bucket("stripe", '"eu"')], 60)
    demands = as_text([Demand(Bucket("stripe", '"eu"'), Rate.of("25/s"), 1, 1, strict=False)])
    for number in range(3):
        enter(room, f"paid-{number}", Spot(demands=demands))
    return room


def enter(room: Room, name: str, spot: Spot, wait: float | None = None) -> None:
    headers = {"id": name, "task": "shop.charge", "argsrepr": f"('{name}',)", "kwargsrepr": "{}"}
    parcel = Parcel(body=b"", content_type="", content_encoding="", headers=headers)
    room.enter(parcel, id=name, spot=spot, wait=wait)


@pytest.fixture
def run(store: Store, room: Room) -> Run:
    """`run("stripe")`: what the command prints."""

    def run(*words: str, code: int = 0) -> str:
        found = CliRunner().invoke(celery, ["patterns", "waiting", *words], obj=None, env={"NO_COLOR": "1"})
        assert found.exit_code == code, found.output
        return found.output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "_room", lambda _: room)
        yield run


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_are_shown(run: Run, room: Room) -> None:
    """An operator could not see what waits, nor for what."""
    enter(room, "later", Spot(), wait=60)
    assert 'stripe:"eu"' in run()
    assert "3 waiting" in run("stripe")
    assert [(row["name"], row["waiting"]) for row in rows(run("--json"))] == [('stripe:"eu"', 3), ("", 1)]
    assert run("other") == ""


def test_who_waits_is_shown_in_order(run: Run) -> None:
    """An operator could not see whose turn is next."""
    shown = rows(run("stripe", "--key", '"eu"', "--json"))
    assert [row["id"] for row in shown] == ["paid-0", "paid-1", "paid-2"]
    assert "shop.charge ('paid-0',) {}" in run("stripe", "--key", '"eu"')


def test_a_long_line_is_read_in_pages(run: Run, room: Room) -> None:
    """A long line would be cut, or read at once."""
    demands = as_text([Demand(Bucket("long"), Rate.of("1/h"), 1, 1, strict=False)])
    for number in range(1_001):
        if number % 20 == 0:
            room.release("pump", (), 0)  # it still leads, however slow the machine is
        enter(room, f"n-{number}", Spot(demands=demands))
    assert len(rows(run("long", "--key", "", "--json"))) == waiting.AT_MOST
    shown = rows(run("long", "--key", "", "--json", "--all"))
    assert [row["id"] for row in shown] == [f"n-{number}" for number in range(1_001)]


def test_what_waits_is_revoked(run: Run) -> None:
    """An operator could not stop a task before it runs."""
    assert run("cancel", "paid-1", "unknown") == "revoked 1 of 2\n"
    assert run("cancel", "unknown", code=1) == "revoked 0 of 1\n"
    shown = rows(run("stripe", "--key", '"eu"', "--json"))
    assert [row["id"] for row in shown] == ["paid-0", "paid-2"]
