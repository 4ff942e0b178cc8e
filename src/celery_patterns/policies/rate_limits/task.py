"""The base class of limited tasks, with its flat options."""

from __future__ import annotations

from typing import Any, ClassVar

from celery_patterns.core.task import PolicyTask
from celery_patterns.errors import PolicyError
from celery_patterns.policies.rate_limits.policy import RateLimits, TokenBucket
from celery_patterns.policies.rate_limits.rate import Rate

_FLAT = ("rate_limit_key", "tokens_per_second", "bucket_size")


class TokenBucketTask(PolicyTask):
    """A task with ``token_bucket = TokenBucket(...)`` or ``token_bucket = RateLimits(...)``.

    Three flat options in Celery's style build the value instead, where it needs no more:
    ``tokens_per_second=25``, ``bucket_size=100`` (the burst; default 1) and
    ``rate_limit_key="stripe_api"`` (the limit's name; default: the task's).

    Raises:
        PolicyError: Flat options stand beside a value, or ``tokens_per_second`` is missing.
    """

    abstract = True
    needs_policy: ClassVar[str | None] = "token_bucket"
    token_bucket: TokenBucket | RateLimits | None = None

    rate_limit_key: str | None = None
    tokens_per_second: float | None = None
    bucket_size: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        written = [name for name in _FLAT if name in vars(cls)]
        if written:
            if "token_bucket" in vars(cls):
                raise PolicyError(
                    f"{cls.__name__}: give token_bucket, or {', '.join(written)}; both would be two limits"
                )
            cls.token_bucket = _built(cls)
        super().__init_subclass__(**options)


def _built(cls: type[TokenBucketTask]) -> TokenBucket | None:
    """The value that the flat options of a class, and of its bases, mean."""
    if cls.tokens_per_second is None:
        if vars(cls).get("abstract"):
            return None
        raise PolicyError(f"{cls.__name__}: rate_limit_key and bucket_size need tokens_per_second")
    burst = 1 if cls.bucket_size is None else cls.bucket_size
    try:
        return TokenBucket(Rate(cls.tokens_per_second, per=1), burst=burst, name=cls.rate_limit_key)
    except PolicyError as error:
        written = ", ".join(f"{name}={getattr(cls, name)!r}" for name in _FLAT)
        raise PolicyError(f"{cls.__name__}: {written}: {error}") from error
