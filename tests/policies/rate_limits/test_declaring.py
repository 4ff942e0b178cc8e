"""Declaring limits: all spellings, and each mistake with its remedy, before any call."""

from typing import Any

import pytest
from celery import Celery, Task, shared_task

from celery_patterns import (
    Idempotency,
    IdempotentTask,
    PolicyError,
    PolicyTask,
    Rate,
    RateLimits,
    TokenBucket,
    TokenBucketTask,
    rate_limits,
    token_bucket,
)
from celery_patterns.core.install import seam_of


@pytest.fixture
def app() -> Celery:
    return Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)


def limits_of(task: Any) -> list[TokenBucket]:
    """The limits that a task obeys."""
    seam = seam_of(task)
    assert seam is not None
    return [limit for policy in seam.policies if policy.kind == "token_bucket" for limit in policy.limits]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": "fast"}, "25/s"),
        ({"rate": 25}, "25/s"),
        ({"burst": 0}, "burst=0"),
        ({"burst": 1.5}, "burst=1.5"),
        ({"burst": True}, "burst=True"),
        ({"cost": 0}, "cost=0"),
        ({"cost": 2}, "cost=2 is more than burst=1"),
        ({"cost": ""}, "name an argument"),
        ({"cost": 1.5}, "1.5"),
        ({"key": ""}, "name an argument"),
        ({"key": 7}, "key=7"),
        ({"name": ""}, "name=''"),
        ({"name": 7}, "name=7"),
        ({"burst": 30, "strict": True}, "at most 25"),
        ({"strict": "no"}, "True or False"),
        ({"rate": "1/d", "burst": 10_000}, "too large"),
        ({"max_wait": -1}, "max_wait=-1"),
        ({"max_wait": "1m"}, "max_wait='1m'"),
        ({"on_limited": "wait"}, "'defer', 'skip', 'raise'"),
        ({"on_store_error": "ignore"}, "'defer', 'raise', 'allow'"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_option_fails_when_declared(options: dict[str, Any], message: str) -> None:
    """A typo would be found by the customers."""
    with pytest.raises(TypeError, match=message):
        TokenBucket(**{"rate": "25/s", **options})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (RateLimits, "one limit or more"),
        (lambda: RateLimits("25/s"), "TokenBucket"),  # type: ignore[arg-type]
        (lambda: RateLimits(TokenBucket("1/s", name="a"), TokenBucket("9/m", name="a")), "name of its own"),
        (
            lambda: RateLimits(TokenBucket("1/s"), TokenBucket("9/m", on_store_error="allow")),
            "on_store_error",
        ),
    ],
)
def test_limits_that_cannot_stand_together_are_refused(make: Any, message: str) -> None:
    """One bucket would be asked twice in one script, and spend half."""
    with pytest.raises(PolicyError, match=message):
        make()


def test_all_spellings_are_one(app: Celery) -> None:
    """A base class, an attribute and a decorator would limit in different ways."""
    value = TokenBucket("25/s", burst=100, name="stripe")

    @app.task(base=TokenBucketTask, token_bucket=value)
    def one() -> None: ...

    @token_bucket("25/s", burst=100, name="stripe")
    @app.task
    def two() -> None: ...

    class Base(TokenBucketTask):
        abstract = True
        token_bucket = value

    @app.task(base=Base)
    def three() -> None: ...

    @app.task(base=TokenBucketTask, rate_limit_key="stripe", tokens_per_second=25, bucket_size=100)
    def four() -> None: ...

    class Five(TokenBucketTask):
        name = "shop.five"
        token_bucket = value

        def run(self) -> None: ...

    five = app.register_task(Five())
    assert [limits_of(task) for task in (one, two, three, four, five)] == [[value]] * 5


def test_a_shared_task_can_be_limited(app: Celery) -> None:
    """Reusable apps could not limit their tasks."""

    @token_bucket("25/s")
    @shared_task(name="shared.refund")
    def refund() -> None: ...

    app.finalize()
    assert limits_of(app.tasks["shared.refund"]) == [TokenBucket("25/s")]


def test_several_limits_are_one_policy(app: Celery) -> None:
    """A task could have one limit only, or spend one while the other denies."""

    @rate_limits(TokenBucket("10/s"), TokenBucket("1000/h"), TokenBucket("5/s", key="tenant", name="tenant"))
    @app.task
    def call(tenant: str) -> None: ...

    assert [str(limit.rate) for limit in limits_of(call)] == ["10/s", "1000/h", "5/s"]


