"""The mechanisms, broken on purpose: scripts with a line changed, functions that do nothing.

A text that is to be changed has to be there exactly once, so a script that is rewritten breaks its mutants.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from celery_patterns.core import guard, lease, postpone
from celery_patterns.core.entering import together
from celery_patterns.core.script import Script
from celery_patterns.deadletters import deliveries
from celery_patterns.policies.concurrency import places
from celery_patterns.policies.dead_letter.burial import Burial
from celery_patterns.policies.idempotency import record
from celery_patterns.policies.rate_limits import buckets
from celery_patterns.policies.retry.policy import RetryPolicy
from celery_patterns.policies.singleton import lock
from tests.ground.history import History

Broken = Callable[[], AbstractContextManager[Any]]


def script(mutant: Script, old: str, new: str) -> Broken:
    """A script in which one text stands for another."""

    @contextmanager
    def broken() -> Iterator[None]:
        whole = mutant.body
        assert whole.count(old) == 1, f"{mutant}: {old!r} is there {whole.count(old)} times"
        mutant.__dict__["body"] = whole.replace(old, new)
        mutant._shas.clear()
        together.cache_clear()  # what is asked together with others
        try:
            yield
        finally:
            mutant.__dict__["body"] = whole
            mutant._shas.clear()
            together.cache_clear()

    return broken


def method(owner: Any, name: str, instead: Any) -> Broken:
    """A function or an attribute with another in its place."""
    return lambda: patch.object(owner, name, instead)


BROKEN = "CHAOS_BROKEN"
"""Which of the mechanisms is broken in a worker, by its name among the mutants."""


def break_in_worker() -> None:
    """Break the mechanism that the environment names, for the rest of this process."""
    name = os.environ.get(BROKEN)
    if name:
        _for_good.enter_context(MUTANTS[name][0]())


_for_good = ExitStack()


RESULTS = "one result per key"
EFFECTS = "an effect is not repeated without a cause"
HANDED_ON = "what follows goes out once"
HOLDERS = "one holder"
LIMITS = "limits are kept"
LETTERS = "a failure is one dead letter"
LOST = "nothing is lost"
LEFT = "nothing is left behind"
STOPPED = "a task that kills is stopped"
ACCOUNTED = "every body is accounted for"


def without_ends(history: History, event: str, **fields: Any) -> None:
    """A history in which no body ends."""
    if event != "end":
        add(history, event, **fields)


add = History.add

MUTANTS: dict[str, tuple[Broken, str, str]] = {
    "a late holder may overwrite its successor's result": (
        script(record._end, "r[1] ~= ARGV[1] or r[2] ~= ARGV[2]", "false"),
        "overslept",
        RESULTS,
    ),
    "a running call does not hold its key": (
        script(record._begin, "if left > 0 then", "if false then"),
        "twins",
        HOLDERS,
    ),
    "a result is not recorded": (
        script(
            record._end,
            "redis.call('HSET', KEYS[1], 'state', ARGV[3], 'end', ARGV[7], 'attempt', ARGV[6])",
            "",
        ),
        "rush",
        RESULTS,
    ),
    "a result is forgotten at once": (
        script(record._end, "redis.call('PEXPIRE', KEYS[1], ARGV[4])", "redis.call('DEL', KEYS[1])"),
        "rush",
        EFFECTS,
    ),
    "a record has no end": (
        script(record._end, "redis.call('PEXPIRE', KEYS[1], ARGV[4])", "redis.call('PERSIST', KEYS[1])"),
        "rush",
        LEFT,
    ),
    "a lock does not lock": (
        script(
            lock._begin, "local left, next_left, next_id = r[2] - ms", "local left, next_left, next_id = 0"
        ),
        "rush",
        HOLDERS,
    ),
    "all fences are one": (
        script(lock._begin, "local fence, lapsed = now", "local fence, lapsed = 1"),
        "rush",
        HOLDERS,
    ),
    "whoever dies ends the lease of another": (
        script(lease._lapse, "held[1] ~= ARGV[1]", "false"),
        "succeeded",
        HOLDERS,
    ),
    "a lock is never given up": (
        script(lock._end, "redis.call('DEL', KEYS[1])", "redis.call('HSET', KEYS[1], 'until', now_us())"),
        "overslept",
        LEFT,
    ),
    "a limit lets everybody pass": (
        script(buckets._acquire, "if over > 0 then", "if false then"),
        "burst",
        LIMITS,
    ),
    "a limit lets one more pass": (
        script(buckets._acquire, "(cost - burst) * per", "(cost - burst - 1) * per"),
        "burst",
        LIMITS,
    ),
    "strict is not strict": (
        script(buckets._acquire, "if last then wait = math.max(wait, last + per - now) end", ""),
        "burst",
        LIMITS,
    ),
    "a death is not kept": (
        method(Burial, "bury", lambda *_, **__: None),
        "rush",
        LETTERS,
    ),
    "a failure that is retried is a death": (
        method(RetryPolicy, "order", 5),
        "rush",
        LETTERS,
    ),
    "a late copy hands its result on again": (
        method(guard.Guard, "outcome_of", lambda *_: None),
        "handed on",
        HANDED_ON,
    ),
    "one more than the limit may be at work": (
        script(places._acquire, "if ahead >= free then", "if ahead > free then"),
        "crowd",
        HOLDERS,
    ),
    "deaths are not counted": (
        script(deliveries._begin, "local most = tonumber(ARGV[2])", "local most = 99"),
        "lethal",
        STOPPED,
    ),
    "ends of bodies are not written down": (
        method(History, "add", without_ends),
        "rush",
        ACCOUNTED,
    ),
    "what is put off is not published": (
        method(postpone, "publish_or_keep", lambda *_: None),
        "rush",
        LOST,
    ),
}
"""What is broken, how; in which scenario it is noticed, and as which guarantee."""
