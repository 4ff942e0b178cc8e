"""The result that the caller of a partial chord gets: a failed part does not make ``get`` raise."""

from __future__ import annotations

from typing import Any

from celery.result import GroupResult, ResultBase


class HeaderResult(GroupResult):
    """The results of the parts of a partial chord.

    A caller's ``result.get()`` looks at what came before its task and raises the first error there.
    For a chain that is right; a partial chord goes on, and its own end tells.
    """

    def as_tuple(self) -> Any:
        """Itself without the parts: a result that is made of this would raise again."""
        before: Any = self.parent
        return (self.id, before and before.as_tuple()), []

    def save(self, backend: Any = None) -> Any:
        """Save it with the parts, as the group that it is."""
        whole = GroupResult(self.id, self.results, parent=self.parent, app=self.app)
        return whole.save(backend)

    def maybe_throw(self, callback: Any = None, propagate: bool = True) -> None:
        """Do nothing: the failure of a part is not the failure of the chord."""


def checked(result: Any) -> Any:
    """``result``, if it is one.

    Raises:
        TypeError: It is something else, such as an id.
    """
    if not isinstance(result, ResultBase):
        raise TypeError(f"{result!r:.100} is no result of Celery; of an id, make one: app.AsyncResult(id)")
    return result


def forgiving(result: Any, header_id: str | None) -> Any:
    """``result`` with a header that does not raise.

    Args:
        result: The result of a chord, or of what comes after it in its body.
        header_id: The id of the chord's header.
    """
    node = result
    while node is not None:
        before = node.parent
        if isinstance(before, GroupResult) and before.id == header_id:
            node.parent = HeaderResult(
                before.id,
                before.results,
                parent=before.parent,
                app=before.app,
                ready_barrier=before._on_full,  # type: ignore[attr-defined]  # noqa: SLF001 - wait for the same, once
            )
            break
        node = before
    return result