@pytest.mark.parametrize("second", [TokenBucket("1/m"), RateLimits(TokenBucket("1/m"))])
def test_two_on_one_task_name_the_remedy(app: Celery, second: Any) -> None:
    """Two token buckets on a task would each spend although the other denies."""
    with pytest.raises(PolicyError, match=r"use RateLimits\(a, b\)"):
        type("Both", (PolicyTask,), {"one": TokenBucket("25/s"), "two": second})

    @app.task(base=TokenBucketTask, token_bucket=TokenBucket("25/s"), lazy=False)
    def limited() -> None: ...

    with pytest.raises(PolicyError, match=r"use RateLimits\(a, b\)"):
        token_bucket("1/m")(limited)


def test_a_policy_in_celerys_own_attribute_is_refused() -> None:
    """`rate_limit = TokenBucket(...)` would be Celery's broken limit per worker, or none."""
    with pytest.raises(PolicyError, match="name it token_bucket instead"):
        type("Wrong", (PolicyTask,), {"rate_limit": TokenBucket("25/s")})


def test_a_base_without_its_value_is_refused(app: Celery) -> None:
    """A task that was meant to be limited would not be."""
    with pytest.raises(PolicyError, match="needs the attribute 'token_bucket'"):

        @app.task(base=TokenBucketTask, lazy=False)
        def forgotten() -> None: ...


def test_a_decorator_without_its_rate_is_refused(app: Celery) -> None:
    """@token_bucket without a rate would take the task for one."""
    with pytest.raises(PolicyError, match=r'@token_bucket\("25/s"\)'):

        @token_bucket  # type: ignore[arg-type]
        @app.task
        def call() -> None: ...


@pytest.mark.parametrize("option", ["key", "cost"])
def test_an_argument_that_the_task_does_not_have_fails_when_declared(app: Celery, option: str) -> None:
    """A misspelt key or cost would fail at the first call, in production."""
    with pytest.raises(PolicyError, match=r"'tenat'.*tenant"):

        @app.task(base=TokenBucketTask, token_bucket=TokenBucket("25/s", **{option: "tenat"}), lazy=False)
        def call(tenant: str) -> None: ...


class TestFlatOptions:
    """rate_limit_key, tokens_per_second, bucket_size."""

    def test_they_have_defaults(self, app: Celery) -> None:
        """Only a rate would not do."""

        @app.task(base=TokenBucketTask, tokens_per_second=0.5)
        def call() -> None: ...

        assert limits_of(call) == [TokenBucket(Rate(1, per=2))]

    def test_a_base_may_give_some(self, app: Celery) -> None:
        """A rate for all tasks of a base, and a name for each, would not go together."""

        class Base(TokenBucketTask):
            abstract = True
            bucket_size = 7

        @app.task(base=Base, tokens_per_second=2, rate_limit_key="a")
        def call() -> None: ...

        assert limits_of(call) == [TokenBucket("2/s", burst=7, name="a")]

    def test_a_task_may_override_those_of_its_base(self, app: Celery) -> None:
        """A task could not differ from its base."""

        class Base(TokenBucketTask):
            abstract = True
            tokens_per_second = 1

        @app.task(base=Base, bucket_size=3)
        def call() -> None: ...

        assert limits_of(call) == [TokenBucket("1/s", burst=3)]

    def test_they_need_a_rate(self) -> None:
        """A name alone would be no limit."""
        with pytest.raises(PolicyError, match="tokens_per_second"):
            type("Wrong", (TokenBucketTask,), {"rate_limit_key": "stripe"})

    def test_they_do_not_stand_beside_a_value(self) -> None:
        """Nobody could say which of the two holds."""
        with pytest.raises(PolicyError, match="two limits"):
            type("Wrong", (TokenBucketTask,), {"tokens_per_second": 1, "token_bucket": TokenBucket("1/s")})

    def test_a_wrong_one_fails_when_declared(self) -> None:
        """A typo would be found by the customers."""
        with pytest.raises(PolicyError, match="tokens_per_second='25/s'"):
            type("Wrong", (TokenBucketTask,), {"tokens_per_second": "25/s"})


def test_any_mix_of_bases_in_any_order(app: Celery) -> None:
    """The order of bases would decide what a task obeys."""
    for bases in ((IdempotentTask, TokenBucketTask), (TokenBucketTask, IdempotentTask)):
        base = type(
            "Mixed",
            bases,
            {"abstract": True, "idempotency": Idempotency("a"), "token_bucket": TokenBucket("1/s")},
        )

        @app.task(base=base, name=f"shop.{bases[0].__name__}")
        def call(a: int) -> None: ...

        seam = seam_of(call)
        assert [policy.kind for policy in seam.policies] == ["idempotency", "token_bucket"]  # type: ignore[union-attr]
    assert isinstance(call, Task)
