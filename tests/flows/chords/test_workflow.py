"""Trees of states and progress, from a caller's result and from an id alone; and in the terminal."""

import json
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from click.testing import CliRunner

from celery_patterns import Progress, WorkflowNode, inspect_workflow, partial_chord, workflow_progress
from celery_patterns.cli.main import patterns
from celery_patterns.cli.workflow import draw
from tests.flows.chords.conftest import PATIENCE, Ground

pytestmark = pytest.mark.parametrize("ground", ["redis"], indirect=True)


def shape(node: WorkflowNode) -> Any:
    """A tree in short: states of tasks, and kinds of what is made of them."""
    children = [shape(child) for child in node.children]
    if node.kind == "task":
        return [node.state, *children] if children else node.state
    return {f"{node.kind} {node.state}": children}


def test_the_tree_of_a_chord(ground: Ground, tasks: ModuleType, wait_for: Any) -> None:
    """Nobody could see which part a chord waits for, or which one failed."""
    gate = ground.gate()
    header = [tasks.give.s(1), tasks.fail.s("why"), tasks.wait.s(str(gate))]
    result = partial_chord(header, tasks.gather.s(), min_success=2).apply_async()
    by_id = tasks.app.AsyncResult(result.id)
    wait_for(lambda: workflow_progress(by_id) == Progress(done=2, failed=1, total=3))
    waiting = {"chord STARTED": [{"group STARTED": ["SUCCESS", "FAILURE", "PENDING"]}, "PENDING"]}
    for known in (result, by_id):
        wait_for(lambda known=known: shape(inspect_workflow(known)) == waiting)  # told before it is stored
        tree = inspect_workflow(known)
        assert [task.outcome for task in tree.tasks()] == ["ok", "failed", None, None]
        assert [task.error for task in tree.tasks()] == [None, "Business: why", None, None]
    gate.touch()
    assert result.get(timeout=PATIENCE)
    ended = {"chord SUCCESS": [{"group FAILURE": ["SUCCESS", "FAILURE", "SUCCESS"]}, "SUCCESS"]}
    wait_for(lambda: shape(inspect_workflow(by_id)) == ended)
    wait_for(lambda: workflow_progress(by_id) == Progress(done=3, failed=1, total=3))


def test_the_tree_says_what_is_lost(ground: Ground, tasks: ModuleType) -> None:
    """A part that its chord has given up would look as if it were still waited for."""
    header = [tasks.give.s(1), tasks.give.s(2).set(queue="nobody")]
    result = partial_chord(header, tasks.gather.s(), min_success=1, deadline=1).apply_async()
    assert result.get(timeout=PATIENCE) == ["ok 1", "lost -"]
    tree = inspect_workflow(result)
    assert tree.children[0].state == "FAILURE", "it would look as if the header were still at work"
    lines = list(draw(tree))
    assert any("PENDING, lost to its chord" in line for line in lines)


def test_what_is_no_result_is_refused(ground: Ground) -> None:
    """An id in the place of a result would raise something about attributes."""
    for function in (workflow_progress, inspect_workflow):
        for given in ("abc", None):
            with pytest.raises(TypeError, match=r"is no result of Celery; .* app\.AsyncResult\(id\)"):
                function(given)


def test_the_trees_of_everything_else(ground: Ground, tasks: ModuleType, wait_for: Any) -> None:
    """A chain, a group or a plain chord could not be looked at."""
    give, add = tasks.give, tasks.join
    results = {
        "task": give.delay(1),
        "chain": chain(give.s(1), add.s(2), add.s(3)).apply_async(),
        "group": group(give.s(1), chain(give.s(2), add.s(3)), tasks.fail.s()).apply_async(),
        "chord": chord([give.s(1), give.s(2)], add.s(3)).apply_async(),
        "chained": chain(give.s(1), group(add.s(2), add.s(3)), add.s(4), add.s(5)).apply_async(),
        "partial": chain(give.s(1), partial_chord([add.s(2)], tasks.gather.s()), add.s(3)).apply_async(),
    }
    for name, result in results.items():
        if name != "group":
            result.get(timeout=PATIENCE)
    ground.flush()
    two, three = ["SUCCESS"] * 2, ["SUCCESS"] * 3
    expected = {
        "task": "SUCCESS",
        "chain": {"chain SUCCESS": three},
        "group": {"group FAILURE": ["SUCCESS", {"chain SUCCESS": two}, "FAILURE"]},
        "chord": {"chord SUCCESS": [{"group SUCCESS": two}, "SUCCESS"]},
        "chained": {
            "chain SUCCESS": ["SUCCESS", {"chord SUCCESS": [{"group SUCCESS": two}, "SUCCESS"]}, "SUCCESS"]
        },
        "partial": {
            "chain SUCCESS": [
                "SUCCESS",
                {"chord SUCCESS": [{"group SUCCESS": ["SUCCESS"]}, "SUCCESS"]},
                "SUCCESS",
            ]
        },
    }
    for name, result in results.items():  # a chord is told before its parts are stored
        wait_for(lambda one=result, tree=expected[name]: shape(inspect_workflow(one)) == tree, message=name)
    first = results["chain"].parent.parent
    alone = inspect_workflow(tasks.app.AsyncResult(first.id))
    assert shape(alone) == ["SUCCESS", ["SUCCESS", "SUCCESS"]]


