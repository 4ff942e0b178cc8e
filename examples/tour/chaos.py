"""Kills worker children while they work."""

import os
import random
import signal
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from examples.tour.files import entries


class Chaos:
    """While entered, sends SIGKILL to one worker child after another.

    The seed decides which of the living children is next. It cannot decide what that child is doing at the
    time, so two runs with one seed are alike, not the same.
    """

    def __init__(self, folder: Path, *, every: float, seed: int) -> None:
        self._children = folder / "children.jsonl"
        self._every = every
        self._rng = random.Random(seed)
        self._killed: list[int] = []

    @property
    def kills(self) -> int:
        """How many children have been killed so far."""
        return len(self._killed)

    def __enter__(self) -> Self:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            self._kill_one()

    def _kill_one(self) -> None:
        living = [child["pid"] for child in entries(self._children) if child["pid"] not in self._killed]
        if not living:
            return
        victim = self._rng.choice(living)
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._killed.append(victim)
