"""The kill switch: a setting for a worker, a context for a script."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from celery_patterns import disabled
from tests.apps.witness import (
    SEEN,
    alone,
    inner,
    new_app,
    note,
    outer,
    seen,
    witnessed,
)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def app() -> Celery:
    """An app that is ready."""
    app = new_app()
    app.finalize()
    return app


def same(n: int, other: int = 0) -> int:
    note("body", by=n)
    return n


@pytest.fixture
def three(app: Celery) -> Any:
    """A task with three policies."""
    return outer()(inner()(witnessed()(app.task(same))))


def test_all_are_on_by_default(three: Any) -> None:
    """The kill switch would be on from the start."""
    three.apply((1,))

    assert seen("enter") == ["outer", "witness", "inner"]


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (True, []),
        (False, ["outer", "witness", "inner"]),
        (None, ["outer", "witness", "inner"]),
        ("witness", ["outer", "inner"]),
        (["witness", "outer"], ["inner"]),
        (("inner",), ["outer", "witness"]),
        (frozenset({"outer"}), ["witness", "inner"]),
        (["outer", "unknown"], ["witness", "inner"]),
        ([], ["outer", "witness", "inner"]),
        ("*", []),
    ],
    ids=str,
)
def test_setting_switches_off(app: Celery, three: Any, value: Any, left: list[str]) -> None:
    """In an emergency an operator could not take a policy out of the way."""
    app.conf.patterns_disabled = value

    three.apply((1,))
    three.apply_async((1,))

    assert seen("enter") == seen("publish") == left


def test_setting_is_read_for_each_call(app: Celery, three: Any) -> None:
    """Switching on again would need a restart of the process."""
    app.conf.patterns_disabled = True
    three.apply((1,))
    app.conf.patterns_disabled = False
    three.apply((2,))

    assert seen("enter") == ["outer", "witness", "inner"]


@pytest.mark.parametrize(
    ("kinds", "left"),
    [((), []), (("witness",), ["outer", "inner"]), (("outer", "inner"), ["witness"])],
    ids=str,
)
def test_context_switches_off(three: Any, kinds: tuple[str, ...], left: list[str]) -> None:
    """A shell or a script could not go past a policy."""
    with disabled(*kinds):
        three.apply((1,))
        three.apply_async((1,))
    assert seen("enter") == seen("publish") == left

    SEEN.clear()
    three.apply((1,))
    assert seen("enter") == ["outer", "witness", "inner"]


def test_contexts_and_setting_add_up(app: Celery, three: Any) -> None:
    """An inner context would switch on what an outer one, or the operator, has switched off."""
    app.conf.patterns_disabled = "inner"
    with disabled("outer"), disabled("witness"):
        three.apply((1,))
        assert seen("enter") == []
    with disabled("outer"):
        three.apply((1,))
    assert seen("enter") == ["witness"]


def test_context_ends_when_its_block_fails(three: Any) -> None:
    """An error in the block would leave policies off."""
    with pytest.raises(ValueError, match="oops"), disabled():
        raise ValueError("oops")

    three.apply((1,))
    assert len(seen("enter")) == 3


def test_context_is_this_threads_alone(three: Any) -> None:
    """Other threads' calls would run unguarded meanwhile."""
    with disabled():
        thread = threading.Thread(target=three.apply, args=((1,),))
        thread.start()
        thread.join()

    assert len(seen("enter")) == 3
