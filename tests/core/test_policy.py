"""The onion, the call, and what a policy is by default."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any, ClassVar

import pytest
from celery.app.task import Context
from typing_extensions import override

from celery_patterns import Call, Policy, PolicyTask
from celery_patterns.core.policy import NONCE_HEADER, onion, publish_onion
from celery_patterns.errors import KeyArgumentError
from tests.apps.witness import Inner, Outer, Witness, alone, new_app, note, seen


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def pay() -> Any:
    """A task with a policy, finalised."""

    def pay(order: str, amount: int = 1) -> str:
        return order

    app = new_app()
    app.finalize()
    return app.task(base=PolicyTask, witness=Witness(), name="pay")(pay)


def published(task: Any, *args: Any, **options: Any) -> Call:
    return Call(seam=task.__patterns__, args=args, kwargs={}, options=options)


def running(task: Any, *args: Any, **request: Any) -> Call:
    context = Context({"id": "t-1", NONCE_HEADER: "n-1", "called_directly": False, **request})
    return Call(seam=task.__patterns__, args=args, kwargs={}, request=context)


def test_outermost_policy_comes_first_and_leaves_last(pay: Any) -> None:
    """Recovery would not see what inner policies refuse, and a replayed result would spend a token."""
    run = onion([Outer(), Witness(), Inner()], lambda call: call.args)

    assert run(running(pay, "A")) == ("A",)

    assert seen("enter") == ["outer", "witness", "inner"]
    assert seen("leave") == ["inner", "witness", "outer"]


def test_publications_pass_through_the_same_onion(pay: Any) -> None:
    """What an outer policy decides when a task is sent would not hold for the inner ones."""
    send = publish_onion([Outer(), Witness(), Inner()], lambda call: ("sent", call.id))

    assert send(published(pay, "A", task_id="t-1")) == ("sent", "t-1")

    assert seen("publish") == ["outer", "witness", "inner"]


@pytest.mark.parametrize("wrap", [onion, publish_onion])
def test_onion_of_nothing_is_the_body(wrap: Callable[..., Any], pay: Any) -> None:
    """A task whose policies are all switched off would not run."""
    body = wrap([], lambda call: call.args)

    assert body(running(pay, "A")) == ("A",)


def test_a_policy_by_itself_changes_nothing(pay: Any) -> None:
    """Whoever writes a policy would have to write all hooks."""

    @dataclass(frozen=True, slots=True)
    class Nothing(Policy):
        kind: ClassVar[str] = "nothing"
        order: ClassVar[int] = 1

    call = running(pay, "A")
    assert Nothing().run(call, lambda call: call.args) == ("A",)
    assert Nothing().publish(call, lambda call: "sent") == "sent"
    Nothing().passed_over(call, None)
    Nothing().failed(call, ValueError())
    Nothing().lost(call, 0.0)
    assert not hasattr(Nothing(), "__dict__")


def test_policies_are_values() -> None:
    """One written in two places would count as two, and one could be changed under a running task."""
    assert Witness("a") == Witness("a") != Witness("b")
    assert len({Witness("a"), Witness("a"), Outer("a")}) == 2
    with pytest.raises(FrozenInstanceError):
        Witness().label = "other"  # type: ignore[misc]


def test_hooks_say_what_they_take() -> None:
    """A pattern of one's own, written against the documented hooks, would be called otherwise."""
    taken = {hook: list(inspect.signature(getattr(Policy, hook)).parameters) for hook in _HOOKS}

    assert taken == {
        "publish": ["self", "call", "proceed"],
        "run": ["self", "call", "proceed"],
        "passed_over": ["self", "call", "outcome"],
        "failed": ["self", "call", "error"],
        "lost": ["self", "call", "grace"],
    }


_HOOKS = ("publish", "run", "passed_over", "failed", "lost")


@dataclass(frozen=True)
class Doubling(Policy):
    """Runs the body with another argument than the one it was called with."""

    kind: ClassVar[str] = "doubling"
    order: ClassVar[int] = 1

    @override
    def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
        assert call.arguments["n"] == call.args[0]
        return proceed(replace(call, args=(call.args[0] * 2,)))


@dataclass(frozen=True)
class Reading(Policy):
    """Writes down the arguments that it is shown."""

    kind: ClassVar[str] = "reading"
    order: ClassVar[int] = 2

    @override
    def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
        note("read", by=call.arguments["n"])
        return proceed(call)


def test_a_policy_may_hand_on_another_call() -> None:
    """A claim check could not exchange what is sent for what was meant, for the policies inside it too."""

    def same(n: int) -> int:
        return n

    task = new_app().task(base=PolicyTask, doubling=Doubling(), reading=Reading(), name="same")(same)

    assert task.apply((4,)).get() == 8
    assert seen("read") == [8]


def test_call_being_published(pay: Any) -> None:
    """A policy could not tell which call is about to be sent."""
    call = published(pay, "A", task_id="t-1", headers={"cp-key": "k"})

    assert (call.id, call.name, call.headers) == ("t-1", "pay", {"cp-key": "k"})
    assert call.task is pay
    assert call.app is pay.app
    assert not call.is_serialised
    assert not call.in_canvas
    assert published(pay).id is None
    assert published(pay).headers == {}


def test_call_being_run(pay: Any) -> None:
    """A policy could not tell which delivery it is in, and two deliveries would pass as one."""
    call = running(pay, "A", headers={"a": 1})

    assert (call.id, call.owner, call.headers) == ("t-1", "t-1/n-1", {"a": 1})
    assert call.is_serialised
    assert not running(pay, is_eager=True).is_serialised


@pytest.mark.parametrize(
    "part",
    [
        {"chord": {"task": "x"}},
        {"chain": [{"task": "x"}]},
        {"callbacks": [{"task": "x"}]},
        {"errbacks": [{"task": "x"}]},
        {"group": "g-1"},
    ],
    ids=lambda part: next(iter(part)),
)
def test_call_knows_that_something_waits_for_it(pay: Any, part: dict[str, Any]) -> None:
    """A skipped task would leave its chord or chain hanging."""
    assert running(pay, "A", **part).in_canvas
    assert not running(pay, "A").in_canvas


def test_arguments_by_name_include_defaults(pay: Any) -> None:
    """A positional and a named argument would be two different things to a policy."""
    assert running(pay, "A").arguments == {"order": "A", "amount": 1}
    assert Call(seam=pay.__patterns__, args=(), kwargs={"order": "A"}).arguments["order"] == "A"


def test_key_and_its_override(pay: Any) -> None:
    """A caller could not say that this very call is another one."""
    assert running(pay, "A").key("order") == published(pay, "A").key("order") == '"A"'
    assert running(pay, "A", headers={"cp-key": "mine"}).key("order") == "mine"
    assert published(pay, "A", headers={"cp-key": "mine"}).key("order") == "mine"


@pytest.mark.parametrize("override", ["", 7, ["A"]])
def test_bad_override_is_named(pay: Any, override: Any) -> None:
    """Calls with an empty key would all be the same call."""
    with pytest.raises(KeyArgumentError, match="cp-key"):
        published(pay, "A", headers={"cp-key": override}).key("order")


def test_fingerprint_covers_all_arguments(pay: Any) -> None:
    """A key that was used for another amount would go unnoticed."""
    one, same = running(pay, "A", 1), published(pay, "A")
    other = running(pay, "A", 2)

    assert one.fingerprint("order") == same.fingerprint("order") != other.fingerprint("order")
