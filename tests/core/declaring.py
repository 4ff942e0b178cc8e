"""What tests of declarations share: a body, and ways to look at apps and tasks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, _state

from celery_patterns import Policy
from tests.apps.witness import new_app


@contextmanager
def current(app: Celery) -> Iterator[Celery]:
    """Make an app the current one meanwhile."""
    before = _state._tls.current_app
    app.set_current()
    try:
        yield app
    finally:
        _state._set_current_app(before)


def finalised(name: str = "proj", **options: Any) -> Celery:
    """Return an app that is ready."""
    app = new_app(name, **options)
    app.finalize()
    return app


def policies(task: Any) -> tuple[Policy, ...]:
    """Return the policies around a task, outermost first."""
    seam = getattr(task, "__patterns__", None)
    return seam.policies if seam else ()


def double(n: int) -> int:
    """The body of most tasks."""
    return n * 2


DOUBLE = f"{__name__}.double"
"""The name of a task that is called after its body."""
