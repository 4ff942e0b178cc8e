"""Rules: what they mean, and what they refuse to mean."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Queue

from celery_patterns import PolicyError, Rule, TaskPriority, TaskRouter
from celery_patterns.errors import RuleError
from celery_patterns.flows.routing.rule_names import covers, matches_name


async def _promise(order: Any) -> bool:
    return False


def _generate(order: Any) -> Any:
    yield False


def _nothing() -> bool:
    return True


def _by_position(order: Any, /) -> bool:
    return True


@pytest.mark.parametrize(
    ("rule", "remedy"),
    [
        ({"task": "a"}, "routes nowhere"),
        ({"task": "", "queue": "q"}, "a task's name"),
        ({"task": 3, "queue": "q"}, "a task's name"),
        ({"task": (), "queue": "q"}, "at least one task"),
        ({"task": re.compile(b"a"), "queue": "q"}, "a task's name"),
        ({"queue": ""}, "queue's name"),
        ({"queue": ["q"]}, "queue's name"),
        ({"priority": "high"}, "TaskPriority"),
        ({"priority": True}, "TaskPriority"),
        ({"priority": 256}, "0 to 255"),
        ({"queue": "q", "when": "order > 1"}, "function of the task's arguments"),
        ({"queue": "q", "when": _promise}, "always true"),
        ({"queue": "q", "when": _generate}, "always true"),
        ({"queue": "q", "when": _nothing}, "asks for none"),
        ({"queue": "q", "when": _by_position}, "by position"),
        ({"queue": "q", "when": dict.get}, "lambda|by position"),
        ({"queue": "q", "tier": ""}, "tier's name"),
        ({"queue": "q", "tier": ()}, "tier's name"),
        ({"queue": "q", "tier": ("gold", 3)}, "tier's name"),
        ({"queue": "q", "urgent": "yes"}, "True or False"),
        ({"queue": "q", "header": "x-region"}, "a dict"),
        ({"queue": "q", "options": {"countdown": 3}}, "apply_async"),
        ({"queue": "q", "options": {"expires": 3}}, "apply_async"),
        ({"queue": "q", "options": {"task_id": "x"}}, "apply_async"),
        ({"queue": "q", "options": {"headers": {}}}, "apply_async"),
        ({"options": {"queue": "q"}}, "argument of Rule"),
    ],
)
def test_bad_rules_fail_when_declared(rule: dict[str, Any], remedy: str) -> None:
    """The mistake would show as a TypeError, or as a task gone astray, when something is published."""
    with pytest.raises(RuleError, match=remedy):
        Rule(**rule)
    assert issubclass(RuleError, PolicyError)


@pytest.mark.parametrize(
    ("router", "remedy"),
    [
        ({"rules": ["a"]}, "is no Rule"),
        ({"rules": "a"}, "is no Rule"),
        ({"rules": {"a": None}}, "is no route"),
        ({"rules": {"a": {}}}, "routes nowhere"),
        ({"rules": {"a": {"eta": 1}}}, "apply_async"),
        ({"default": Rule("a", queue="q")}, "last rule"),
        ({"default": Rule(urgent=True, queue="q")}, "last rule"),
        ({"default": {}}, "routes nowhere"),
        ({"tiers": {"gold": TaskPriority.HIGH}, "rules": [Rule(tier="glod", queue="q")]}, "glod"),
        ({"tiers": {"gold": 3}}, "TaskPriority"),
        ({"tier_of": "tenant"}, "function"),
        ({"rules": [Rule(queue="a", name="same"), Rule(queue="b", name="same")]}, "told apart"),
        ({"rules": [Rule(queue="a", name="default")]}, "told apart"),
    ],
)
def test_bad_routers_fail_when_declared(router: dict[str, Any], remedy: str) -> None:
    """The mistake would show when something is published, in one of many processes."""
    with pytest.raises(RuleError, match=remedy):
        TaskRouter(**router)


def test_a_rule_cannot_be_changed_by_its_maker() -> None:
    """A dict that is changed later would change where tasks go."""
    header, options = {"x": "1"}, {"exchange": "e"}
    rule = Rule(queue="q", header=header, options=options)
    header["x"], options["exchange"] = "2", "f"
    assert (rule.header["x"], rule.route) == ("1", {"queue": "q", "exchange": "e"})


def test_rules_read_well() -> None:
    """Logs and tables would name rules by their memory address."""

    def is_large(amount: int) -> bool:
        return amount > 1000

    assert str(Rule("a", queue="q")) == "a"
    assert str(Rule((re.compile("a+"), "b.*"), when=is_large, queue="q")) == "/a+/, b.* is_large(amount)"
    rule = Rule(urgent=False, tier=("b", "a"), header={"x": 1}, when=lambda a, **k: 1, queue="q")
    assert str(rule) == "* not urgent header x 1 tier a or b when(a, **)"
    assert Rule("a", queue=Queue("q")).route["queue"].name == "q"


ALPHABET = "ab."
NAMES = st.text(ALPHABET, min_size=1, max_size=5)
GLOBS = st.text(ALPHABET + "*?", min_size=1, max_size=6)


@given(wider=GLOBS, narrower=GLOBS, names=st.lists(NAMES, max_size=20))
def test_a_pattern_that_covers_another_matches_all_of_its_names(
    wider: str, narrower: str, names: list[str]
) -> None:
    """A rule that can be reached would be reported as unreachable."""
    if covers(wider, narrower):
        assert all(matches_name((wider,), name) for name in names if matches_name((narrower,), name))


@pytest.mark.parametrize(
    ("wider", "narrower", "answer"),
    [
        ("*", "proj.*", True),
        ("proj.*", "*", False),
        ("proj.*", "proj.reports.*", True),
        ("proj.*.daily", "proj.reports.*", False),
        ("*.daily", "proj.*.daily", True),
        ("a?", "ab", True),
        ("a?", "a*", False),
        ("*a*", "aa*", True),
        (re.compile("proj"), "proj.daily", True),
        (re.compile("proj"), "proj.*", False),
        (re.compile("proj"), re.compile("proj"), True),
        ("proj.*", re.compile("proj.x"), False),
        ("*", re.compile("x"), True),
        ("a[bc]*", "ab*", False),
        ("a[bc]*", "ab", True),
        ("a[bc]*", "a[bc]*", True),
    ],
)
def test_what_covers_what(wider: Any, narrower: Any, answer: bool) -> None:
    """The check would miss hidden rules, or invent them."""
    assert covers(wider, narrower) is answer
