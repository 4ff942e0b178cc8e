"""How far a chord or a group has come: one round trip, whatever its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import states
from celery.result import EagerResult

from celery_patterns.flows.chords.begin import leaves
from celery_patterns.flows.chords.fetch import counts_or_metas
from celery_patterns.flows.chords.results import HeaderResult, checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.result import AsyncResult, GroupResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a chord or a group has come.

    Args:
        done: Parts that have ended, well or not.
        failed: Those among them that are not ok.
        total: All parts.
    """

    done: int
    failed: int
    total: int

    @property
    def share(self) -> float:
        """The share of the parts that have ended, from 0 to 1; 1 where there are none."""
        return self.done / self.total if self.total else 1.0


def workflow_progress(result: AsyncResult[Any] | GroupResult) -> Progress:
    """How far a chord or a group has come: use it for a progress bar.

    It takes one round trip. Of a partial chord the counts are read, and ``AsyncResult(id)`` is
    enough (a second round trip where the body is not a single task). Of everything else the state
    of each part is read, so the result must know its parts, as that which its caller got does.

    Args:
        result: That of a partial chord, a chord, or a group; a single task is one part, and so is
            what was run in eager mode.

    Raises:
        TypeError: It is no result.
    """
    header = _header(checked(result))
    ran = list(leaves([header or result]))
    if all(isinstance(part, EagerResult) for part in ran):
        return _progress([{"status": part.state} for part in ran])
    app: Any = result.app
    # The parts of a chord that its caller knows to be partial need not be looked at one by one.
    parts = [] if isinstance(header, HeaderResult) else ran
    counts, metas = counts_or_metas(app.backend, str(result.id), [part.id for part in parts])
    if counts is not None:
        return Progress(done=counts.ok + counts.bad, failed=counts.bad, total=counts.total)
    return _progress(metas)


def _progress(metas: Sequence[Mapping[str, Any]]) -> Progress:
    ended = [meta["status"] for meta in metas if meta["status"] in states.READY_STATES]
    return Progress(done=len(ended), failed=len(ended) - ended.count(states.SUCCESS), total=len(metas))


def _header(result: Any) -> Any:
    """A group, or the header before the body of a chord; ``None`` for a single task."""
    node = result
    while node is not None and getattr(node, "results", None) is None:
        node = getattr(node, "parent", None)  # an eager one has none
    return node
