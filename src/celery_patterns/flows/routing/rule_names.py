"""Which task names a rule speaks of: an exact name, a glob, or a compiled regular expression.

Names match as in Celery's own ``task_routes``: globs with case, regular expressions from the start of the
name and not necessarily to its end.
"""

from __future__ import annotations

import fnmatch
import re
from functools import cache
from typing import TYPE_CHECKING

from celery_patterns.errors import RuleError

if TYPE_CHECKING:
    from collections.abc import Callable

NamePattern = str | re.Pattern[str]
TaskNames = NamePattern | tuple[NamePattern, ...] | None

ANY_TASK = "*"

_NOT_THE_USERS = ("celery.", "celery_patterns.")


def is_users_task(name: str) -> bool:
    """Whether a task is the user's own: those of Celery and of this library know where they go."""
    return not name.startswith(_NOT_THE_USERS)


def name_patterns(task: TaskNames) -> tuple[NamePattern, ...]:
    """The patterns of a rule, checked; none given means every task.

    Raises:
        RuleError: One of them is no name and no pattern.
    """
    patterns = (ANY_TASK,) if task is None else task if isinstance(task, tuple) else (task,)
    if not patterns:
        raise RuleError("task=(): name at least one task, or leave it out to mean all")
    for pattern in patterns:
        is_text = isinstance(pattern, str) or (
            isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str)
        )
        if not pattern or not is_text:
            raise RuleError(
                f"task={pattern!r}: write a task's name, a glob such as 'proj.reports.*', "
                "or a compiled regular expression"
            )
    return patterns


def is_glob(pattern: NamePattern) -> bool:
    """Whether a pattern is text with wildcards in it."""
    return isinstance(pattern, str) and any(character in pattern for character in "*?[")


@cache
def name_matcher(pattern: NamePattern) -> Callable[[str], object]:
    """A function that is true for the names that the pattern means."""
    if isinstance(pattern, re.Pattern):
        return pattern.match
    if is_glob(pattern):
        return re.compile(fnmatch.translate(pattern)).match
    return pattern.__eq__


def matches_name(patterns: tuple[NamePattern, ...], name: str) -> bool:
    """Whether one of the patterns means this name."""
    return any(name_matcher(pattern)(name) for pattern in patterns)


def describe_names(patterns: tuple[NamePattern, ...]) -> str:
    """The patterns as operators read them."""
    return ", ".join(f"/{one.pattern}/" if isinstance(one, re.Pattern) else one for one in patterns)


def covers(wider: NamePattern, narrower: NamePattern) -> bool:
    """Whether every name that ``narrower`` means is surely meant by ``wider`` too.

    Sound, and complete for names and for globs of ``*`` and ``?``. Two different regular expressions, or
    globs with sets of characters, are never held to cover each other.
    """
    if wider in (narrower, ANY_TASK):
        return True
    if not isinstance(narrower, str) or (is_glob(narrower) and not isinstance(wider, str)):
        return False
    if not is_glob(narrower):
        return bool(name_matcher(wider)(narrower))
    if not isinstance(wider, str) or "[" in wider or "[" in narrower:
        return False
    return _glob_covers(wider, narrower)


@cache
def _glob_covers(wider: str, narrower: str) -> bool:
    """Match one glob against another: a ``*`` swallows wildcards too, a ``?`` only what is one character."""
    if not wider:
        return not narrower
    if wider[0] == "*":
        return _glob_covers(wider[1:], narrower) or (bool(narrower) and _glob_covers(wider, narrower[1:]))
    if not narrower or narrower[0] == "*":
        return False
    one_fits = wider[0] == "?" or wider[0] == narrower[0]
    return one_fits and _glob_covers(wider[1:], narrower[1:])
