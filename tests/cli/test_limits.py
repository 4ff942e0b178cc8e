"""``celery -A proj patterns limits``: what an operator types, and sees."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.bin.celery import celery
from click.testing import CliRunner, Result

from celery_patterns import RateLimits, TokenBucket, TokenBucketTask, acquire
from celery_patterns.cli import limits
from celery_patterns.core.store import Store
from celery_patterns.policies.rate_limits.buckets import Bucket, Denied, stand_in_line
from celery_patterns.testing import memory_store
from tests.apps.witness import alone

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with memory_store(store_url) as store:
        yield store


@pytest.fixture
def app() -> Celery:
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    limits = RateLimits(
        TokenBucket("25/s", burst=100, name="stripe"),
        TokenBucket("60/m", burst=3, key="tenant", name="tenant"),
    )

    @app.task(base=TokenBucketTask, token_bucket=limits, name="shop.refund")
    def refund(tenant: str) -> None: ...

    return app


@pytest.fixture
def run(app: Celery, store: Store) -> Run:
    """`run("show", "stripe")`: the command, its output and its exit code."""

    def run(*words: str, code: int = 0) -> Any:
        found = CliRunner().invoke(
            celery, ["patterns", "limits", *words], obj=None, standalone_mode=True, env={"NO_COLOR": "1"}
        )
        assert found.exit_code == code, found.output
        return found.output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "_app", lambda _: app)
        yield run


def rows(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def test_limits_are_listed(run: Run, app: Celery, store: Store) -> None:
    """An operator would not know which limits there are, and how they stand."""
    app.tasks["shop.refund"].apply(("a",)).get()
    stand_in_line(store, Bucket("tenant", '"a"'), "someone", Denied(1.0, 0, 1.0))
    head, stripe, tenant = rows(run())
    assert head == ["name", "rate", "burst", "tokens", "keys", "waiting", "penalty"]
    assert stripe[:3] == ["stripe", "25/s", "100"]
    assert 99 <= float(stripe[3]) <= 100
    assert tenant[:3] == ["tenant", "1/s", "3"]
    assert tenant[4:] == ["1", "1", "-"]


def test_a_limit_is_shown_by_key(run: Run, app: Celery) -> None:
    """An operator would not see which tenant is at its limit."""
    for tenant in ("a", "b", "b", "b"):
        app.tasks["shop.refund"].apply((tenant,)).get()
    output = run("show", "tenant")
    assert "tasks: shop.refund" in output
    keys = [row[0] for row in rows(output)[-2:]]
    assert keys == ['"b"', '"a"']


def test_many_keys_are_cut_short(run: Run, app: Celery) -> None:
    """A limit with a million keys would fill the terminal."""
    for tenant in range(25):
        app.tasks["shop.refund"].apply((tenant,)).get()
    assert "... and 5 more (--all)" in run("show", "tenant")
    assert "more" not in run("show", "tenant", "--all")


def test_json_is_for_programs(run: Run, app: Celery) -> None:
    """A script would have to read a table."""
    app.tasks["shop.refund"].apply(("a",)).get()
    found = [json.loads(line) for line in run("--json").splitlines()]
    assert [one["name"] for one in found] == ["stripe", "tenant"]
    shown = json.loads(run("show", "tenant", "--json"))
    assert shown["rate"] == "1/s"
    assert shown["waiting"] == 0
    assert shown["buckets"][0]["key"] == '"a"'


def test_a_rate_is_set_and_taken_back(run: Run, app: Celery) -> None:
    """An operator could not steer a limit, or not get back."""
    output = run("set", "stripe", "50/m", "--burst", "5")
    assert rows(output)[1][:5] == ["stripe", "50/m", "(declared", "25/s)", "5"]
    assert rows(run())[1][:2] == ["stripe", "50/m"]
    run("reset", "stripe")
    assert rows(run())[1][:3] == ["stripe", "25/s", "100"]


def test_a_limit_is_closed_and_opened(run: Run, app: Celery) -> None:
    """An operator could not answer a call from the other side."""
    assert "closed stripe for 60 s" in run("penalize", "stripe", "60")
    penalty = rows(run())[1][-2]
    assert 55 < float(penalty) <= 60
    assert not acquire(TokenBucket("25/s", name="stripe"), app=app)
    run("reset", "stripe")
    assert acquire(TokenBucket("25/s", name="stripe"), app=app)


def test_a_reset_may_fill_the_buckets(run: Run, app: Celery) -> None:
    """A reset would let a burst through that nobody asked for, or never could."""
    slow = TokenBucket("1/h", name="slow")
    acquire(slow, app=app)
    run("reset", "slow")
    assert not acquire(slow, app=app)
    run("reset", "slow", "--full")
    assert acquire(slow, app=app)


def test_what_nobody_knows_is_an_error(run: Run) -> None:
    """A misspelt name would look like a limit that nobody uses."""
    assert "no task declares a limit strip" in run("show", "strip", code=1)
    assert 'such as "25/s"' in run("set", "stripe", "fast", code=1)
    run("penalize", "stripe", "-1", code=2)


def test_a_store_that_is_away_is_an_error(app: Celery, run: Run) -> None:
    """An operator would see a traceback."""
    with memory_store("redis://127.0.0.1:1/0"):
        assert "127.0.0.1:1" in run(code=1)


@pytest.mark.parametrize("words", [("set", "strip", "5/s"), ("penalize", "strip", "30"), ("reset", "strip")])
def test_a_name_that_nobody_knows_is_said_to_be_one(run: Run, words: tuple[str, ...]) -> None:
    """An operator who misspells a name would believe that the limit is closed."""
    assert "note: no task of this app declares a limit strip" in run(*words)
    assert "note" not in run(words[0], "stripe", *words[2:])


def test_what_is_not_known_of_a_limit_is_not_made_up(run: Run) -> None:
    """A limit of another app would be shown as empty, or full."""
    run("set", "other", "5/s")
    assert rows(run("show", "other"))[1][:4] == ["other", "5/s", "-", "-"]
