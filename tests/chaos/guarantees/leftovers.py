"""When all is quiet, no key is left that nothing would end, and no lease that nobody holds."""

from tests.chaos.guarantees.lost import lost_by_the_broker
from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Entry, Story

NAME = "nothing is left behind"

FOR_EVER = {"dead", "limit-set", "room", "room-queues"}
"""What does not expire: dead letters until a person decides, what an operator has set, counters."""
WAITING = {"room-entry", "room-line", "room-time", "room-due", "room-turns", "room-flight"}
"""What is there while somebody waits in the waiting room."""
SLACK = 5.0


def nothing_left(story: Story) -> list[Violation]:
    """Check each key that was in the store at the end."""
    longest = _longest(story.terms)
    vanished = {call["id"] for call in lost_by_the_broker(story)}
    wrong = [(key, _what_is_wrong(key, longest, vanished)) for key in story.of("key")]
    return [Violation(NAME, f"{key['key']} {why}", [key]) for key, why in wrong if why]


def _longest(terms: Entry) -> dict[str, float]:
    """For how many seconds at the most each kind of key may stay, by the reference of the keys."""
    lease, redelivery = terms["lease"], terms["redelivery"]
    return {
        "idempotency": max(terms["ttl"] + lease, 2 * max(lease, redelivery)),
        "singleton": max(terms["queued_ttl"], redelivery) + lease,
        "concurrency_limit": max(redelivery, 4 * lease),
        "deliveries": max(86_400.0, 2 * redelivery),
        "limit": 60.0,
        "limit-log": 60.0,
        "limit-line": 60.0,
        "limit-op": 10.0,
        "room-tickets": 20.0,
        "room-pace": 3_600.0,
        "room-bell": 10.0,
        "room-leader": 3.0,
    }


def _what_is_wrong(key: Entry, longest: dict[str, float], vanished: set[str]) -> str | None:
    if key["name"] in FOR_EVER:
        return None
    if key["name"] in WAITING:
        return "says that somebody waits, and everything has ended"
    if key["name"] not in longest:
        return "is of a kind that the checker does not know"
    return _wrong_end(key, longest[key["name"]]) or _wrong_holder(key, vanished)


def _wrong_end(key: Entry, longest: float) -> str | None:
    if key["ttl"] < 0:
        return "has no end"
    return f"lives for {key['ttl']:.0f} s more, of {longest:.0f}" if key["ttl"] > longest + SLACK else None


def _wrong_holder(key: Entry, vanished: set[str]) -> str | None:
    fields = key["fields"]
    held = "until" in fields and "state" not in fields and int(fields["until"]) / 1000 > key["now"]
    if held and fields["owner"].rpartition("/")[0] not in vanished:
        return f"is held by {fields['owner']}, and nothing runs"
    return None
