"""The record of a chord in the result backend's Redis: its counts, and one outcome for each part."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, cast

from kombu.utils.encoding import bytes_to_str, ensure_bytes

from celery_patterns.core.script import Script
from celery_patterns.flows.chords.outcomes import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery_patterns.flows.chords.outcomes import State

COUNTS = ("total", "ok", "failed", "revoked", "lost")
KNOWN_AS = ".chord-id"
_ENDED = {state.encode() for state in STATES}

CLAIM_MS = 20_000
"""For how long one process may take to hand the end of a chord on."""

FOREVER = 30 * 86_400
"""Seconds that a record is kept where results never expire."""

_SCRIPTS = {
    name: Script(f"chord_{name}")
    for name in ("begin", "report", "enter", "revoke", "expire", "claim", "end", "add", "mend", "take_back")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many parts of a chord ended in each state so far."""

    total: int
    ok: int
    failed: int
    revoked: int
    lost: int

    @property
    def bad(self) -> int:
        """Parts that ended without a value."""
        return self.failed + self.revoked + self.lost

    @property
    def complete(self) -> bool:
        """Whether every part has an outcome."""
        return self.ok + self.bad >= self.total


@dataclass(frozen=True, slots=True)
class Again:
    """The chord has ended without this part, which a person has had run again."""

    total: int


Begun = Literal["begun", "known", "other"]
"""What is true of a record: it is new, that of this very chord, or that of a chord with other parts."""

Missing = Literal["late", "unknown"]
"""Why there are no counts: the chord has ended, or is not known (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What is written down about one part; until it has reported, there is no ``state``."""

    index: int
    task_id: str
    state: State | None
    payload: bytes

    @classmethod
    def of(cls, task_id: str | bytes, slot: str | bytes) -> Slot:
        """From the hash."""
        index, _, rest = ensure_bytes(slot).partition(b" ")
        state, _, payload = rest.partition(b" ")
        known: Any = state.decode() if state in _ENDED else None
        return cls(index=int(index), task_id=bytes_to_str(task_id), state=known, payload=payload)