def test_progress_of_everything(ground: Ground, tasks: ModuleType) -> None:
    """A progress bar would stand still, or run over."""
    give = tasks.give
    header = [give.s(1), give.s(2), tasks.fail.s()]
    parted = partial_chord(header, tasks.gather.s(), min_success=1).apply_async()
    chained = partial_chord(header, chain(tasks.gather.s(), tasks.join.s()), min_success=1).apply_async()
    plain = chord([give.s(1), give.s(2)], tasks.join.s()).apply_async()
    grouped = group(give.s(1), group(give.s(2), tasks.fail.s())).apply_async()
    for result in (parted, chained, plain):
        result.get(timeout=PATIENCE)
    ground.flush()
    by_id = tasks.app.AsyncResult
    for result in (parted, by_id(parted.id), chained, by_id(chained.id), grouped):
        assert workflow_progress(result) == Progress(done=3, failed=1, total=3)
    assert workflow_progress(plain) == Progress(done=2, failed=0, total=2)
    assert workflow_progress(by_id(plain.id)) == Progress(done=1, failed=0, total=1)
    assert workflow_progress(group().apply_async(app=tasks.app)).share == 1.0
    assert Progress(done=1, failed=1, total=4).share == 0.25


def test_progress_takes_one_round_trip(ground: Ground, tasks: ModuleType) -> None:
    """A progress bar over ten thousand parts would ask for each of them."""
    header = [tasks.give.s(n) for n in range(50)]
    parted = partial_chord(header, tasks.gather.s()).apply_async()
    plain = group(header).apply_async()
    for result in (parted, tasks.app.AsyncResult(parted.id), plain):
        result.get(timeout=PATIENCE)
        assert count_round_trips(tasks.app.backend, lambda one=result: workflow_progress(one)) == 1


def test_a_tree_takes_one_round_trip_for_each_level(ground: Ground, tasks: ModuleType) -> None:
    """To look at a workflow of ten thousand tasks would take as many questions."""
    plain = group(chain(tasks.give.s(n), tasks.join.s()) for n in range(20)).apply_async()
    assert plain.get(timeout=PATIENCE)
    tree = inspect_workflow(plain)
    assert len(list(tree.tasks())) == 40
    assert count_round_trips(tasks.app.backend, lambda: inspect_workflow(plain)) == 2


def count_round_trips(backend: Any, action: Any) -> int:
    """How often the backend's connections are waited for meanwhile."""
    connection = backend.client.connection_pool.get_connection()
    backend.client.connection_pool.release(connection)
    send, sent = type(connection).send_packed_command, []

    def counting(self: Any, *args: Any, **options: Any) -> Any:
        sent.append(args)
        return send(self, *args, **options)

    type(connection).send_packed_command = counting
    try:
        action()
    finally:
        type(connection).send_packed_command = send
    return len(sent)


def test_the_terminal_draws_the_tree(ground: Ground, tasks: ModuleType, run_cli: Any, wait_for: Any) -> None:
    """An operator could not look at a workflow without writing Python."""
    result = partial_chord(
        [tasks.give.s(1), tasks.fail.s("why")], tasks.gather.s(), min_success=1
    ).apply_async()
    result.get(timeout=PATIENCE)
    ids = [part.id for part in result.parent.results]
    wait_for(lambda: tasks.app.AsyncResult(ids[1]).ready())  # it is stored after the chord was told
    lines = run_cli(tasks.app, "workflow", result.id).splitlines()
    assert lines == [
        f"SUCCESS  chord  {result.id}",
        f"├─ FAILURE  group  {result.id}",
        f"│  ├─ SUCCESS  task  {ids[0]}",
        f"│  └─ FAILURE  task  {ids[1]}  Business: why",
        f"└─ SUCCESS  task  {result.id}",
    ]
    told = json.loads(run_cli(tasks.app, "workflow", result.id, "--json"))
    assert told["children"][0]["children"][1]["outcome"] == "failed"


def test_large_groups_are_cut_short(ground: Ground, tasks: ModuleType, run_cli: Any) -> None:
    """A terminal would be flooded by ten thousand lines."""
    saved = group(tasks.give.s(n) for n in range(25)).apply_async()
    saved.save()
    saved.get(timeout=PATIENCE)
    lines = run_cli(tasks.app, "workflow", saved.id).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "└─ and 5 more: 5 SUCCESS"
    assert len(run_cli(tasks.app, "workflow", saved.id, "--all").splitlines()) == 26


def test_the_terminal_says_what_it_cannot_show(ground: Ground, tasks: ModuleType, start_valkey: Any) -> None:
    """An operator would take an unknown id for a task that waits, or be shown a traceback."""
    unknown = CliRunner().invoke(patterns, ["workflow", "nobody"], obj=SimpleNamespace(app=tasks.app))
    assert (unknown.exit_code, unknown.output) == (
        1,
        "Error: nothing is known of nobody: it has not begun, or its result has expired\n",
    )
    server = start_valkey()
    app = Celery("away", backend=f"partial+{server.url(1)}", set_as_current=False)
    server.kill()
    away = CliRunner().invoke(patterns, ["workflow", "some"], obj=SimpleNamespace(app=app))
    assert away.exit_code == 1
    assert away.output.startswith("Error: ConnectionError: ")
    assert away.output.count("\n") == 1


@pytest.fixture
def run_cli() -> Any:
    """`run_cli(app, "workflow", id)`: what `celery -A proj patterns ...` prints."""

    def run(app: Any, *arguments: str) -> str:
        done = CliRunner().invoke(patterns, arguments, obj=SimpleNamespace(app=app))
        assert done.exit_code == 0, done.output
        return done.output

    return run
