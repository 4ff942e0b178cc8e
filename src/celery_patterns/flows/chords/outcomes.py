"""What became of each part of a chord: pure values, the same in the body, in an errback and in JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, overload

from celery_patterns.errors import ChordFailed, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator

State = Literal["ok", "failed", "revoked", "lost"]
STATES: tuple[State, ...] = get_args(State)

_MISSING: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one part of a chord.

    Args:
        index: Its place in the header, counted from 0.
        state: ``"ok"``; ``"failed"``: it raised, or its process was killed; ``"revoked"``: it was
            revoked, or expired; ``"lost"``: nobody reported before the deadline.
        task_id: The id of the task whose end is the part's end.
        value: What an ``"ok"`` part returned.
        error: The type of the error, such as ``"ValueError"``; ``None`` for a part that is ok.
        message: The error's message.
    """

    index: int
    state: State
    task_id: str
    value: Any = None
    error: str | None = None
    message: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the part returned a value."""
        return self.state == "ok"

    @property
    def reason(self) -> str:
        """Why there is no value, in one line; empty for a part that is ok."""
        return ": ".join(one for one in (self.error, self.message) if one)

    def record(self) -> dict[str, Any]:
        """The same as a plain JSON value."""
        if self.ok:
            return {"id": self.task_id, "state": self.state, "value": self.value}
        return {"id": self.task_id, "state": self.state, "error": self.error, "message": self.message}


class Outcomes(Sequence[Outcome]):  # noqa: PLW1641 - values may be lists and dicts
    """The outcomes of all parts of a chord, in header order.

    Use it in the body of a partial chord, on what the body was given, and on
    :attr:`ChordFailed.results <celery_patterns.errors.ChordFailed>` in an errback. It may be an
    argument or a result of a task: as JSON it is the plain list that it was made of. ``json.dumps``
    knows lists only, so give it ``outcomes.records()``.

    Args:
        results: What the body of a partial chord was given.

    Raises:
        PolicyError: These are not outcomes, but plain values, for example.

    Example:
        >>> outcomes = Outcomes([
        ...     {"id": "a", "state": "ok", "value": 3},
        ...     {"id": "b", "state": "failed", "error": "ValueError", "message": "bad row"},
        ... ])
        >>> outcomes
        <Outcomes: 1 ok, 1 failed>
        >>> outcomes.values(), outcomes.values(default=0)
        ([3], [3, 0])
        >>> [(part.index, part.reason) for part in outcomes.failures]
        [(1, 'ValueError: bad row')]
    """

    def __init__(self, results: Iterable[Mapping[str, Any] | Outcome]) -> None:
        if not isinstance(results, Iterable):
            raise PolicyError(
                f"{results!r} is not the list of outcomes that the body of a partial chord is given"
            )
        self._parts = tuple(_outcome(index, result) for index, result in enumerate(results))

    @cached_property
    def successes(self) -> tuple[Outcome, ...]:
        """The parts that are ok."""
        return tuple(part for part in self._parts if part.ok)

    @cached_property
    def failures(self) -> tuple[Outcome, ...]:
        """The parts that are not: failed, revoked or lost."""
        return tuple(part for part in self._parts if not part.ok)

    @cached_property
    def counts(self) -> Mapping[State, int]:
        """How many parts ended in each state; all four states are there."""
        return {state: sum(part.state == state for part in self._parts) for state in STATES}

    def values(self, default: Any = _MISSING) -> list[Any]:
        """The values in header order.

        Args:
            default: Stands in for each part that has no value, so that places stay; without it
                such parts are left out.
        """
        if default is _MISSING:
            return [part.value for part in self.successes]
        return [part.value if part.ok else default for part in self._parts]

    def raise_for_failures(self) -> None:
        """Do nothing if all parts are ok.

        Raises:
            ChordFailed: Some are not; it carries all outcomes.
        """
        if self.failures:
            raise ChordFailed(str(self), self.records())

    def records(self) -> list[dict[str, Any]]:
        """The same as a plain JSON value: ``Outcomes(outcomes.records()) == outcomes``."""
        return [part.record() for part in self._parts]

    __json__ = records

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | Sequence[Outcome]:
        return self._parts[index]

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcomes) and self._parts == other._parts

    def __reduce__(self) -> tuple[type[Outcomes], tuple[list[dict[str, Any]]]]:
        return Outcomes, (self.records(),)

    def __repr__(self) -> str:
        return f"<Outcomes: {self._counted()}>"

    def __str__(self) -> str:
        if not self.failures:
            return self._counted()
        # Others may have been revoked because of it.
        failed = (part for part in self.failures if part.state == "failed")
        first = next(failed, self.failures[0])
        return f"{self._counted()} (first: part {first.index}, {first.reason})"

    def _counted(self) -> str:
        found = [f"{count} {state}" for state, count in self.counts.items() if count]
        return ", ".join(found) or "none"


def _outcome(index: int, result: Mapping[str, Any] | Outcome) -> Outcome:
    if isinstance(result, Outcome):
        result = result.record()
    if not isinstance(result, Mapping) or result.get("state") not in STATES or "id" not in result:
        raise PolicyError(
            f"result {index} is {result!r:.200}, not an outcome: only the body of a partial_chord(...) is "
            'given outcomes, and only where its workers have the result backend "partial+redis://..." as well'
        )
    return Outcome(
        index=index,
        state=cast("State", result["state"]),
        task_id=result["id"],
        value=result.get("value"),
        error=result.get("error"),
        message=result.get("message"),
    )
