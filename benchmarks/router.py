"""What routing costs: ``python -m benchmarks.router [ROUNDS]``.

The base is Celery's own Router with a dict of 50 globs, asked as ``send_task`` asks it. No message is
published: whatever it costs to publish is the same for both, and would only hide the difference.

"Any of 50" asks for each task of the table once, and has the target; the others, for comparison, ask only for
the first task, the last, or one that no rule speaks of. Celery's dict is at its best with the first. What it
cannot say has no target either.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from celery import Celery

from benchmarks.interleaved import measure, report
from celery_patterns import Rule, TaskPriority, TaskRouter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RULES = 50
ASKED = {
    "any of 50": range(RULES),
    "the first": [0] * RULES,
    "the last": [RULES - 1] * RULES,
    "none": [-1] * RULES,
}

TABLES: Mapping[str, Callable[[], Any]] = {
    "Celery's dict": lambda: {f"proj.part{n}.*": {"queue": f"q{n}", "priority": 5} for n in range(RULES)},
    "numbers": lambda: TaskRouter([Rule(f"proj.part{n}.*", queue=f"q{n}", priority=5) for n in range(RULES)]),
    "meanings": lambda: TaskRouter(
        [Rule(f"proj.part{n}.*", queue=f"q{n}", priority=TaskPriority.HIGH) for n in range(RULES)]
    ),
    "meanings and a predicate": lambda: TaskRouter(
        [
            Rule(f"proj.part{n}.*", when=lambda order: order > 1, queue=f"q{n}", priority=TaskPriority.HIGH)
            for n in range(RULES)
        ]
    ),
}


def app_with(routes: Any) -> Celery:
    app = Celery("bench", broker="redis://localhost:1/0", set_as_current=False)
    app.conf.task_routes = [routes]
    for number in range(-1, RULES):

        @app.task(name=f"proj.part{number}.run", shared=False)
        def run(order: int) -> None:
            pass

    app.finalize()
    return app


def asking(app: Celery, numbers: Any) -> Callable[[], None]:
    """Route each of these tasks once, with the options that ``apply_async`` passes on."""
    router = app.amqp.router
    tasks = [app.tasks[f"proj.part{number}.run"] for number in numbers]
    calls = [(task, task._get_exec_options()) for task in tasks]  # noqa: SLF001 - as Celery does

    def ask() -> None:
        for task, options in calls:
            router.route(dict(options), task.name, (7,), {}, task)

    return ask


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    apps = {name: app_with(make()) for name, make in TABLES.items()}
    met = True
    for what, numbers in ASKED.items():
        print(f"\n{what}: {RULES} calls")
        actions = {name: asking(app, numbers) for name, app in apps.items()}
        targets = {"numbers": 1.0, "meanings": 1.0} if numbers == range(RULES) else {}
        met = report(measure(actions, rounds), "Celery's dict", targets) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
