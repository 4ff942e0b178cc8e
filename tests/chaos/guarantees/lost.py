"""Nothing is lost: whatever was published has ended, and so has all that follows from it."""

from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Entry, Story

NAME = "nothing is lost"


def nothing_lost(story: Story) -> list[Violation]:
    """Each call has ended; a step of a chain, if the one before it succeeded; a chord, with all its parts."""
    vanished = {call["id"] for call in lost_by_the_broker(story)}
    return [
        Violation(NAME, f"{call['task']} {call['id']} never ended", [call, *story.about(call["id"])])
        for call in _without_an_end(story)
        if call["id"] not in vanished
    ]


LEAVING = 1.0
"""Seconds after its SIGKILL in which a worker's connection may still be open, and be given a message."""
UNREAD = 10.0
"""Seconds for which a worker that stands still may have left a message unread when it is killed."""
PARKED = 30.0
"""Seconds after which who was parked is released: the pump writes nothing down."""


def lost_by_the_broker(story: Story) -> list[Entry]:
    """Return the calls whose message vanished between a Redis broker and a worker that was killed whole.

    Such a worker was given it, and has not yet noted that it has it; no task can do anything about that.
    Nor can a chord's body that waits for such a part.
    """
    return [
        call
        for call in _without_an_end(story)
        if any(_vanished(task_id, story) for task_id in (call["id"], *call.get("parts", ())))
    ]


def _without_an_end(story: Story) -> list[Entry]:
    return [call for call in story.of("published") if story.is_due(call) and story.end_of(call) is None]


def _vanished(task_id: str, story: Story) -> bool:
    sent = [entry["at"] for entry in story.of("sent", id=task_id)]
    received = story.of("received", id=task_id, redelivered=False)
    parked = [entry["at"] for entry in story.of("event", id=task_id, what="parked")]
    messages = len(sent) + len(story.of("twice", id=task_id))  # what is parked is sent as well
    if messages <= len(received) or _waits(task_id, story):
        return False
    kills = [one.start for one in story.disturbances if one.kind == "kill_worker"] + _stopped_in_vain(story)
    within = [(at, UNREAD) for at in sent] + [(at, PARKED) for at in parked]
    return any(-LEAVING <= kill - at <= longest for kill in kills for at, longest in within)


def _stopped_in_vain(story: Story) -> list[float]:
    """When workers were replaced that hung at their end: they have taken a message that nobody will read."""
    started = story.of("worker")
    hung = {one["name"] for one in story.of("stuck")}
    ends = [
        [
            next_one["at"]
            for next_one in started
            if next_one["slot"] == one["slot"] and next_one["at"] > one["at"]
        ]
        for one in started
        if one.get("name") in hung
    ]
    return [min(end) for end in ends if end]


def _waits(task_id: str, story: Story) -> bool:
    """Whether the waiting room has it at the end: then it is there, and nobody has lost it."""
    return any(task_id in key["key"] for key in story.of("key", name="room-entry"))
