"""What the scripts of leases and records are meant to do, in Python and without a server."""

from dataclasses import dataclass, field
from typing import Any

LEASE, TTL, CLAIM = 35.0, 1_003.0, 505.0
"""Seconds. No sum of them comes near a multiple of ten, which is what time moves by in the machine."""


def task_of(owner: str) -> str:
    return owner.rpartition("/")[0]


@dataclass
class Held:
    """A record: who runs, or what became of it."""

    owner: str
    fence: int
    of: str
    until: float
    expires: float
    state: str | None = None
    end: bytes = b""
    attempt: int = 0


@dataclass
class Claim:
    """The right of one delivery to hand a result on to its task id."""

    owner: str
    until: float
    expires: float


@dataclass
class Model:
    """All keys of a store. Fences are the server's; the model only says when there is to be a new one."""

    now: float = 0.0
    records: dict[str, Held] = field(default_factory=dict)
    claims: dict[tuple[str, str], Claim] = field(default_factory=dict)

    def advance(self, seconds: float) -> None:
        """Time passes; what has expired is gone."""
        self.now += seconds
        self.records = {key: one for key, one in self.records.items() if one.expires > self.now}
        self.claims = {key: one for key, one in self.claims.items() if one.expires > self.now}

    def vanish(self, key: str) -> None:
        """The server loses the record, or an operator forgets it."""
        self.records.pop(key, None)

    def begin(self, key: str, owner: str, of: str, attempt: int, on_lapsed: str) -> tuple[Any, ...]:
        """The expected answer: a word, and what belongs to it. "start" asks for a new fence."""
        held = self.records.get(key)
        if held is None:
            return "start", None
        if held.of != of:
            return "reused", held.owner
        if held.state is None:
            return self._begin_beside(held, owner, on_lapsed)
        if held.state == "failed" and task_of(held.owner) == task_of(owner) and attempt > held.attempt:
            return "start", None
        return self._hand_on(held, key, owner)

    def _begin_beside(self, held: Held, owner: str, on_lapsed: str) -> tuple[Any, ...]:
        if held.owner == owner:
            return "again", held.fence
        if held.until > self.now:
            return "running", held.owner
        return ("start" if on_lapsed == "rerun" else "lapsed"), held.owner

    def _hand_on(self, held: Held, key: str, owner: str) -> tuple[Any, ...]:
        own = task_of(held.owner) == task_of(owner)
        if own and held.until > self.now:
            return "claimed", held.owner
        claim = self.claims.get((key, task_of(owner)))
        other = claim is not None and claim.owner != owner
        if claim is not None and other and claim.until > self.now:
            return "claimed", claim.owner
        self.claims[key, task_of(owner)] = Claim(owner, self.now + LEASE, self.now + CLAIM)
        return "ended", held.owner, held.state == "failed", held.end, own or other

    def started(self, key: str, owner: str, of: str, fence: int) -> None:
        """The server has given a new fence."""
        self.records[key] = Held(owner, fence, of, self.now + LEASE, self.now + LEASE + TTL)

    def end(self, key: str, run: Any, state: str, end: bytes) -> str | None:
        """Who holds it instead; ``None`` where the end is recorded."""
        held = self.records.get(key)
        if held is not None and (held.owner, held.fence) != (run.owner, run.fence):
            return held.owner
        if state == "absent":
            if held is not None and held.state is None:
                del self.records[key]
            return None
        until = self.now if held is None else held.until
        self.records[key] = Held(run.owner, run.fence, run.of, until, self.now + TTL, state, end, run.attempt)
        return None

    def renew(self, key: str, owner: str, fence: int) -> bool:
        """Whether the lease is still this owner's."""
        held = self.records.get(key)
        if held is None or (held.owner, held.fence) != (owner, fence):
            return False
        held.until = self.now + LEASE
        held.expires = max(held.expires, self.now + LEASE + TTL)
        return True

    def lapse(self, key: str, owner: str, grace: float) -> None:
        """End the lease of a dead owner early; nobody else's."""
        held = self.records.get(key)
        if held is not None and held.owner == owner:
            held.until = min(held.until, self.now + grace)
