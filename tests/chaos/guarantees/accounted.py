"""Every body is accounted for: it ended, or its process was killed. Else the history has a hole."""

from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Story

NAME = "every body is accounted for"


def bodies_accounted_for(story: Story) -> list[Violation]:
    """Look for bodies that wrote down a beginning, no end, and that nobody killed."""
    return [
        Violation(NAME, f"{body.begin['id']} began, and neither ended nor was killed", body.entries)
        for body in story.bodies
        if body.finish is None and not body.killed
    ]
