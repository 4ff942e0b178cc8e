"""What is changed while workers run: rates, a factor for all of them, limits closed for a while.

It lives in one text, which the script that takes tokens reads together with the buckets. So a change
acts on the next call that asks, in whichever process, and a call that waits asks at least once a second
while its line is short. It holds what differs from the declarations: as a rule there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from celery.app import app_or_default

from celery_patterns.core.durations import Seconds, seconds
from celery_patterns.core.script import Script
from celery_patterns.core.store import Store, store_of, tag
from celery_patterns.errors import PolicyError
from celery_patterns.policies.rate_limits.buckets import Bucket, buckets_in_use, close, steering_key
from celery_patterns.policies.rate_limits.look import look_outside
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.waiting.room import Room

if TYPE_CHECKING:
    from celery import Celery

_steer = Script("limit_steer")

FACTOR = ""
"""The name whose rate is the factor of all rates; no limit is called so."""


@dataclass(frozen=True, slots=True)
class Steered:
    """What is set at run time for one name.

    Args:
        rate: In place of the declared one; ``None`` where that holds.
        burst: Likewise.
        closed: Until when all buckets are closed, in seconds of the server's time; 0 for never.
    """

    rate: Rate | None = None
    burst: int | None = None
    closed: float = 0.0


def steering_of(store: Store) -> tuple[Fraction, dict[str, Steered]]:
    """The factor of all rates, and what is set for each name.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    with store.reporting():
        text: bytes = store.client.get(steering_key(store)) or b""
    lines = (line.partition(":") for line in text.decode().split("\n")[1:])
    said = {unquote(name): [int(number) for number in numbers.split()] for name, _, numbers in lines}
    num, den, *_ = said.pop(FACTOR, (1, 1))
    return Fraction(num, den), {name: _steered(*numbers) for name, numbers in said.items()}


def _steered(n: int, per_us: int, burst: int, closed_us: int) -> Steered:
    return Steered(Rate(n, per=per_us / 1e6) if n else None, burst or None, closed_us / 1e6)


class RateLimitManager:
    """Steer limits at run time, for all workers at once.

    Changes stay until they are taken back. A limit is known by its name, whether a task of this app
    declares it or not.

    Args:
        app: Whose limits; default: the current app.
    """

    def __init__(self, app: Celery | None = None) -> None:
        self.app = app_or_default(app)

    def adjust_rate(self, name: str, rate: Rate | str, *, burst: int | None = None) -> None:
        """Give a limit another rate, and another burst if given, in place of what is declared.

        The tokens that its buckets lack stay the same; from now on they fill at the new rate.

        Raises:
            PolicyError: It is no name, no rate, or no burst.
            StoreUnavailable: The store is out of reach.
        """
        _checked(name)
        new = Rate.of(rate)
        if burst is not None and (isinstance(burst, bool) or not isinstance(burst, int) or burst < 1):
            raise PolicyError(f"burst={burst!r}: give a whole number, 1 or more")
        new.check_countable(burst or 1, strict=True)
        holds = {} if burst is None else {"burst": burst}
        _steer_name(self._store, name, n=new.count, per_us=new.per_us, **holds)
        Room(self._store).wake_all()

    def reduce_for_high_load(self, factor: float) -> None:
        """Multiply the rates of all limits, declared or adjusted, until :meth:`restore_defaults`.

        Args:
            factor: Above 0, and at most 1; it is taken to the hundredth.

        Raises:
            PolicyError: It is not.
            StoreUnavailable: The store is out of reach.
        """
        is_share = isinstance(factor, (int, float)) and 0 < factor <= 1
        share = Fraction(round(factor * 100), 100) if is_share else Fraction(0)
        if not share:
            raise PolicyError(f"factor={factor!r}: give a share of the rates, from 0.01 to 1")
        num, den = share.as_integer_ratio() if share < 1 else (0, 0)
        _steer_name(self._store, FACTOR, n=num, per_us=den)
        Room(self._store).wake_all()

    def restore_defaults(self, name: str | None = None) -> None:
        """Take back what was adjusted, reduced and penalised; the tokens stay as they are.

        Args:
            name: Of one limit; default: of all, and the factor as well.

        Raises:
            StoreUnavailable: The store is out of reach.
        """
        store = self._store
        if name is None:
            with store.reporting():
                store.client.delete(steering_key(store))
        else:
            _steer_name(store, _checked(name), n=0, per_us=0, burst=0, closed_us=0)
        for bucket in buckets_in_use(store, name):
            close(store, [bucket], 0)
        Room(store).wake_all()

    def refill(self, name: str) -> None:
        """Fill all buckets of a limit, as if nobody had passed: its bound holds anew from now on.

        Raises:
            StoreUnavailable: The store is out of reach.
        """
        store = self._store
        for bucket in buckets_in_use(store, _checked(name)):
            with store.reporting():
                store.client.delete(bucket.redis_key(store), bucket.log_key(store))
        Room(store).wake_all()

    def penalize(self, name: str, duration: Seconds, *, key: Any = None) -> None:
        """As the function :func:`penalize`, in this app."""
        penalize(name, duration, key=key, app=self.app)

    @property
    def _store(self) -> Store:
        return store_of(self.app)


def penalize(name: str, duration: Seconds, *, key: Any = None, app: Celery | None = None) -> None:
    """Let nobody pass a limit for a while, in any worker: for a 429 with ``Retry-After``.

    In the body of a limited task, raise :class:`~celery_patterns.errors.Throttled` instead, which
    also puts the task off. A penalty that is under way is prolonged, never shortened.

    Args:
        name: The limit's name.
        duration: Seconds, or a ``timedelta``.
        key: The value of the limit's key, to close one bucket only; default: all.
        app: Whose limits; default: the current app.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    the_app = app_or_default(app)
    _checked(name)
    length = max(1e-6, seconds("duration", duration, least=0))
    if key is None:
        close_name(store_of(the_app), name, length)
    else:
        close(store_of(the_app), [Bucket(name, _key_text(key, the_app))], length)


def _checked(name: str) -> str:
    """The name of a limit.

    Raises:
        PolicyError: It is none: a limit itself, for example.
    """
    if not isinstance(name, str) or not name:
        raise PolicyError(f"name={name!r}: give the name of a limit, a string that is not empty")
    return name


def _key_text(key: Any, app: Celery) -> str:
    """The text of a key's value, as a call with this value has it."""
    parts = key if isinstance(key, tuple) else (key,)
    arguments = {f"part{number}": part for number, part in enumerate(parts)}
    look = look_outside("penalize()", arguments, app)
    return look.key(tuple(arguments) if isinstance(key, tuple) else "part0")


def close_name(store: Store, name: str, duration: float) -> None:
    """Let nobody pass any bucket of a limit for so many seconds."""
    _steer_name(store, name, closed_us=round(duration * 1e6))


def _steer_name(store: Store, name: str, **changes: int) -> None:
    """Change what is set for a name; what is not among the changes stays."""
    fields = [changes.get(field, "") for field in ("n", "per_us", "burst", "closed_us")]
    _steer(store, [steering_key(store)], [tag(name), *fields])
