"""Names for deliveries."""

from __future__ import annotations

import os
from itertools import count


def new_nonce() -> str:
    """A name for one delivery that no other delivery has: the process's own, and a number.

    A random one for each would cost more.
    """
    return f"{_process}{next(_count):x}"


_process = os.urandom(8).hex()
_count = count()


def _after_fork() -> None:
    global _process  # noqa: PLW0603 - the child is another process
    _process = os.urandom(8).hex()


os.register_at_fork(after_in_child=_after_fork)
