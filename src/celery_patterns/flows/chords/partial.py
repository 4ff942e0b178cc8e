"""``partial_chord``: a chord whose body runs with an outcome for each part, also when parts fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from celery import states
from celery.canvas import Signature, chord, maybe_signature
from celery.result import EagerResult

from celery_patterns.core.durations import one_of, seconds
from celery_patterns.errors import PolicyError
from celery_patterns.flows.chords.begin import leaves
from celery_patterns.flows.chords.end import too_few
from celery_patterns.flows.chords.fail import fail
from celery_patterns.flows.chords.listening import listen
from celery_patterns.flows.chords.mark import Mark, mark_of, unmarked
from celery_patterns.flows.chords.report import describe, kind_of
from celery_patterns.flows.chords.results import forgiving
from celery_patterns.flows.chords.signatures import PARTIAL_CHORD, chords_in, in_order, own_copy, starters
from celery_patterns.flows.chords.threshold import Threshold

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celery import Celery

    from celery_patterns.core.durations import Seconds

listen()  # a worker that runs parts, but has another result backend, is told so


def partial_chord(
    header: Iterable[Signature[Any]] | Signature[Any],
    body: Signature[Any],
    *,
    min_success: int | None = None,
    min_share: float | None = None,
    on_failure: Literal["wait", "fail_fast"] = "wait",
    deadline: Seconds | None = None,
    on_late: Literal["record", "rerun"] = "record",
) -> PartialChord:
    """A chord that survives failed parts: its body is given one outcome for each, read by ``Outcomes``.

    Use it where some results are better than none (a report, an index, an import), or where the
    body must at least hear what went wrong. Where a body can do nothing with less than everything,
    and hanging parts are no concern, Celery's ``chord`` is simpler.

    It is a signature like any other: call, chain and nest it, give it ``link`` and ``on_error``.
    The app's result backend must be ``partial+redis://...``, ``partial+rediss://...`` or
    ``partial+sentinel://...``, for the callers and for all workers that run parts.

    Args:
        header: The parts: signatures of tasks, chains, groups or chords. A group among them counts
            as its tasks, a single signature as one part.
        body: What runs at the end, with the outcomes as its first argument.
        min_success: How many parts must be ok; default: all.
        min_share: The share of the parts, from 0 to 1, that must be ok.
        on_failure: ``"wait"``, or ``"fail_fast"``: once the threshold is out of reach, what has not
            started is revoked.
        deadline: Seconds (or a ``timedelta``) from its publication; as soon as a worker process is
            free after that, parts that have not reported are lost. Without it, a part that never
            ends keeps the chord waiting.
        on_late: What follows when a part that is a dead letter is replayed with success after the
            chord has ended: ``"record"`` its outcome, or ``"rerun"`` the body as well, with all
            outcomes as they are then, once enough parts are ok. The body must bear that.

    Raises:
        PolicyError: An option is out of range, or the app has another result backend.

    Example:
        >>> from celery import Celery
        >>> app = Celery("shop", backend="partial+redis://localhost:6379/1")
        >>> @app.task
        ... def fetch(page): ...
        >>> @app.task
        ... def summarise(results): ...
        >>> report = partial_chord(
        ...     [fetch.s(page) for page in range(10)], summarise.s(), min_share=0.8, deadline=60
        ... )
    """
    one_of("on_failure", on_failure, ("wait", "fail_fast"))
    one_of("on_late", on_late, ("record", "rerun"))
    mark = Mark(
        threshold=Threshold(min_success=min_success, min_share=min_share),
        fail_fast=on_failure == "fail_fast",
        deadline=None if deadline is None else seconds("deadline", deadline),
        rerun=on_late == "rerun",
    )
    parts = [_known_inside(part) for part in in_order(_given(header))]
    end = own_copy(_a_signature("body", body)) if body else None
    made = PartialChord(parts, end, app=_app_of([*parts, end] if end else parts))
    _check(made, mark)
    if parts:
        mark.put_on(made.body)
    made.check_backend()
    return made


@Signature.register_type(PARTIAL_CHORD)
class PartialChord(chord):
    """What ``partial_chord`` returns: a Celery chord whose body bears a mark.

    In a message it says that it is one. Every process with the result backend knows the type; one
    without it could not begin the chord, and fails where it would publish it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self["subtask_type"] = PARTIAL_CHORD

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Publish the chord.

        Raises:
            PolicyError: The header would begin after the deadline, or as ``check_backend`` says.
        """
        self.check_backend()
        self._check_countdown(options.get("countdown", self.options.get("countdown")))
        result = super().apply_async(args, kwargs, **options)
        return forgiving(result, getattr(result.parent, "id", None))

    def freeze(self, *args: Any, **kwargs: Any) -> Any:
        """Give its tasks their ids."""
        result = super().freeze(*args, **kwargs)
        return forgiving(result, self.id)

    def check_backend(self) -> None:
        """Fail where nobody would make outcomes of the parts' results.

        Raises:
            PolicyError: Naming the remedy.
        """
        app = self.app
        if not app.conf.task_always_eager and not getattr(app.backend, "makes_partial_chords", False):
            raise PolicyError(
                f"partial_chord needs a result backend that knows its parts, and that of {app.main!r} is "
                f'{app.backend.as_uri()}: put "partial+" before it, as in "partial+redis://localhost:6379/0"'
            )

    def _check_countdown(self, countdown: float | None) -> None:
        deadline = (mark_of(self.body) or Mark()).deadline
        if countdown is not None and deadline is not None and countdown >= deadline:
            raise PolicyError(
                f"countdown={countdown!r}, but deadline={deadline!r} is counted from publication: "
                "every part would be lost before it begins; make the deadline longer"
            )

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Run it in this process, as eager mode does."""
        given = options.get("body") or self.body
        mark, body = mark_of(given) or Mark(), unmarked(given, self.app)
        results = list(_run_eagerly(self.tasks, args or (), kwargs or {}))
        failure = too_few(results, mark)
        if failure is None:
            return body.apply(args=(results,))
        failed = body.freeze()
        fail(self.app.backend, body, failure, eager=True)
        if self.app.conf.task_eager_propagates:
            raise failure
        return EagerResult(failed.id, failure, states.FAILURE)


