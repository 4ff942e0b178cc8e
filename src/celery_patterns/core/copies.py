"""How the delivery of a copy ends: with Celery's ``Ignore``, so that it writes nothing, and with a word why.

To Celery all of these are one; a policy further out tells by the class who is to report the task's end.
"""

from __future__ import annotations

from celery.exceptions import Ignore


class PutOffUnseen(Ignore):
    """This copy waits for another delivery of its task, and comes again."""


class EndedBefore(Ignore):
    """An earlier delivery of this task has ended; what came of it, the result backend may know."""
