"""What a singleton's lock is meant to be, in Python, for the scripts to be checked against."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Holder:
    """Who has the lock: a task in the queue (no nonce), or one delivery of it."""

    task: str
    nonce: str | None
    until: float

    @property
    def owner(self) -> str:
        return f"{self.task}/{self.nonce or ''}"


@dataclass
class Turn:
    """Whose turn is next."""

    task: str
    at: float
    until: float


@dataclass
class Model:
    """One lock under one policy. Times in seconds."""

    on_conflict: str
    lease: float
    queued: float
    remember: float
    turn_kept: float
    most_kept: float
    pace: float
    longest_turn: float
    now: float = 0.0
    holder: Holder | None = None
    turn: Turn | None = None
    line: dict[str, float] = field(default_factory=dict)
    looks: dict[str, float] = field(default_factory=dict)
    line_until: float = 0.0
    vanished: str | None = None
    newest: float = 0.0
    key_until: float = 0.0
    marks: dict[str, tuple[str, str, float]] = field(default_factory=dict)

    @property
    def wants_newest(self) -> bool:
        return self.on_conflict in {"replace", "keep_latest"}

    def advance(self, by: float) -> None:
        self.now += by
        self.marks = {task: mark for task, mark in self.marks.items() if mark[2] > self.now}
        if self.key_until <= self.now:
            self.holder = self.turn = self.vanished = None
            self.newest = 0.0
        for task in [task for task, until in self.looks.items() if until <= self.now]:
            self._leave_line(task)

    def publish(self, task: str) -> tuple[str, str | None]:
        self.marks.pop(task, None)
        self._note_a_vanished_holder()
        self._settle()
        holder = self.holder
        if self._free() or holder.task == task or (self.on_conflict == "replace" and holder.nonce is None):
            if not self._free() and holder.task == task and holder.nonce:
                self._keep(self.queued)
                return "queued", None
            if not self._free() and holder.task != task:
                self._replaced(holder.task, task, holder.until)
            self.holder = Holder(task, None, self.now + self.queued)
        elif self.on_conflict == "use_existing" and self._has_ended(holder):
            if self._has_turn() and self.turn.task != task:
                return "held", f"{self.turn.task}/"
            self._give_turn(task, self.now, self.queued)
        elif not self.wants_newest:
            return "held", holder.owner
        else:
            self._give_turn(task, self.now, self.queued)
        self.newest = self.now
        self._keep(self.queued)
        return "queued", None

    def begin(  # noqa: C901, PLR0911 - one rule after the other, as the page on singletons has them
        self, task: str, nonce: str, *, at: float | None, arrived: float, follows: str | None, again: bool
    ) -> tuple[str, object]:
        word, what, _ = self.marks.get(task, (None, None, 0))
        if word == "ended" and not again:
            return "ended", None
        if word == "replaced" and not follows:
            return "replaced", what
        if follows in self.marks:
            their, by, _ = self.marks[follows]
            return ("over", None) if their == "ended" else ("moved", by)
        self._settle()
        holder = self.holder
        if not self._free() and holder.task != task:
            if follows:
                return "held", (holder.owner, None, False)
            if self.on_conflict == "use_existing":
                return "held", (holder.owner, None, self._has_ended(holder))
            if self.on_conflict == "defer":
                return "held", (holder.owner, self._stand_in_line(task, arrived), False)
            mine = arrived if at is None else at
            if self.turn and self.turn.task == task:
                self._give_turn(task, self.turn.at, self.turn_kept)
                return "held", (holder.owner, 0, False)
            if mine < self.newest:
                return "replaced", self.turn.task if self.turn else holder.task
            self.newest = mine
            if self.on_conflict == "keep_latest" or holder.nonce:
                self._give_turn(task, mine, self.turn_kept)
                return "held", (holder.owner, 0, False)
            self._replaced(holder.task, task, holder.until)
        elif not self._free() and holder.nonce:
            return ("started", None) if holder.nonce == nonce else ("held", (holder.owner, None, False))
        self._note_a_vanished_holder()
        lapsed, self.vanished = self.vanished, None
        self._leave_line(task)
        self.marks.pop(task, None)
        if self.turn and self.turn.task == task:
            self.turn = None
        self.holder = Holder(task, nonce, self.now + self.lease)
        self.newest = arrived if at is None else at
        self._keep(self.lease + self.remember)
        return "started", lapsed

    def renew(self, owner: str) -> bool:
        if not self.holder or self.holder.owner != owner:
            return False
        self.holder.until = self.now + self.lease
        self._keep(self.lease + self.remember)
        return True

    def release(self, owner: str, *, ended: bool) -> str | None:
        """A delivery gives up its lease; whoever has it instead, "" if nobody has it any more."""
        task = owner.partition("/")[0]
        if self.holder and self.holder.owner == owner:
            self._ended(owner, ended)
            self._pass_on()
            return None
        if self.holder and self.holder.owner == f"{task}/":
            return None
        word, by, _ = self.marks.get(task, (None, None, 0))
        if not ended:
            return self.holder.owner if self.holder and not word else None
        if (word, by) == ("ended", owner):  # asked again
            return None
        if not self.holder or self.holder.task != task:
            self._ended(owner, ended)
        return self.holder.owner if self.holder else ""

    def hand_back(self, owner: str) -> str | None:
        task = owner.partition("/")[0]
        if self.holder and self.holder.owner == owner and task in self.marks:
            self._pass_on()
        elif self.holder and self.holder.owner == owner:
            self.holder = Holder(task, None, self.now + self.queued)
            self._keep(self.queued)
        elif self.holder and not self._is_done(task):
            return self.holder.owner
        return None

    def fail(self, owner: str, grace: float) -> None:
        """The task will not run again."""
        task = owner.partition("/")[0]
        self._leave_line(task)
        if self.turn and self.turn.task == task:
            self.turn = None
        if self.holder is None or self.holder.owner not in {owner, f"{task}/"}:
            return
        self._ended(owner, ended=True)
        if self.holder.nonce and grace and not self._free():
            self.holder.until = min(self.holder.until, self.now + grace)
            self.key_until = max(
                self.holder.until, self.turn.until if self._has_turn() else 0, self.line_until
            )
        else:
            self._pass_on()

    def lapse(self, owner: str, grace: float) -> None:
        if self.holder and self.holder.owner == owner:
            self.holder.until = min(self.holder.until, self.now + grace)

    def _is_done(self, task: str) -> bool:
        return task in self.marks or self.holder.owner == f"{task}/"

    def _free(self) -> bool:
        return self.holder is None or self.holder.until <= self.now

    def _has_turn(self) -> bool:
        return self.turn is not None and self.turn.until > self.now

    def _has_ended(self, holder: Holder) -> bool:
        return holder.nonce is not None and self.marks.get(holder.task, ("",))[0] == "ended"

    def _note_a_vanished_holder(self) -> None:
        if self.holder and self._free() and self.holder.nonce and not self._has_ended(self.holder):
            self.vanished = self.holder.owner

    def _stand_in_line(self, task: str, arrived: float) -> int:
        self.line.setdefault(task, arrived)
        ahead = sum(1 for since in self.line.values() if since < self.line[task])
        kept = min(self.most_kept, self.turn_kept + ahead * self.pace)
        self.looks[task] = self.now + kept
        self.line_until = max(self.line_until, self.looks[task])
        self._keep(kept)
        return ahead

    def _leave_line(self, task: str) -> None:
        self.line.pop(task, None)
        self.looks.pop(task, None)
        if not self.line:
            self.line_until = 0.0

    def _settle(self) -> None:
        """Whoever has the next turn has it now, if the holder is gone."""
        if self.holder and self._free():
            self._note_a_vanished_holder()
            self._hand_on()
        if not self._has_turn():
            self.turn = None

    def _hand_on(self) -> bool:
        if self._has_turn():
            self.holder, self.turn = Holder(self.turn.task, None, self.turn.until), None
        elif self.line:
            first = min(self.line, key=self.line.__getitem__)
            until = min(self.now + self.longest_turn, self.looks[first])
            self._leave_line(first)
            self.holder = Holder(first, None, until)
            self._keep(until - self.now)
        else:
            return False
        return True

    def _pass_on(self) -> None:
        if not self._hand_on():
            self.holder = self.turn = self.vanished = None
            self.newest = self.key_until = 0.0

    def _give_turn(self, task: str, at: float, kept: float) -> None:
        if self._has_turn() and self.turn.task != task and self.wants_newest:
            self._replaced(self.turn.task, task, self.turn.until)
        self.turn = Turn(task, at, self.now + kept)
        self._keep(kept)

    def _replaced(self, task: str, by: str, until: float) -> None:
        self.marks[task] = ("replaced", by, max(self.now + self.remember, until))

    def _ended(self, owner: str, ended: bool) -> None:
        if ended:
            self.marks[owner.partition("/")[0]] = ("ended", owner, self.now + self.remember)

    def _keep(self, for_: float) -> None:
        self.key_until = max(self.key_until, self.now + for_)
