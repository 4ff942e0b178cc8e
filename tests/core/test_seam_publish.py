"""Where policies meet a publication: what passes through them and what does not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from celery import Celery, Task, signals
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import schedule
from typing_extensions import override

from celery_patterns import Call, Policy, attach, idempotent
from tests.apps.witness import (
    SEEN,
    alone,
    new_app,
    note,
    seen,
    witnessed,
)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def app() -> Celery:
    """An app that is ready."""
    app = new_app()
    app.finalize()
    return app


@pytest.fixture
def sent() -> Iterator[list[dict[str, Any]]]:
    """The messages that were sent meanwhile."""
    found: list[dict[str, Any]] = []

    def add(sender: str, headers: Any, body: Any, **_: Any) -> None:
        found.append({"task": sender, "args": body[0], "kwargs": body[1], "embed": body[2], **headers})

    signals.before_task_publish.connect(add)
    yield found
    signals.before_task_publish.disconnect(add)


def same(n: int, other: int = 0) -> int:
    note("body", by=n)
    return n


def test_every_way_to_publish(app: Celery, sent: list[dict[str, Any]]) -> None:
    """A policy that acts when a task is sent would miss some senders."""
    task = witnessed()(app.task(same))
    ways: list[Callable[[], Any]] = [
        lambda: task.delay(1),
        lambda: task.apply_async((1,)),
        lambda: task.apply_async(args=[1]),
        lambda: task.apply_async(kwargs={"n": 1}),
        task.s(1).delay,
        task.s(1).apply_async,
        task.signature((1,), countdown=3).apply_async,
        (task.si(1) | task.s()).apply_async,
    ]
    for number, publish in enumerate(ways, start=1):
        publish()
        assert (seen("publish"), len(sent)) == (["witness"] * number, number)


def test_positional_options_of_apply_async(app: Celery, sent: list[dict[str, Any]]) -> None:
    """A caller who gives the task id by position would be refused, or get another id."""
    task = witnessed()(app.task(same))
    link, link_error = task.si(8), task.si(9)

    result = task.apply_async((1,), None, "t-1", None, link, link_error, "shadow")

    (message,) = sent
    assert (result.id, message["id"], message["shadow"]) == ("t-1", "t-1", "shadow")
    assert [one["args"] for one in message["embed"]["callbacks"]] == [(8,)]
    assert [one["args"] for one in message["embed"]["errbacks"]] == [(9,)]
    assert SEEN[0]["id"] == "t-1"


def test_own_apply_async_of_a_base_is_still_called(app: Celery, sent: list[dict[str, Any]]) -> None:
    """A project that adds headers in its base's `apply_async` would lose them."""

    class Tenant(Task):
        abstract = True

        @override
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            return super().apply_async(args, kwargs, **{**options, "headers": {"tenant": "t"}})

    witnessed()(app.task(base=Tenant)(same)).delay(1)

    assert (seen(), sent[0]["tenant"]) == (["witness"], "t")


def test_typing_is_checked_as_before(app: Celery, sent: list[dict[str, Any]]) -> None:
    """Wrong arguments would be sent, and be found out by the worker; or be refused where they were not."""
    strict = witnessed()(app.task(name="strict")(same))
    lenient = witnessed()(app.task(name="lenient", typing=False)(same))

    for wrong in [(), (1, 2, 3)]:
        with pytest.raises(TypeError, match="argument"):
            strict.apply_async(wrong)
        lenient.apply_async(wrong)
    with pytest.raises(TypeError, match="bad"):
        strict.delay(1, bad=2)

    assert [message["task"] for message in sent] == ["lenient", "lenient"]


def test_missing_part_of_a_key_is_named_when_sent(app: Celery, sent: list[dict[str, Any]]) -> None:
    """A call that can have no key would fail in the worker, where nobody can mend it."""
    for typing in (True, False):
        task = idempotent("n")(app.task(name=f"typing-{typing}", typing=typing)(same))
        with pytest.raises(TypeError, match="n"):
            task.delay()

    assert sent == []


def test_publish_hook_may_answer_itself(app: Celery, sent: list[dict[str, Any]]) -> None:
    """A second call could not be given the result of the first one without being sent."""

    @dataclass(frozen=True)
    class Known(Policy):
        kind: ClassVar[str] = "known"
        order: ClassVar[int] = 1

        @override
        def publish(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
            return call.app.AsyncResult("known")

    assert attach(app.task(same), Known()).delay(1).id == "known"
    assert sent == []


def test_publish_hook_may_change_the_call(app: Celery, sent: list[dict[str, Any]]) -> None:
    """Large arguments could not be exchanged for a claim check, nor a header be added."""

    @dataclass(frozen=True)
    class Other(Policy):
        kind: ClassVar[str] = "other"
        order: ClassVar[int] = 1

        @override
        def publish(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
            options = {**call.options, "headers": {"added": "yes"}}
            return proceed(replace(call, args=(call.args[0] + 1,), options=options))

    attach(app.task(same), Other()).delay(1)

    assert (sent[0]["args"], sent[0]["added"]) == ((2,), "yes")


def test_callers_arguments_are_not_changed(app: Celery) -> None:
    """A policy that adds a header would add it to what the caller uses again."""

    @dataclass(frozen=True)
    class Rude(Policy):
        kind: ClassVar[str] = "rude"
        order: ClassVar[int] = 1

        @override
        def publish(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
            call.options["countdown"] = 3
            call.kwargs["n"] = 7
            return proceed(call)

    kwargs, options = {"n": 1}, {"task_id": "t-1"}
    signature = attach(app.task(same), Rude()).signature(kwargs=kwargs, options=options)
    signature.apply_async()
    attach(app.task(same), Rude()).apply_async((), kwargs, **options)

    assert (kwargs, options, signature.kwargs) == ({"n": 1}, {"task_id": "t-1"}, {"n": 1})


def test_send_task_passes_the_publish_hooks_by(app: Celery, sent: list[dict[str, Any]]) -> None:
    """It sends by name alone, as producers without the library do; this is documented."""
    task = witnessed()(app.task(same))

    app.send_task(task.name, (1,))

    assert (seen(), len(sent)) == ([], 1)


def test_beat_publishes_through_the_hooks(app: Celery, sent: list[dict[str, Any]]) -> None:
    """What beat sends would be overlooked by a policy that acts when a task is sent."""
    task = witnessed()(app.task(same))
    entry = ScheduleEntry(name="each", task=task.name, schedule=schedule(60), args=(1,), app=app)
    entry.options["headers"] = {"from": "beat"}

    result = Scheduler(app=app, lazy=True).apply_async(entry, advance=False)

    assert (seen(), sent[0]["id"], sent[0]["from"]) == (["witness"], result.id, "beat")
