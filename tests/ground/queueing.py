"""Calls that wait without a waiting room, in simulated time: who runs when, and how often they look."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.ground.frozen import FrozenTime


@dataclass
class Served:
    """What came of it: the calls in the order in which they ran, and when, and how many looks there were."""

    order: list[int] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    looks: int = 0

    def idle(self, servers: int) -> list[float]:
        """Return for how long a place was free before each start, from the first of `servers` ends on."""
        return [start - end for start, end in zip(self.started[servers:], sorted(self.ended), strict=False)]


def serve(
    time: FrozenTime,
    arrivals: list[float],
    seconds: float,
    *,
    look: Callable[[int, int, float], float | None],
    end: Callable[[int], None],
) -> Served:
    """Have calls come and look until all have run.

    Args:
        time: It is moved on.
        arrivals: When each call comes, in seconds from now.
        seconds: How long each of them runs.
        look: Asks for a call, that has looked so often and waited for so long; how long it waits then, or
            `None` if it runs.
        end: Ends a call.
    """
    served, began = Served(), time.now
    agenda = [(at, number, False) for number, at in enumerate(arrivals)]
    heapq.heapify(agenda)
    looked = dict.fromkeys(range(len(arrivals)), 0)
    while agenda:
        at, number, ends = heapq.heappop(agenda)
        time.advance(began + at - time.now)
        if ends:
            end(number)
            served.ended.append(at)
            continue
        served.looks += 1
        wait = look(number, looked[number], at - arrivals[number])
        looked[number] += 1
        if wait is not None:
            heapq.heappush(agenda, (at + wait, number, False))
            continue
        served.order.append(number)
        served.started.append(at)
        heapq.heappush(agenda, (at + seconds, number, True))
    return served
