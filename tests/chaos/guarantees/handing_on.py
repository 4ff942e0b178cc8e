"""What follows a task, a link, the next step of a chain or a chord's body, goes out once for each task id."""

from collections import defaultdict

from tests.chaos.guarantees.holders import SHARE
from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import FOR_EVER, Entry, Story

NAME = "what follows goes out once"


def handed_on_once(story: Story) -> list[Violation]:
    """Of all that was sent on behalf of one call, but one was sent by processes that a fault befell."""
    guarded = {call["id"] for call in story.guarded}
    sent = defaultdict[str, list[Entry]](list)
    for entry in story.of("sent"):
        if entry.get("by") in guarded and entry["id"] != entry["by"]:
            sent[entry["by"]].append(entry)
    return [
        Violation(NAME, f"{task_id} was handed on more than once", story.about(task_id) + entries)
        for task_id, entries in sent.items()
        if len([one for one in entries if not _explained(one, story)]) > 1
    ]


def _explained(entry: Entry, story: Story) -> bool:
    """Whether its process was killed before it stored the result, out of touch, or could not record it."""
    stored = [one["at"] for one in story.of("stored", id=entry["by"], pid=entry["pid"])]
    kill = story.killed(entry["pid"], entry["at"])
    if kill < min((at for at in stored if at >= entry["at"]), default=FOR_EVER):
        return True
    told = story.of("event", id=entry["by"], policy="idempotency", what="store_error")
    unrecorded = any(one["detail"]["at"] == "completion" for one in told)
    lease = story.terms["lease"]  # its claim to hand on is as long
    return (
        unrecorded or story.out_of_touch(entry, entry["at"] - 2 * lease, entry["at"] + lease) >= SHARE * lease
    )
