"""Settings that cannot be meant: they are refused, with their value, before a task is lost to them."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from celery_patterns import PolicyError, TokenBucket, TokenBucketTask
from celery_patterns.core.store import store_of
from celery_patterns.waiting.gate import has_gate
from celery_patterns.waiting.lookout import is_on
from tests.apps.witness import alone, new_app
from tests.core.test_startup import declare, said_at_start


@pytest.fixture
def app() -> Iterator[Celery]:
    with alone():
        yield new_app()


@pytest.mark.parametrize("prefix", ["", 5, "a{b", "a}b"])
def test_a_prefix_that_breaks_keys_is_refused(app: Celery, prefix: Any) -> None:
    """Keys of one thing would be on several nodes of a cluster."""
    app.conf.update(patterns_url="redis://127.0.0.1:1/0", patterns_prefix=prefix)
    with pytest.raises(PolicyError, match=f"patterns_prefix={prefix!r}"):
        store_of(app)


@pytest.mark.parametrize(
    ("value", "means"),
    [(True, True), (False, False), ("no", False), ("Off", False), ("0", False), ("yes", True), (1, True)],
)
def test_a_switch_may_come_from_an_environment(app: Celery, value: Any, means: bool) -> None:
    """A room that was switched off by "no" would be on."""
    app.conf.update(patterns_waiting_room=value)
    assert is_on(app) is means
    app.conf.update(patterns_waiting_room=True, patterns_gate=value)
    assert has_gate(app) is means


@pytest.mark.parametrize("value", ["perhaps", "", 3, []])
def test_a_switch_that_is_neither_on_nor_off_is_refused(app: Celery, value: Any) -> None:
    """It would be taken for what was not meant."""
    app.conf.update(patterns_waiting_room=value)
    with pytest.raises(PolicyError, match="patterns_waiting_room="):
        is_on(app)


def test_a_store_that_cannot_be_is_told_of_when_publishing_and_when_a_worker_starts() -> None:
    """A limited task would be published, and fail in the worker that has to ask."""
    with alone():
        app = Celery("shop", broker="redis://127.0.0.1:1/0", set_as_current=False)
        app.conf.update(patterns_url="foo://x")

        def limited() -> None:
            pass

        task = app.task(base=TokenBucketTask, token_bucket=TokenBucket("1/s"), name="limited")(limited)
        with pytest.raises(PolicyError, match="foo://x"):
            task.delay()
        assert any("foo://x" in one for one in said_at_start(app))


def test_a_worker_says_nothing_of_a_store_that_nobody_named(app: Celery) -> None:
    """Each worker of an app whose policies need no store would complain."""
    declare(app, acks_late=False)
    assert said_at_start(app) == []


@pytest.mark.parametrize("option", ["key", "fair_by", "cost"])
def test_what_names_no_argument_is_told_by_its_own_name(option: str) -> None:
    """Whoever wrote fair_by would look for a key."""
    with pytest.raises(PolicyError, match=rf"{option}=3\.5"):
        TokenBucket("1/s", **{option: 3.5})  # type: ignore[arg-type]
