"""Nothing is lost: whatever was published has ended, and so has all that follows from it."""

from celery import states

from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import FOR_EVER, Entry, Story

NAME = "nothing is lost"


def nothing_lost(story: Story) -> list[Violation]:
    """Each call has ended; a step of a chain, if the one before it succeeded; a chord, with all its parts."""
    vanished = {call["id"] for call in lost_by_the_broker(story)}
    return [
        Violation(NAME, f"{call['task']} {call['id']} never ended", [call, *story.about(call["id"])])
        for call in _without_an_end(story)
        if call["id"] not in vanished and not any(_uncounted(part, story) for part in call.get("parts", ()))
    ]


LEAVING = 1.0
"""Seconds after its SIGKILL in which a worker's connection may still be open, and be given a message."""
UNREAD = 10.0
"""Seconds for which a worker that stands still may have left a message unread when it is killed."""
PARKED = 900.0
"""Seconds after which who was parked is released: the pump writes nothing down."""
COUNTED = 1.0
"""Seconds after which a part that has ended is counted."""


def lost_by_the_broker(story: Story) -> list[Entry]:
    """Return the calls whose message vanished between a Redis broker and a worker that was killed whole.

    Such a worker was given it, and has not yet noted that it has it; no task can do anything about that. It
    may be a message that was given back when a pool process was killed that had begun with it.
    Nor can a chord's body that waits for such a part. A worker asks for one message at a time, so that each
    kill explains one, and no more.
    """
    calls = _without_an_end(story)
    ids = {task_id for call in calls for task_id in (call["id"], *call.get("parts", ()))}
    kills = [one.start for one in story.disturbances if one.kind == "kill_worker"] + _stopped_in_vain(story)
    may = {
        task_id: {kill for kill in kills for begin, end in _windows(task_id, story) if begin <= kill <= end}
        for task_id in ids
    }
    vanished = _matched(may)
    return [call for call in calls if vanished & {call["id"], *call.get("parts", ())}]


def _matched(may: dict[str, set[float]]) -> set[str]:
    """As many as can each have a kill of their own, of those that may explain them (Kuhn's algorithm)."""
    explains: dict[float, str] = {}

    def finds_one(task_id: str, tried: set[float]) -> bool:
        for kill in sorted(may[task_id] - tried):
            tried.add(kill)
            if kill not in explains or finds_one(explains[kill], tried):
                explains[kill] = task_id
                return True
        return False

    return {task_id for task_id in sorted(may) if finds_one(task_id, set())}


def _uncounted(part: str, story: Story) -> bool:
    """Whether Celery has stored the result of a chord's part, and a kill kept it from counting it.

    Celery does not run such a part again, and its chord waits for ever.
    """
    ran = [entry for entry in story.about(part) if entry["event"] in {"end", "event"}]
    if story.outcomes[part]["state"] != states.SUCCESS or story.of("stored", id=part) or not ran:
        return False
    return story.killed(ran[-1]["pid"], ran[-1]["at"]) <= ran[-1]["at"] + COUNTED


def _without_an_end(story: Story) -> list[Entry]:
    return [call for call in story.of("published") if story.is_due(call) and story.end_of(call) is None]


def _windows(task_id: str, story: Story) -> list[tuple[float, float]]:
    """From when to when a kill would explain that a message of this call was never received."""
    sent = [entry["at"] for entry in story.of("sent", id=task_id)]
    received = story.of("received", id=task_id, redelivered=False)
    parked = [entry["at"] for entry in story.of("event", id=task_id, what="parked")]
    messages = len(sent) + len(story.of("twice", id=task_id))  # what is parked is sent as well
    if _waits(task_id, story):
        return []
    windows = [(at - LEAVING, at + UNREAD) for at in _given_back(task_id, story)]
    if messages > len(received):
        windows += [(at - LEAVING, at + UNREAD) for at in sent]
        windows += [(at - LEAVING, at + PARKED) for at in parked[-1:]]
    return windows


def _given_back(task_id: str, story: Story) -> list[float]:
    """When a pool process was killed whose worker gave the message back, and nobody received it again."""
    children = {pid for one in story.disturbances if one.kind == "kill_child" for pid in one.pids or ()}
    begun = [one for one in story.of("begin", id=task_id) if one["pid"] in children]
    deaths = [story.killed(one["pid"], one["at"]) for one in begun]
    later = max((one["at"] for one in story.of("received", id=task_id)), default=0.0)
    return [at for at in deaths if later < at < FOR_EVER]


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
