"""What the places under a limit are meant to be, in Python, for the scripts to be checked against."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Model:
    """The places under one limit, and the line. Times in seconds."""

    limit: int
    lease: float
    slack: float
    remember: float
    now: float = 0.0
    holders: dict[str, tuple[str, float]] = field(default_factory=dict)
    forgotten: dict[str, float] = field(default_factory=dict)
    line: dict[str, float] = field(default_factory=dict)
    looks: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def advance(self, by: float) -> None:
        self.now += by
        self.ended = {task: until for task, until in self.ended.items() if until > self.now}
        self.holders = {task: held for task, held in self.holders.items() if self.forgotten[task] > self.now}

    def acquire(
        self, task: str, nonce: str, *, again: bool, arrived: float, near: float, far: float
    ) -> tuple[str, object]:
        if task in self.ended and not again:
            return "ended", None
        if self.lives(task):
            return ("started", None) if self.holders[task][0] == nonce else ("copy", self.holders[task][0])
        self.holders = {one: held for one, held in self.holders.items() if held[1] > self.now}
        for one in [one for one, until in self.looks.items() if until <= self.now]:
            del self.line[one], self.looks[one]
        arrived = self.line.get(task, arrived)
        ahead = sum(1 for one, since in self.line.items() if one != task and since <= arrived)
        if ahead >= self.limit - len(self.holders):
            wait = near if ahead < self.limit else far
            if wait:
                self.line[task] = arrived
                self.looks[task] = self.now + wait + self.slack
            return "full", (wait, ahead)
        self.leave_line(task)
        self.ended.pop(task, None)
        self._hold(task, nonce)
        return "started", None

    def renew(self, task: str, nonce: str) -> bool:
        if task not in self.holders or self.holders[task][0] != nonce:
            return False
        self._hold(task, nonce)
        return True

    def release(self, task: str, nonce: str, *, ended: bool, grace: float) -> bool:
        self.leave_line(task)
        if task not in self.holders or self.holders[task][0] != nonce:
            return task in self.ended
        if ended:
            self.ended[task] = self.now + self.remember
        if grace and self.lives(task):
            self.holders[task] = nonce, min(self.holders[task][1], self.now + grace)
        else:
            del self.holders[task]
        return True

    def _hold(self, task: str, nonce: str) -> None:
        self.holders[task] = nonce, self.now + self.lease
        self.forgotten[task] = self.now + 2 * self.lease

    def leave_line(self, task: str) -> None:
        self.line.pop(task, None)
        self.looks.pop(task, None)

    def lives(self, task: str) -> bool:
        return task in self.holders and self.holders[task][1] > self.now

    def living(self) -> set[str]:
        return {task for task in self.holders if self.lives(task)}
