"""A history as a checker sees it: calls, bodies, disturbances, and what was left."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from celery import states

Entry = dict[str, Any]

KILLS = {"kill_child", "kill_worker"}
FOR_EVER = float("inf")
INDEXED = {"id", "order"}
"""The fields by which entries are found without a look at all of them: an hour writes half a million."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A fault, as far as it reaches: from when to when, and whom.

    Args:
        kind: Of the fault.
        pids: The processes that it befell; None where it was the store, or the way to it.
        slot: The worker whose way to the store it was; None where it befell all of them.
        start: When it began.
        end: When it was over. A process that was to be killed is dead by then.
        entry: As it stands in the history.
    """

    kind: str
    pids: frozenset[int] | None
    slot: int | None
    start: float
    end: float
    entry: Entry


@dataclass(frozen=True, slots=True)
class Body:
    """One run of a body.

    Args:
        begin: Its first entry.
        finish: Its last one; None where its process was killed, or none was written.
        effect: The entry of its effect, if it had one.
        end: When it was over.
        killed: Whether its process was killed meanwhile.
    """

    begin: Entry
    finish: Entry | None
    effect: Entry | None
    end: float
    killed: bool

    @property
    def start(self) -> float:
        """When it began."""
        return float(self.begin["at"])

    @property
    def entries(self) -> list[Entry]:
        """What it wrote down."""
        return [entry for entry in (self.begin, self.effect, self.finish) if entry]


class Story:
    """A whole history.

    Args:
        entries: As written, by all processes.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        self._by_event = defaultdict[str, list[Entry]](list)
        self._by_field = defaultdict[tuple[str, str, Any], list[Entry]](list)
        for entry in self.entries:
            self._by_event[entry["event"]].append(entry)
            for field in INDEXED & entry.keys():
                self._by_field[entry["event"], field, entry[field]].append(entry)

    def of(self, event: str, **fields: Any) -> list[Entry]:
        """Return the entries of one event that match."""
        field = next(iter(INDEXED & fields.keys()), None)
        among = self._by_field[event, field, fields[field]] if field else self._by_event[event]
        return [entry for entry in among if fields.items() <= entry.items()]

    def about(self, task_id: str) -> list[Entry]:
        """Return all that was written about one call."""
        return self._about[task_id]

    @cached_property
    def _about(self) -> dict[str, list[Entry]]:
        found = defaultdict[str, list[Entry]](list)
        for entry in self.entries:
            for task_id in {entry.get("id"), entry.get("task_id")} - {None}:
                found[task_id].append(entry)
        return found

    @cached_property
    def terms(self) -> Entry:
        """What the tasks were bound to."""
        return self.of("terms")[-1]

    @cached_property
    def guarded(self) -> list[Entry]:
        """The published calls of guarded tasks, but for steps of chains that were never reached."""
        return [call for call in self.of("published") if "order" in call and self.is_due(call)]

    def end_of(self, call: Entry) -> str | None:
        """Return the state in which a call ended; None if it has not."""
        state = self.outcomes[call["id"]]["state"]
        return str(state) if state in states.READY_STATES else None

    @cached_property
    def _reported(self) -> set[str]:
        return {entry["id"] for entry in self.of("failed")}

    def reported(self, call: Entry) -> bool:
        """Tell whether Celery has reported a final failure of a call, whatever came after it."""
        return call["id"] in self._reported

    @cached_property
    def outcomes(self) -> dict[str, Entry]:
        """How each published call ended."""
        return {entry["id"]: entry for entry in self.of("outcome")}

    def is_due(self, call: Entry) -> bool:
        """Tell whether a call has to run: a step of a chain only once the one before it has succeeded."""
        return all(self.outcomes[step]["state"] == states.SUCCESS for step in call.get("after", ()))

    @cached_property
    def disturbances(self) -> list[Disturbance]:
        """All faults that were inflicted."""
        over = {entry["number"]: entry["at"] for entry in self.of("over")}
        return [
            Disturbance(
                kind=entry["kind"],
                pids=frozenset(entry["pids"]) if "pids" in entry else None,
                slot=entry.get("slot"),
                start=entry["at"],
                end=over.get(entry["number"], FOR_EVER),
                entry=entry,
            )
            for entry in self.of("fault")
        ]

    @cached_property
    def bodies(self) -> list[Body]:
        """All runs of guarded bodies, in the order of their beginnings."""
        finishes = {_run(entry): entry for entry in self.of("end")}
        effects = {_run(entry): entry for entry in self.of("effect")}
        return [self._body(entry, finishes, effects) for entry in self.of("begin")]

    def _body(self, begin: Entry, finishes: dict[Any, Entry], effects: dict[Any, Entry]) -> Body:
        finish = finishes.get(_run(begin))
        kill = self.killed(begin["pid"], begin["at"])
        end = finish["at"] if finish else kill
        return Body(begin, finish, effects.get(_run(begin)), end, killed=kill < FOR_EVER and finish is None)

    def killed(self, pid: int, after: float) -> float:
        """Return when a process was killed, at the earliest; for ever after if it never was.

        A kill is written down before it is done, so the victim may have gone on for a moment.
        """
        kills = [max(one.start, after) for one in self._kills.get(pid, ()) if one.end >= after]
        return min(kills, default=FOR_EVER)

    @cached_property
    def _kills(self) -> dict[int, list[Disturbance]]:
        found = defaultdict[int, list[Disturbance]](list)
        for one in self.disturbances:
            for pid in one.pids or ():
                if one.kind in KILLS:
                    found[pid].append(one)
        return found

    def out_of_touch(self, entry: Entry, start: float, end: float) -> float:
        """Return for how many seconds a process stood still or could not reach the store.

        Args:
            entry: What the process wrote down.
            start: From when on.
            end: Until when.
        """
        pid, slot = entry["pid"], self._slots.get(entry["parent"])
        return sum(
            max(0.0, min(one.end, end) - max(one.start, start))
            for one in self.disturbances
            if one.kind not in KILLS
            if (pid in one.pids if one.pids is not None else one.slot is None or one.slot == slot)
        )

    @cached_property
    def _slots(self) -> dict[int, int]:
        """The slot of each worker, by the pid of its parent process."""
        return {entry["worker"]: entry["slot"] for entry in self.of("worker")}


def _run(entry: Entry) -> tuple[Any, ...]:
    """What tells one run of a body from all others: an owner begins once, but for a retry in place."""
    return entry["owner"], entry["fence"], entry["pid"]
