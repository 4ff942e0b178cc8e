"""What each worker of an app with policies does for the room, without configuration.

It consumes release queues beside its own, keeps a pump beside itself, and tells the room when a task is
revoked. Imported by workers alone, when they start.
"""

from __future__ import annotations

import logging
import subprocess
from collections import deque
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery.signals import worker_shutdown

from celery_patterns.core.install import seam_of
from celery_patterns.core.revokes import listen
from celery_patterns.core.store import store_of
from celery_patterns.errors import PatternsError
from celery_patterns.waiting import helper
from celery_patterns.waiting.broker import room_of, transport_of
from celery_patterns.waiting.lookout import is_on
from celery_patterns.waiting.queues import release_queues
from celery_patterns.waiting.stamps import Stamps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery

    from celery_patterns.waiting.queues import ReleaseQueue

logger = logging.getLogger("celery_patterns")

_WATCH = 2.0
"""Seconds between two looks whether the pump still lives."""
_LONGEST_PAUSE = 15.0
"""Seconds, at most, until a pump that keeps dying is started again."""
_PATIENCE = 5.0
"""Seconds that a pump has to end in."""
PASSES = 4
"""How many with a turn whoever waits for a pool process lets pass."""
_PASSED = "cp_passed"


class OwnPump:
    """The pump beside this worker: started with it, started again if it dies, ended with it."""

    def __init__(self, app: Celery, queues: Sequence[ReleaseQueue]) -> None:
        self._app = app
        self._queues = queues
        self._process: subprocess.Popen[bytes] | None = None
        self._began = -inf
        self._pause = 0.0
        self.look_after()

    def look_after(self) -> None:
        """Start it, also if it has died; one that keeps dying less and less often."""
        now = monotonic()
        if (self._process is not None and self._process.poll() is None) or now < self._began + self._pause:
            return
        if self._process is not None:
            logger.warning(
                "The waiting room's pump has died (%s): starting it anew", self._process.returncode
            )
        lived = now - self._began
        self._pause = _WATCH if lived > _LONGEST_PAUSE else min(_LONGEST_PAUSE, self._pause * 2)
        self._began = now
        try:
            self._process = helper.start(self._app, self._queues)
        except (OSError, TypeError) as error:
            logger.warning(
                "Cannot start the waiting room's pump: %s. Run celery patterns pump, or what must wait does "
                "so as a countdown",
                error,
            )

    def end(self) -> None:
        """End it; what it has not published is its successor's."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()


_pumps: list[OwnPump] = []


def open_beside(worker: Any) -> None:
    """Before the pool starts: its processes must not inherit anything of this."""
    app = worker.app
    if not (is_on(app) and _has_policies(app)):
        return
    try:
        store = store_of(app)
    except PatternsError as error:
        logger.debug("No waiting room: %s", error)
        return
    if store.url.startswith("memory:") or transport_of(app) == "memory":
        return  # it is within one process, and a pump is another
    queues = release_queues(app, store.prefix)
    for queue in queues:
        app.amqp.queues.select_add(queue.declaration())
    pump = OwnPump(app, queues)
    _pumps.append(pump)
    worker.timer.call_repeatedly(_WATCH, pump.look_after)
    let_turns_pass(worker)


def let_turns_pass(worker: Any) -> None:
    """Whoever has a turn goes to a pool process before those who have none, where many are prefetched.

    Behind them it would come too late for its token, and the limit would stand idle. Each lets so many pass
    and no more, since a limit may let more start than there are slots. Pools that do not keep their tasks in
    a semaphore's line (all but prefork) are left alone.
    """
    acquire = getattr(worker, "_quick_acquire", None)
    line = getattr(getattr(worker, "semaphore", None), "_waiting", None)
    if acquire is None or not isinstance(line, deque):
        return

    def acquire_in_turn(callback: Any, request: Any, *more: Any) -> bool:
        if acquire(callback, request, *more):
            return True
        if getattr(request, "has_turn", False):
            last, passed = line.pop(), []
            while line and _lets_pass(line[-1]):
                passed.append(line.pop())
            line.append(last)
            line.extend(reversed(passed))
        return False

    worker._quick_acquire = acquire_in_turn  # noqa: SLF001 - Celery has no other place for it


def _lets_pass(waits: tuple[Any, ...]) -> bool:
    """Whether what waits for a pool process (a callback, its arguments, named ones) lets one more pass."""
    state: dict[str, Any] | None = getattr(waits[1][0], "__dict__", None) if waits[1] else None
    if state is None or state.get("has_turn"):
        return False
    state[_PASSED] = state.get(_PASSED, 0) + 1
    return bool(state[_PASSED] <= PASSES)


def _has_policies(app: Celery) -> bool:
    return any(seam.policies for seam in map(seam_of, app.tasks.values()) if seam is not None)


@worker_shutdown.connect
def _close(**_: Any) -> None:
    while _pumps:
        _pumps.pop().end()


class _Revokes:
    """What is revoked is revoked in the room as well, where this worker has one."""

    def revoked(self, app: Celery, ids: Sequence[str]) -> None:
        """Whoever waits in it is let out of it."""
        if not _pumps:
            return
        try:
            room_of(app).cancel(ids)
        except PatternsError as error:
            logger.warning("Revoked %s, but not in the waiting room: %s", ", ".join(ids), error)

    def revoked_by_stamps(self, app: Celery, headers: Mapping[str, Any]) -> None:
        """That is put on record for the pump."""
        if not _pumps:
            return
        try:
            Stamps(room_of(app)).revoke(headers)
        except PatternsError as error:
            logger.warning("Revoked by %s, but not in the waiting room: %s", headers, error)


listen(_Revokes())
