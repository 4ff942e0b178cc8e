"""A workflow as a tree of states: what runs, what has ended and how, what has not begun."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from celery import states
from celery.result import EagerResult

from celery_patterns.flows.chords.begin import leaves
from celery_patterns.flows.chords.fetch import metas_of, parts_by_result
from celery_patterns.flows.chords.report import describe
from celery_patterns.flows.chords.results import checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery.result import AsyncResult, GroupResult

    from celery_patterns.flows.chords.outcomes import State

Kind = Literal["task", "group", "chain", "chord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowNode:
    """A task of a workflow, or what is made of several.

    Args:
        kind: ``"task"``, ``"group"``, ``"chain"``; ``"chord"``: its header, then its body.
        id: The task's id; of a group that of the group, of the others that of their result.
        state: Celery's state; of what is made of several, what follows from theirs.
        name: The task's name, where ``result_extended`` is set.
        outcome: What a partial chord takes the part for, once it has ended.
        error: Why it failed, in one line.
        children: What it is made of; of a task, what it has sent.
    """

    kind: Kind
    id: str
    state: str = states.PENDING
    name: str | None = None
    outcome: State | None = None
    error: str | None = None
    children: tuple[WorkflowNode, ...] = ()

    def tasks(self) -> Iterator[WorkflowNode]:
        """All tasks in it, from left to right."""
        if self.kind == "task":
            yield self
        for child in self.children:
            yield from child.tasks()


def inspect_workflow(result: AsyncResult[Any] | GroupResult) -> WorkflowNode:
    """The tree of states of a chain, a group or a chord.

    Use it to look at a workflow that does not get on. It takes one round trip for each level: what
    the result knows, what those tasks have sent, what those have sent... For a partial chord it
    takes one more.

    Args:
        result: As the caller got it; it knows what comes before the last task. Of a result made
            from an id alone, that of a partial chord knows its parts, and that of any other task
            what the task has sent.

    Raises:
        TypeError: It is no result.
    """
    ran = list(leaves([checked(result)]))
    if ran and all(isinstance(one, EagerResult) for one in ran):
        return _eager_tree(result)
    walk = _Walk(result.app)
    root = walk.with_parts(_tree(result))
    walk.read(root)
    return walk.finished(root)


@dataclass
class _Walk:
    """What is known so far of tasks, by id."""

    app: Any
    metas: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    sent: dict[str, tuple[WorkflowNode, ...]] = field(default_factory=dict)
    outcomes: dict[str, State | None] = field(default_factory=dict)

    def with_parts(self, root: WorkflowNode) -> WorkflowNode:
        """``root`` with what a partial chord's record knows: outcomes, and the header if that is missing."""
        if not getattr(self.app.backend, "makes_partial_chords", False):
            return root
        slots = parts_by_result(self.app.backend, root.id)
        self.outcomes = {slot.task_id: slot.state for slot in slots}
        unknown = self.outcomes.keys() - {task.id for task in root.tasks()}
        if not unknown:
            return root
        parts = tuple(WorkflowNode(kind="task", id=slot.task_id) for slot in slots)
        return WorkflowNode(
            kind="chord", id=root.id, children=(WorkflowNode(kind="group", id=root.id, children=parts), root)
        )

    def read(self, root: WorkflowNode) -> None:
        """Read level after level, until nothing new is found."""
        seen = {task.id for task in root.tasks()}
        level = list(seen)
        while level:
            metas = metas_of(self.app.backend, level)
            self.metas |= metas
            level = []
            for task_id, meta in metas.items():
                trees = [_tree_of_tuple(one) for one in meta.get("children") or ()]
                self.sent[task_id] = new = tuple(one for one in trees if not seen.issuperset(_ids(one)))
                level += [found for tree in new for found in _ids(tree) if found not in seen]
                seen.update(level)

    def finished(self, node: WorkflowNode) -> WorkflowNode:
        """``node`` with its state."""
        children = tuple(self.finished(child) for child in (*node.children, *self.sent.get(node.id, ())))
        if node.kind != "task":
            return replace(node, children=children, state=_state_of(node.kind, children))
        meta = self.metas[node.id]
        return replace(
            node,
            children=children,
            state=meta["status"],
            name=meta.get("name"),
            outcome=self.outcomes.get(node.id),
            error=_in_one_line(meta["result"]) if meta["status"] in states.EXCEPTION_STATES else None,
        )


def _eager_tree(result: Any) -> WorkflowNode:
    """What was run in eager mode: each result has its state, and nobody else has."""
    members = getattr(result, "results", None)
    if members is not None:
        children = tuple(map(_eager_tree, members))
        return WorkflowNode(kind="group", id=result.id, state=_state_of("group", children), children=children)
    error = _in_one_line(result.result) if result.state in states.EXCEPTION_STATES else None
    return WorkflowNode(kind="task", id=result.id, state=result.state, name=result.name, error=error)


def _ids(node: WorkflowNode) -> list[str]:
    return [task.id for task in node.tasks()]


def _tree(result: Any) -> WorkflowNode:
    """What a result knows itself: its parts, and the steps before it."""
    steps: list[WorkflowNode] = []
    for one in reversed(list(_with_parents(result))):
        members = getattr(one, "results", None)
        step = WorkflowNode(kind="task", id=one.id)
        if members is not None:
            step = WorkflowNode(kind="group", id=one.id, children=tuple(map(_tree, members)))
        if steps and steps[-1].kind == "group":  # something comes after it, so it is a header
            step = WorkflowNode(kind="chord", id=one.id, children=(steps.pop(), step))
        steps.append(step)
    return steps[0] if len(steps) == 1 else WorkflowNode(kind="chain", id=steps[-1].id, children=tuple(steps))


def _tree_of_tuple(result: Any) -> WorkflowNode:
    """What a task has sent, as its metadata has it: the id, its parent's, and members if it is a group."""
    about, members = result
    found = about[0] if isinstance(about, (list, tuple)) else about
    if members is None:
        return WorkflowNode(kind="task", id=found)
    return WorkflowNode(kind="group", id=found, children=tuple(map(_tree_of_tuple, members)))


def _with_parents(result: Any) -> Iterator[Any]:
    while result is not None:
        yield result
        result = result.parent


def _state_of(kind: Kind, children: Iterable[WorkflowNode]) -> str:
    """The state of what is made of several."""
    found = [_state_to_others(child) for child in children]
    if found and kind in {"chain", "chord"} and found[-1] in states.READY_STATES:
        return found[-1]
    if all(state == states.SUCCESS for state in found):
        return states.SUCCESS
    if all(state == states.PENDING for state in found):
        return states.PENDING
    ended = all(state in states.READY_STATES for state in found)
    return states.FAILURE if ended and kind == "group" else states.STARTED


def _state_to_others(node: WorkflowNode) -> str:
    """A task's state, or what its chord has made of it: who was lost stays pending for ever."""
    if node.outcome is None or node.state in states.READY_STATES:
        return node.state
    return states.SUCCESS if node.outcome == "ok" else states.FAILURE


def _in_one_line(error: Any) -> str:
    told = describe(error)
    return " ".join(": ".join(one for one in (told["error"], told["message"]) if one).split())
