"""What a session was made of, in a few lines: a run in which nothing happened proves nothing."""

from collections import Counter

from tests.chaos.guarantees.lost import lost_by_the_broker
from tests.chaos.story import Story


def summary(story: Story) -> str:
    """Return how much happened of what."""
    counts = {
        "calls": Counter(call["task"].rpartition(".")[2] for call in story.of("published")),
        "faults": Counter(one.kind for one in story.disturbances),
        "events": Counter(f"{one['policy']} {one['what']}" for one in story.of("event")),
        "ends": Counter(one["state"] for one in story.of("outcome")),
        "bodies": Counter(one.finish["how"] if one.finish else "killed" for one in story.bodies),
    }
    lines = [f"{name}: {sum(found.values())}: {_listed(found)}" for name, found in counts.items()]
    others = {
        "sent twice": len(story.of("twice")),
        "delivered again": len(story.of("received", redelivered=True)),
        "dead letters": len(story.of("letter")),
        "lost by the broker": len(lost_by_the_broker(story)),
        "workers that did not stop": len(story.of("stuck")),
    }
    return "\n".join([*lines, ", ".join(f"{name}: {count}" for name, count in others.items())])


def _listed(found: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in found.most_common())
