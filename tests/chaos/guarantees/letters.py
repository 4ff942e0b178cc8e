"""Every final failure is exactly one dead letter, and nothing else is one."""

from collections import defaultdict

from celery import states

from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Entry, Story

NAME = "a failure is one dead letter"


def failures_kept(story: Story) -> list[Violation]:
    """Compare the failures of guarded calls with the dead letters that are left.

    A message that was delivered twice may fail and then succeed: that was a failure, and is a dead letter.
    """
    letters = defaultdict[str, list[Entry]](list)
    for letter in story.of("letter"):
        letters[letter["task_id"]].append(letter)
    found = []
    for call in story.guarded:
        kept, failed = letters[call["id"]], story.end_of(call) == states.FAILURE or story.reported(call)
        if why := _what_is_wrong(failed, kept):
            found.append(Violation(NAME, f"{call['id']} {why}", [call, *kept, *story.about(call["id"])]))
    return found


def _what_is_wrong(failed: bool, kept: list[Entry]) -> str | None:
    if failed and not kept:
        return "failed, and no dead letter is left of it"
    if kept and not failed:
        return "has never failed for good, and is a dead letter"
    if len(kept) > 1:
        return f"has {len(kept)} dead letters"
    return None