def _run_eagerly(
    header: Iterable[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Run the parts one after the other; their outcomes."""
    for part in header:
        signature: Any = maybe_signature(part, clone=True)
        try:
            results = list(leaves([signature.apply(args, kwargs)]))
        except Exception as error:  # noqa: BLE001 - task_eager_propagates: whatever the part raises
            yield {"id": signature.freeze().id, "state": "failed", **describe(error)}
            continue
        for result in results:
            if result.state == states.SUCCESS:
                yield {"id": result.id, "state": "ok", "value": result.result}
            else:
                yield {"id": result.id, "state": kind_of(result.state), **describe(result.result)}


def _given(header: Any) -> list[Any]:
    """The members of a header as it was given.

    Raises:
        PolicyError: Something in it is no signature.
    """
    if isinstance(header, dict):
        return [_a_signature("header", header)]
    try:
        members = list(header)
    except TypeError:
        members = [header]
    return [_a_signature(f"header, member {number}", member) for number, member in enumerate(members)]


def _known_inside(part: Any) -> Any:
    """Have the plain chords in a part know their parts as well: what hangs one would hang this one."""
    for inner in chords_in(part):
        body = inner["kwargs"]["body"]
        if mark_of(body) is None:
            inner["kwargs"]["body"] = own_copy(body)
            Mark(plain=True).put_on(inner["kwargs"]["body"])
    return part


def _a_signature(where: str, given: Any) -> Any:
    if not isinstance(given, dict) or "task" not in given:
        raise PolicyError(f"{where}: {given!r:.100} is no signature; write one, as in fetch.s(page)")
    return given


def _app_of(signatures: Iterable[Any]) -> Celery | None:
    """The app of the first task that has one: a canvas does not always know that of what is in it."""
    tasks = (task for signature in signatures for task in starters(signature))
    return next((app for task in tasks if (app := getattr(task, "_app", None))), None)


def _check(made: PartialChord, mark: Mark) -> None:
    """Refuse a chord that cannot succeed, or has nothing to run at its end.

    Raises:
        PolicyError: Naming what is wrong.
    """
    parts = made.__length_hint__()
    needed = mark.threshold.min_success or 0
    if needed > parts:
        raise PolicyError(f"min_success={needed}, but the header has {parts} parts: it could never be met")
    if not made.body or ("tasks" in made.body.kwargs and not made.body.tasks):
        raise PolicyError("partial_chord needs a body: the task that is given the outcomes")
