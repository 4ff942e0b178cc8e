"""What the places under a limit are meant to be, in Python, for the scripts to be checked against."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Model:
    """The places under one limit, and the line. Times in seconds.

    ``holders`` are the leases; ``places`` is the set that counts them, from which a lapsed one is taken,
    with its lease, only when somebody needs its place or a line is there.
    """

    limit: int
    lease: float
    slack: float
    remember: float
    pace: float
    now: float = 0.0
    holders: dict[str, tuple[str, float]] = field(default_factory=dict)
    forgotten: dict[str, float] = field(default_factory=dict)
    places: dict[str, float] = field(default_factory=dict)
    places_end: float = 0.0
    line: dict[str, float] = field(default_factory=dict)
    line_end: float = 0.0
    looks: dict[str, float] = field(default_factory=dict)
    ended: dict[str, tuple[str, float]] = field(default_factory=dict)

    def advance(self, by: float) -> None:
        self.now += by
        self.ended = {task: mark for task, mark in self.ended.items() if mark[1] > self.now}
        self.holders = {task: held for task, held in self.holders.items() if self.forgotten[task] > self.now}
        if self.places_end <= self.now:
            self.places.clear()
        if self.line_end <= self.now:
            self.line.clear()
            self.looks.clear()

    def acquire(
        self, task: str, nonce: str, *, again: bool, arrived: float, near: float, far: float
    ) -> tuple[str, object]:
        if task in self.ended and not again:
            return "ended", None
        if self.lives(task):
            return ("started", None) if self.holders[task][0] == nonce else ("copy", self.holders[task][0])
        if len(self.places) >= self.limit or self.line:
            self._drop_the_lapsed()
            arrived = self.line.get(task, arrived)
            ahead = sum(1 for one, since in self.line.items() if one != task and since <= arrived)
            if ahead >= self.limit - len(self.places):
                next_ = self.next()
                wait = min(far, near + ahead // self.limit * self.pace) if near else 0.0
                if wait:
                    self._stand_in_line(task, arrived, wait)
                return "full", (wait, ahead, next_)
        self.leave_line(task)
        self.ended.pop(task, None)
        self._hold(task, nonce)
        return "started", None

    def next(self) -> tuple[str, ...]:
        """Those of the line for whom places are free."""
        waiting = sorted(self.line, key=lambda one: (self.line[one], one))
        return tuple(waiting[: max(0, self.limit - len(self.places))])

    def renew(self, task: str, nonce: str) -> bool:
        if task not in self.holders or self.holders[task][0] != nonce:
            return False
        self._lease(task, nonce)
        if task in self.places:
            self.places[task] = self.now + self.lease
            self.places_end = max(self.places_end, self.forgotten[task])
        return True

    def release(self, task: str, nonce: str, *, by_fence: bool, ended: bool, grace: float) -> bool:
        if not by_fence:
            self.leave_line(task)
        mark = nonce, self.now + self.remember
        if task not in self.holders or self.holders[task][0] != nonce:
            if not (by_fence and ended) or self.ended.get(task, ("",))[0] == nonce:
                return task in self.ended
            if task not in self.holders:
                self.ended[task] = mark
            return False
        if ended:
            self.ended[task] = mark
        if grace and self.lives(task):
            self.holders[task] = nonce, min(self.holders[task][1], self.now + grace)
            self.places[task] = self.holders[task][1]
        else:
            del self.holders[task]
            self.places.pop(task, None)
        return True

    def _lease(self, task: str, nonce: str) -> None:
        self.holders[task] = nonce, self.now + self.lease
        self.forgotten[task] = self.now + 2 * self.lease

    def _hold(self, task: str, nonce: str) -> None:
        self._lease(task, nonce)
        if not self.places or self.places_end < self.forgotten[task]:
            self.places_end = self.now + 4 * self.lease
        self.places[task] = self.now + self.lease

    def _drop_the_lapsed(self) -> None:
        for task in [task for task, until in self.places.items() if until <= self.now]:
            del self.places[task]
            self.holders.pop(task, None)
        for task in [task for task, until in self.looks.items() if until <= self.now]:
            self.leave_line(task)

    def _stand_in_line(self, task: str, arrived: float, wait: float) -> None:
        if not self.line:
            self.line_end = self.now
        self.line[task] = arrived
        self.looks[task] = self.now + wait + self.slack
        self.line_end = max(self.line_end, self.looks[task])

    def leave_line(self, task: str) -> None:
        self.line.pop(task, None)
        self.looks.pop(task, None)

    def lives(self, task: str) -> bool:
        return task in self.holders and self.holders[task][1] > self.now

    def living(self) -> set[str]:
        return {task for task in self.holders if self.lives(task)}
