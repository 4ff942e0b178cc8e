"""What policies ask the store when a call comes to them, in one round trip.

Each policy asks by a script whether the call may go on, and only if it may, the next one asks. Where it is
known beforehand what each will ask first, all of it is sent at once, as one script made of theirs, which
stops at the first that does not let the call go on::

    one by one   idempotency ->  <- singleton ->  <- limits ->  <-  body
    together     [idempotency, singleton, limits] ->  <-  body

These are the same steps in the same order, with nobody in between. What a policy was told so is kept in the
call until it asks.

A script lets the call go on if it answers with a number, or with a list that begins with ``"ok"``.

What happens when
    a script refuses            those behind it are not asked: their policies ask when they are reached
    a script fails              likewise, and that policy asks by itself, to hear of it
    the answer is lost          the same is sent once more; each script knows who asks again
    the store is out of reach   the policy that asks hears of it, and what it does then is its own matter;
                                what was given all the same lapses, as when the process dies
    the process dies            what it was given lapses, as when it dies in the body
    a policy is left before it  it lets go of what it was given, in ``passed_over``
    asks for its answer
    the store is a cluster      each asks by itself, since their keys are on several nodes
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from redis.exceptions import ClusterCrossSlotError

from celery_patterns.core.script import Script
from celery_patterns.errors import PatternsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_patterns.core.policy import Call
    from celery_patterns.core.script import Ask

T = TypeVar("T")

_TOGETHER = """\
local scripts = {{
{scripts}}}
local answers, key, arg = {{}}, 0, 2 * #scripts
for i, script in ipairs(scripts) do
  local keys, args = key + ARGV[2 * i - 1], arg + ARGV[2 * i]
  local done, answer = pcall(script, {{unpack(KEYS, key + 1, keys)}}, {{unpack(ARGV, arg + 1, args)}})
  if not done then
    if i == 1 then return type(answer) == 'table' and answer or redis.error_reply(answer) end
    break
  end
  answers[i], key, arg = answer or false, keys, args
  if type(answer) ~= 'number' and not (type(answer) == 'table' and answer[1] == 'ok') then break end
end
return answers
"""


class Together(Script):
    """Several scripts as one: each is a function of its own keys and arguments."""

    def __init__(self, *scripts: Script) -> None:
        self.name = "+".join(script.name for script in scripts)
        self.scripts = scripts
        self._shas = {}

    @cached_property
    def body(self) -> str:
        """The texts of all of them, and what runs them one after the other."""
        texts = "".join(f"function(KEYS, ARGV)\n{script.body}\nend,\n" for script in self.scripts)
        return _TOGETHER.format(scripts=texts)


together = lru_cache(maxsize=256)(Together)


def enter(call: Call, kind: str, ask: Callable[[], Ask[T]]) -> T:
    """What the store says to what a policy asks; it may have been asked before, with what others asked.

    Args:
        call: The call that is being run.
        kind: The policy's.
        ask: What it asks.

    Raises:
        StoreUnavailable: Redis cannot be reached in time, or refuses to write.
    """
    if kind in call.answers:
        answer: T = call.answers.pop(kind)
        return answer
    first = ask()
    store = first.store
    rest = [] if store.client is None or store.is_split else _asked_behind(call, kind)
    call.asked_at = monotonic()
    if rest:
        try:
            return _ask_together(call, first, rest)
        except ClusterCrossSlotError:
            store.is_split = True
    return first.now()


def _asked_behind(call: Call, kind: str) -> list[tuple[str, Ask[Any]]]:
    """What the policies behind this one will ask first, up to one of which that is not known."""
    asks: list[tuple[str, Ask[Any]]] = []
    kinds = [policy.kind for policy in call.active]
    if kind not in kinds:
        return asks
    for policy in call.active[kinds.index(kind) + 1 :]:
        if policy.kind in call.answers or not _knows(type(policy)):  # type: ignore[arg-type]
            break
        try:
            ask = policy.entering(call)
        except Exception as error:
            if _is_time_limit(error):
                raise
            break  # the policy says so itself when it is reached
        if ask is None:
            break
        asks.append((policy.kind, ask))
    return asks


@lru_cache(maxsize=256)
def _knows(policy: type) -> bool:
    """Whether what it says is of its own ``run``, and not of one that it has overridden."""
    return "entering" in next(vars(one) for one in policy.__mro__ if {"run", "entering"} & set(vars(one)))


def _is_time_limit(error: Exception) -> bool:
    """Whether Celery's soft time limit has struck: it does once, and must be heard."""
    return isinstance(error, SoftTimeLimitExceeded) or isinstance(error.__cause__, SoftTimeLimitExceeded)


def _ask_together(call: Call, first: Ask[T], rest: Sequence[tuple[str, Ask[Any]]]) -> T:
    asks = [first, *(ask for _, ask in rest)]
    keys = [key for ask in asks for key in ask.keys]
    args = [count for ask in asks for count in (len(ask.keys), len(ask.args))]
    script = together(*(ask.script for ask in asks))
    answers = script(first.store, keys, args + [arg for ask in asks for arg in ask.args])
    for (kind, ask), answer in zip(rest, answers[1:], strict=False):
        try:
            call.answers[kind] = ask.understand(answer)
        except PatternsError:  # likewise
            break
    for _, ask in rest[len(answers) - 1 :]:
        if ask.not_asked is not None:
            ask.not_asked()
    return first.understand(answers[0])
