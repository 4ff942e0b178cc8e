"""Dead letters: a task that will not run again is kept until a person has decided about it."""

from celery_patterns.policies.dead_letter.policy import (
    DeadLetter,
    DeadLetterMixin,
    DeadLetterTask,
    dead_letter,
)

__all__ = ["DeadLetter", "DeadLetterMixin", "DeadLetterTask", "dead_letter"]
