"""Policies of the tests' own, which write down what their hooks see."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from celery import Celery, _state
from celery._state import _get_active_apps
from typing_extensions import override

from celery_patterns import Call, Policy, PolicyTask, as_decorator
from celery_patterns.core.policy import NONCE_HEADER
from tests.ground.app import HISTORY, history
from tests.ground.isolation import isolated
from tests.ground.stage import Stage

SEEN: list[dict[str, Any]] = []
"""What was seen in a process without a history: that of the test."""


def note(event: str, **fields: Any) -> None:
    """Write down what happens, for the test to read."""
    if HISTORY in os.environ:
        history().add(event, **fields)
    else:
        SEEN.append({"event": event, **fields})


def seen(event: str | None = None) -> list[Any]:
    """What was seen in this process: who saw it (or what the body said), in order."""
    return [entry.get("by", entry["event"]) for entry in SEEN if event in {None, entry["event"]}]


@dataclass(frozen=True)
class Witness(Policy):
    """Sees everything and changes nothing."""

    label: str = "witness"

    kind: ClassVar[str] = "witness"
    order: ClassVar[int] = 50

    @override
    def publish(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
        note("publish", by=self.label, id=call.id, task=call.name)
        return proceed(call)

    @override
    def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
        about = {"by": self.label, "id": call.id, "task": call.name, "retries": call.request.retries}
        note("enter", nonce=getattr(call.request, NONCE_HEADER), **about)
        try:
            result = proceed(call)
        except BaseException as error:
            note("leave", how=type(error).__name__, **about)
            raise
        note("leave", how="returned", **about)
        return result

    @override
    def failed(self, call: Call, error: BaseException) -> None:
        note("failed", error=type(error).__name__, **self._delivery(call))

    @override
    def lost(self, call: Call, grace: float) -> None:
        note("lost", grace=grace, **self._delivery(call))

    def _delivery(self, call: Call) -> dict[str, Any]:
        nonce = getattr(call.request, NONCE_HEADER)
        about = {"by": self.label, "id": call.id, "task": call.name, "nonce": nonce}
        return {**about, "args": list(call.args), "kwargs": call.kwargs}


@dataclass(frozen=True)
class Outer(Witness):
    """Stands outside the others."""

    label: str = "outer"
    kind: ClassVar[str] = "outer"
    order: ClassVar[int] = 10


@dataclass(frozen=True)
class Inner(Witness):
    """Stands inside the others."""

    label: str = "inner"
    kind: ClassVar[str] = "inner"
    order: ClassVar[int] = 90


class WitnessTask(PolicyTask):
    """A base that cannot do without its policy, as those of the patterns."""

    abstract = True
    needs_policy = "witness"
    witness: Witness | None = None


witnessed = as_decorator(Witness)
outer = as_decorator(Outer)
inner = as_decorator(Inner)


def new_app(name: str = "proj", **options: Any) -> Celery:
    """An app of one test, which needs no server and is nobody's current app."""
    options = {"broker": "memory://", "backend": "cache+memory://", "set_as_current": False, **options}
    return Celery(name, **options)


@contextmanager
def alone() -> Iterator[None]:
    """A process without other apps, which would get the tasks of this test too."""
    others = set(_get_active_apps())
    for app in others:
        _state._deregister_app(app)
    SEEN.clear()
    try:
        with isolated():
            yield
    finally:
        for app in others:
            _state._register_app(app)


@contextmanager
def loaded(stage: Stage, module: str) -> Iterator[ModuleType]:
    """A module of tasks in this process, on a stage that is shared by several tests.

    A collected result unsubscribes. On Celery 5.5 that waits for ever, if it happens while another one
    subscribes or when the server is gone: so nothing is collected meanwhile, and nobody unsubscribes later.
    """
    with alone():
        tasks = stage.load(module)
        gc.disable()
        try:
            yield tasks
        finally:
            tasks.app.backend.result_consumer._pubsub = None
            gc.enable()