class ChordRecord:
    """The record of one chord.

    Each operation is one script, and changes nothing when it is sent again after a lost reply; so
    the backend's own way to try again while Redis is away is used for all of them.

    Args:
        backend: The result backend.
        chord_id: The chord's id: see :mod:`~celery_patterns.flows.chords.begin`.
    """

    def __init__(self, backend: Any, chord_id: str) -> None:
        self.backend = backend
        self.id = chord_id
        self.keys = (
            backend.get_key_for_group(chord_id, ".chord"),
            backend.get_key_for_group(chord_id, ".parts"),
        )

    @property
    def ttl(self) -> float:
        """Seconds that the record is kept after the last report."""
        backend = self.backend
        expires = getattr(backend, "chord_expires", None) or backend.expires  # the first is Celery 5.7's
        return float(expires or FOREVER)

    def begin(self, ids: Sequence[str], deadline: float | None, steps: Sequence[str]) -> Begun:
        """Write down the parts, unless these (or those of another chord) are written down already."""
        ttl = self.ttl + (deadline or 0)
        args = (digest(ids), _ms(ttl), _ms(deadline or 0), json.dumps(steps) if steps else "", *ids)
        answer: Any = bytes_to_str(self._run("begin", *args))
        return cast("Begun", answer)

    def known_as(self, result_id: str | None, deadline: float | None) -> None:
        """Let the chord be found by the id of its result, where its body is not a single task."""
        if result_id and result_id != self.id:
            key, ttl = self.backend.get_key_for_group(result_id, KNOWN_AS), _ms(self.ttl + (deadline or 0))
            self.backend.ensure(partial(self.backend.client.set, px=ttl), (key, self.id))

    def report(self, task_id: str, state: State, payload: str | bytes) -> Counts | Again | Missing:
        """Write down what became of a part."""
        reply = self._run("report", task_id, state, payload, _ms(self.ttl))
        return Again(int(reply[1])) if bytes_to_str(reply[0]) == "again" else as_counts(reply)

    def enter(
        self, task_id: str, *, running: bool, payload: str | bytes
    ) -> Counts | Missing | Literal["revoked"]:
        """Write down that a part runs, unless it was given up; or that it waits again, or else is revoked."""
        reply = self._run("enter", task_id, "running" if running else "waiting", payload)
        return "revoked" if bytes_to_str(reply[0]) == "revoked" else as_counts(reply)

    def revoke(self, payload: str | bytes) -> tuple[Counts | Missing, list[str]]:
        """Revoke what has not started; with the ids of tasks that the workers need not start."""
        reply = self._run("revoke", payload)
        steps, *parts = reply[6:] or [None]
        return as_counts(reply), [*json.loads(steps or "[]"), *map(bytes_to_str, parts)]

    def expire(self, payload: str | bytes) -> Counts | Missing | float:
        """Give up what has not reported; the seconds until then, if the deadline is ahead."""
        status, *rest = self._run("expire", payload)
        return int(rest[0]) / 1000 if bytes_to_str(status) == "early" else as_counts([status, *rest])

    def claim(self, token: str) -> Literal["claimed", "ended"] | float:
        """Claim the end; the seconds for which another process holds the claim, if one does."""
        status, *rest = self._run("claim", token, CLAIM_MS)
        if bytes_to_str(status) == "busy":
            return int(rest[0]) / 1000
        return "claimed" if bytes_to_str(status) == "claimed" else "ended"

    def end(self, token: str, *, keep: bool, ran: bool) -> bool:
        """Write down that the end was handed on; whether the claim was still ours."""
        return bool(self._run("end", token, _ms(self.ttl), int(keep), "ran" if ran else "failed"))

    def body_id(self) -> str | None:
        """Another id for the body, which has a result under its own already."""
        found = self.backend.ensure(self.backend.client.hget, (self.keys[0], "body"))
        return bytes_to_str(found) if found else None

    def add(self, task_id: str) -> bool:
        """Add a part; whether there is such a chord."""
        return bool(self._run("add", task_id))

    def take_back(self, task_id: str, how: str) -> str:
        """Expect a part once more: ``"wait"`` for it, if the chord can, or ``"replace"`` its outcome."""
        return bytes_to_str(self._run("take_back", task_id, how))

    def mend(
        self, task_id: str, state: State, payload: str | bytes, *, needed: int | None, body_id: str
    ) -> str:
        """Replace the outcome of a part after the end, and reopen the end if enough parts are ok then."""
        enough = -1 if needed is None else needed
        return bytes_to_str(self._run("mend", task_id, state, payload, enough, body_id)[0])

    def slots(self) -> list[Slot]:
        """All parts, in header order."""
        return as_slots(self.backend.ensure(self.backend.client.hgetall, (self.keys[1],)))

    def _run(self, name: str, *args: Any) -> Any:
        """Run a script by the backend's client, which sends it whole to a server that lacks it."""
        known = self.backend.chord_scripts
        if name not in known:
            known[name] = self.backend.client.register_script(_SCRIPTS[name].text())
        return self.backend.ensure(known[name], (self.keys, args))


def digest(ids: Sequence[str]) -> str:
    """What tells a chord from another one that ends in the same task."""
    return sha256("\n".join(ids).encode()).hexdigest()[:16]


def as_slots(found: Mapping[Any, Any]) -> list[Slot]:
    """The parts in the hash, in header order."""
    return sorted((Slot.of(*pair) for pair in found.items()), key=lambda slot: slot.index)


def as_counts(reply: Sequence[Any]) -> Counts | Missing:
    """What a script has answered."""
    status, *found = reply
    if bytes_to_str(status) != "live":
        return "late" if bytes_to_str(status) == "late" else "unknown"
    total, ok, failed, revoked, lost = (int(count or 0) for count in found[:5])
    return Counts(total=total, ok=ok, failed=failed, revoked=revoked, lost=lost)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
