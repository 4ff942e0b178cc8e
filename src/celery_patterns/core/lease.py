"""Leases: owned, renewed and fenced, for work that outlives any timeout one could guess.

A lease is three fields of a hash in Redis, so that a record (idempotency) and a plain lock use the
same scripts: ``owner`` (task id and the nonce of one delivery), ``fence`` (a number that only
grows) and ``until`` (server time in milliseconds). Acquiring belongs to each pattern's own script;
renewing and letting lapse live here.

::

    free --acquire--> held --renew every third--> held --release/complete--> free/completed
                       |
                       +-- until passes --> lapsed --acquire by another, higher fence--> held
                                              |
                                              +-- renew/complete by the same owner: still its own

Owner and fence are compared, never the clock: a holder that overslept and was not replaced goes
on as if nothing had happened, and one that was replaced is told so and cannot touch its
successor's state. The source of the fence is Kleppmann, "How to do distributed locking" (2016).

What happens when
    renewal is late     the lease lapses; whoever comes next takes it; ``lost`` turns true here
    the process stops   (SIGSTOP) the same; after SIGCONT its renewal is refused and ``lost`` is true
    the child dies      the parent ends the lease at once; see ``request.py``
    the worker dies     the lease runs out
    the worker is shut down warm    the task ends and releases, as always
    it is shut down cold            as when the worker dies, or the child, whoever notices
    the server's clock jumps        forward: leases lapse early, the fence still orders the holders;
                                    backward: they last longer by the jump
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from celery_patterns.core.script import Script
from celery_patterns.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_patterns.core.store import Store

logger = logging.getLogger("celery_patterns")

_renew = Script("lease_renew")
_lapse = Script("lease_lapse")

KILL_GRACE = 1.0
"""Seconds that a process may live on after its hard time limit: SIGTERM, then SIGKILL 0.1 s later."""
RETRY_AFTER = 1.0
"""Seconds after which a renewal that could not reach the store is tried again, or a twentieth."""


@dataclass(slots=True, eq=False, kw_only=True)
class Lease:
    """A lease that this process holds.

    Args:
        store: Where it is.
        key: The hash that holds it.
        owner: Who holds it: task id and nonce.
        fence: Its fencing token; hand it to what you write to, and have it refuse lower ones.
        length: Seconds without renewal after which another may take it.
        keep: Seconds for which the hash must live on after each renewal.
        among: Where several hold leases of one thing: the sorted set of them, task ids by end.
        asked: When it was asked for, on this process's clock; default: now.
    """

    store: Store
    key: str
    owner: str
    fence: int
    length: float
    keep: float
    among: str | None = None
    asked: float | None = None
    _until: float = field(init=False)
    _taken: bool = field(init=False, default=False)
    _told: bool = field(init=False, default=False)
    _due: float = field(init=False)

    def __post_init__(self) -> None:
        self._extend(monotonic() if self.asked is None else self.asked)

    @property
    def lost(self) -> bool:
        """Whether another may hold it by now: it was taken, or could not be renewed in time.

        Long bodies ask this before each effect, and stop when it is true.
        """
        return self._taken or monotonic() >= self._until

    def renew(self) -> bool:
        """Ask for another full length; whether it is still ours.

        Raises:
            StoreUnavailable: Nobody knows.
        """
        asked = monotonic()
        answer = _renew(
            self.store,
            [self.key] if self.among is None else [self.key, self.among],
            [
                self.owner,
                self.fence,
                round(self.length * 1000),
                round(self.keep * 1000),
                task_id_of(self.owner),
            ],
        )
        if answer == b"lost":
            self._taken = True
            return False
        self._extend(asked)
        return True

    def _extend(self, since: float) -> None:
        self._until = since + self.length
        self._due = since + self.length / 3
        self._told = False


def task_id_of(owner: str) -> str:
    """The task id in an owner; the rest is the nonce of the delivery."""
    return owner.rpartition("/")[0]


def lapse(store: Store, key: str, owner: str, grace: float) -> None:
    """End the lease of an owner whose process is gone, ``grace`` seconds from now at the latest.

    The record stays: what becomes of a run that ended so is the policy's to decide.

    Raises:
        StoreUnavailable: Then the lease runs out by itself.
    """
    _lapse(store, [key], [owner, round(grace * 1000)])


class Keeper:
    """Renews all leases of this process, from one thread that starts with the first of them.

    It also finishes what could not be reported when the store was away (:meth:`finish`).
    """

    def __init__(self) -> None:
        self._held: set[Lease] = set()
        self._unfinished: dict[Lease, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wake = float("inf")

    def hold(self, lease: Lease) -> None:
        """Renew ``lease`` from now on."""
        with self._changed:
            self._watch_over(lease)

    def drop(self, lease: Lease) -> None:
        """Renew ``lease`` no longer."""
        with self._changed:
            self._held.discard(lease)

    def finish(self, lease: Lease, report: Callable[[], object], give_up: Callable[[], None]) -> None:
        """Keep trying to ``report`` the end of what ``lease`` guards, for as long as it lasts.

        Args:
            lease: It is renewed no longer.
            report: Raises ``StoreUnavailable`` until it succeeds.
            give_up: Called when the lease has run out before that.
        """

        def attempt() -> None:
            try:
                report()
            except StoreUnavailable:
                if monotonic() < lease._until:  # noqa: SLF001 - one module
                    raise
                give_up()

        with self._changed:
            self._unfinished[lease] = attempt
            lease._due = monotonic() + _pause(lease)  # noqa: SLF001 - one module
            self._watch_over(lease)

    def holds(self, owner: str) -> bool:
        """Whether this very process holds a lease as ``owner``."""
        with self._changed:
            return any(lease.owner == owner for lease in self._held)

    def _watch_over(self, lease: Lease) -> None:
        self._held.add(lease)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="celery-patterns-leases", daemon=True)
            self._thread.start()
        elif lease._due < self._wake:  # noqa: SLF001 - one module
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                now = monotonic()
                due = [lease for lease in self._held if lease._due <= now]  # noqa: SLF001 - one module
                if not due:
                    # An idle thread sleeps on until its planned time, so that a worker which takes
                    # one short task after the other need not wake it for each.
                    self._wake = min((lease._due for lease in self._held), default=now + _IDLE)  # noqa: SLF001
                    self._changed.wait(self._wake - now)
            for lease in due:
                self._attend(lease)

    def _attend(self, lease: Lease) -> None:
        finish = self._unfinished.get(lease)
        try:
            if finish is not None:
                finish()
                self._forget(lease)
            elif not lease.renew() and self._forget(lease):
                logger.warning("Lost the lease of %s on %s: it was taken or removed", lease.owner, lease.key)
        except StoreUnavailable as error:
            lease._due = monotonic() + _pause(lease)  # noqa: SLF001 - one module
            if lease.lost and not lease._told:  # noqa: SLF001 - one module
                lease._told = True  # noqa: SLF001 - one module
                logger.warning("The lease of %s on %s has run out: %s", lease.owner, lease.key, error)
        except Exception:  # this one thread serves every lease of the process: it must not die of one
            self._forget(lease)
            logger.exception("Cannot renew the lease of %s on %s; it will run out", lease.owner, lease.key)

    def _forget(self, lease: Lease) -> bool:
        """Have done with a lease; whether it was still held, and not dropped meanwhile."""
        with self._changed:
            held = lease in self._held
            self._held.discard(lease)
            self._unfinished.pop(lease, None)
            return held


_IDLE = 1.0
"""Seconds that the idle thread sleeps at the most before it looks for leases again."""


def _pause(lease: Lease) -> float:
    return min(RETRY_AFTER, lease.length / 20)


keeper = Keeper()
"""This process's keeper."""


def _after_fork() -> None:
    keeper.__init__()  # type: ignore[misc]  # the parent's thread, lock and leases are not ours


os.register_at_fork(after_in_child=_after_fork)
