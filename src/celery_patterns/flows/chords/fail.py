"""A chord's body that will not run: it ends as if its first task had run and failed.

Celery's own way, ``chord_error_from_stack``, knows no enclosing chord, no rest of a chain (before
5.7) and no body that is a chain or a group (before 5.7). So the body's first tasks are reported as
failed, each with a request made from its signature; from there Celery does what it does for any
failed task: it stores the result, tells the chord around it, fails the rest of its chain and calls
its errbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import states
from celery.app.task import Context
from celery.utils.functional import maybe_list
from celery.utils.log import get_task_logger

from celery_patterns.flows.chords.signatures import ends

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

logger = get_task_logger(__name__)


def fail(backend: Any, body: Mapping[str, Any], error: Exception, *, eager: bool = False) -> None:
    """Fail the body of a chord.

    Args:
        backend: The result backend.
        body: The frozen body.
        error: What it fails with.
        eager: Call its errbacks and store nothing, as eager mode does.
    """
    for request in failing_requests(body):
        try:
            if eager:
                request.update(delivery_info={"is_eager": True}, chain=None)
            backend.mark_as_failure(request.id, error, request=request, store_result=not eager)
            _fail_members(backend, request.chain or (), error)
        except Exception:  # an errback is the user's code; the other tasks must still learn of it
            logger.exception("An error while the body of a chord was being failed: %r", request)


def _fail_members(backend: Any, rest: Iterable[Any], error: Exception) -> None:
    """Fail the ends of groups and chords in the rest of a chain: Celery fails its single tasks only."""
    for signature in rest:
        if signature.get("subtask_type"):
            for end in ends(signature):
                backend.store_result(end["options"]["task_id"], error, states.FAILURE)


def failing_requests(
    signature: Mapping[str, Any], errbacks: tuple[Any, ...] = (), rest: tuple[Any, ...] = ()
) -> Iterator[Context]:
    """The requests of the tasks that fail when ``signature`` does not run.

    Args:
        signature: A frozen signature.
        errbacks: Those of what it is in.
        rest: What would have run after it in a chain, last first, as in a message.
    """
    options, kwargs = signature["options"], signature["kwargs"]
    errbacks += tuple(one for one in maybe_list(options.get("link_error")) or () if one not in errbacks)
    rest = (*(options.get("chain") or ()), *rest)
    match signature.get("subtask_type"):
        case "chain":
            first, *then = kwargs["tasks"]
            yield from failing_requests(first, errbacks, (*rest, *reversed(then)))
        case "group":
            for index, task in enumerate(kwargs["tasks"]):
                yield from failing_requests(task, errbacks, rest if index == 0 else ())
        case "chord" | "partial_chord":
            yield from failing_requests(kwargs["body"], errbacks, rest)
        case _:
            yield _request(signature, errbacks, rest)


def _request(signature: Mapping[str, Any], errbacks: tuple[Any, ...], rest: tuple[Any, ...]) -> Context:
    options = signature["options"]
    return Context(
        id=options.get("task_id"),
        task=signature["task"],
        args=signature["args"],
        kwargs=signature["kwargs"],
        errbacks=list(errbacks),
        chain=list(rest),
        chord=options.get("chord"),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        root_id=options.get("root_id"),
        parent_id=options.get("parent_id"),
        delivery_info={},
        headers={},
    )
