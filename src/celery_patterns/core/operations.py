"""Names for operations, so that one whose command arrives twice is done once.

A reply can be lost after its script has run, and the client then sends the command again. Each
operation has a number in a slot, which is a key that nobody else uses meanwhile; its script writes the
number there, and does nothing for a number that is not above what it finds::

    client                                     server
    operation 7, slot 3          ------------> done; slot 3 := 7
                                 <--- X        the connection breaks
    operation 7, slot 3, again   ------------> slot 3 is at 7: what was answered is answered again
    operation 8, slot 3          ------------> done; slot 3 := 8
    (a copy of 7, late)          ------------> slot 3 is at 8: nothing is done

So it does not matter how many others are served in between. A slot is used again when its operation was
answered; one that was not may still arrive, so its slot is given up. A slot's key lives for 10 s after
it was written: whoever sends again does so within 4 s (the answer's timeout, a pause, a new connection).
"""

from __future__ import annotations

import os
from collections import deque
from functools import lru_cache
from itertools import count

_process = os.urandom(8).hex()
_number = count(1).__next__


class Operations:
    """The slots of this process under one prefix.

    Args:
        prefix: Of the keys; the hash tag of the slots is the prefix too, as that of all limits.
    """

    def __init__(self, prefix: str) -> None:
        self._begins = f"{prefix}:limit-op:{{{prefix}}}:"
        self._free: deque[str] = deque()

    def begin(self) -> tuple[str, int]:
        """The key of a slot, and the operation's number in it: above all that it had."""
        try:
            slot = self._free.pop()
        except IndexError:
            slot = f"{self._begins}{_process}.{_number():x}"
        return slot, _number()

    def end(self, slot: str) -> None:
        """Its operation was answered: the slot is free."""
        self._free.append(slot)


@lru_cache(maxsize=256)
def operations(prefix: str) -> Operations:
    """The slots of this process under a prefix."""
    return Operations(prefix)


def _after_fork() -> None:
    """The parent's slots are the parent's."""
    global _process  # noqa: PLW0603 - the child is another process
    _process = os.urandom(8).hex()
    operations.cache_clear()


os.register_at_fork(after_in_child=_after_fork)
