"""`celery -A proj patterns routes`, without workers."""

from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from celery_patterns import Rule, TaskPriority, TaskRouter, task_queues_for
from celery_patterns.cli import patterns

RULES = [
    Rule(
        "proj.charge",
        when=lambda order: order["total"] > 1000,
        queue="large",
        priority=TaskPriority.HIGH,
        name="big",
    ),
    Rule(tier="gold", queue="gold", name="gold"),
    Rule("proj.*", queue="rest", name="all"),
]


def run(router: Any, *arguments: str, **conf: Any) -> Result:
    """Run the command on an app with one task."""
    app = Celery("proj", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.update(task_routes=router, worker_prefetch_multiplier=1, **conf)

    @app.task(shared=False, name="proj.charge")
    def charge(order: Any) -> None: ...

    context = CLIContext(app, no_color=True, workdir=None)
    result = CliRunner().invoke(patterns, ["routes", *arguments], obj=context)
    app.close()
    return result


def test_the_table() -> None:
    """Operators would have to read code to see the table."""
    result = run([TaskRouter(RULES)])
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "rule     tasks            asks         queue   priority",
        "big      proj.charge (1)  when(order)  large   HIGH (3)",
        "gold     * (1)            tier gold    gold    NORMAL (6)",
        "all      proj.* (1)       -            rest    NORMAL (6)",
        "default  *                -            celery  NORMAL (6)",
    ]


def test_one_call_is_explained() -> None:
    """Operators could not ask about a call before they make it."""
    router = TaskRouter(RULES)
    result = run([router], "proj.charge", "--args", '[{"total": 2000}]')
    assert result.output.splitlines()[0] == "proj.charge: big, because when(order) holds"
    result = run(
        [router], "proj.charge", "--kwargs", '{"order": {"total": 1}}', "--tier", "gold", "--header", "a=1"
    )
    assert "gold, because tier gold holds" in result.output
    assert "'a': '1'" in result.output


@pytest.mark.parametrize("wrong", [["--args", "{}"], ["--args", "1,2"], ["--kwargs", "[]"]])
def test_arguments_that_are_no_json_are_refused(wrong: list[str]) -> None:
    """The user would see a traceback."""
    result = run([TaskRouter(RULES)], "proj.charge", *wrong)
    assert result.exit_code == 2
    assert "JSON" in result.output


def test_the_check_fails_a_deployment() -> None:
    """A pipeline would go on with rules that lose tasks."""
    router = TaskRouter([*RULES, Rule("proj.export", queue="typo", name="late")])
    result = run([router], "--check", "--offline")
    assert result.exit_code == 1
    assert "FAIL  unreachable rule: late: 'all' comes first" in result.output
    assert "FAIL  unknown queue: large" in result.output
    sound = TaskRouter(RULES)
    result = run([sound], "--check", "--offline", **task_queues_for(sound))
    assert (result.exit_code, result.output) == (0, "the routes are sound (no worker was asked)\n")


def test_an_app_without_a_task_router_is_told_so() -> None:
    """An empty table would look like a sound one."""
    result = run([{"proj.*": "q"}])
    assert result.exit_code == 1
    assert "no TaskRouter" in result.output


def test_other_ways_to_end_a_table() -> None:
    """The last line would say something else than what happens to the rest."""

    class Router(TaskRouter):
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
            return None

    result = run(Router([Rule("proj.charge", queue="q", priority=5)], default=None))
    assert result.output.splitlines()[1].split() == ["Router.route_for_task", "*", "(code)", "?", "?"]
    assert result.output.splitlines()[2].split()[-2:] == ["q", "5"]
    assert result.output.splitlines()[3].startswith("(no default)")
