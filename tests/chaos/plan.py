"""Which faults there will be, and when: drawn from a seed before the first one happens."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        number: Which of the plan's faults it is, from 0.
        at: Seconds after the beginning.
        kind: What happens; see `faults`.
        slot: Which worker it happens to, if it happens to one.
        length: Seconds until it is over.
        draw: A number from 0 to 1, by which it picks a victim or a strength.
    """

    number: int
    at: float
    kind: str
    slot: int
    length: float
    draw: float

    @property
    def end(self) -> float:
        """Seconds after the beginning when it is over."""
        return self.at + self.length


@dataclass(frozen=True, slots=True)
class Habit:
    """How a kind of fault behaves: how likely it is beside the others, and how long it lasts, at most."""

    weight: float
    shortest: float = 0.0
    longest: float = 0.0


def plan(seed: int, seconds: float, habits: Mapping[str, Habit], *, slots: int, every: float) -> list[Fault]:
    """Return the faults of a session, in the order of their beginnings.

    The same seed gives the same faults; a longer session with the same seed begins as the shorter one.

    Args:
        seed: What they are drawn from.
        seconds: How long the session is; all faults are over by then.
        habits: The kinds of faults.
        slots: How many workers there are.
        every: Seconds from one fault to the next, on average.
    """
    chance, faults, at = random.Random(seed), list[Fault](), 0.0
    while True:
        at += chance.uniform(0.5, 1.5) * every
        kind = chance.choices(list(habits), [habit.weight for habit in habits.values()])[0]
        length = chance.uniform(habits[kind].shortest, habits[kind].longest)
        slot, draw = chance.randrange(slots), chance.random()
        if at > seconds:
            return faults
        if at + length <= seconds:
            faults.append(Fault(len(faults), at, kind, slot, length, draw))


def described(faults: Sequence[Fault]) -> str:
    """Return how many there are of each kind."""
    kinds = [fault.kind for fault in faults]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
