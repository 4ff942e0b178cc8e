"""`celery -A proj patterns idempotency show|forget KEY`, as operators type it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner, Result

from celery_patterns import Idempotency, IdempotentTask
from celery_patterns.cli import patterns
from celery_patterns.core.store import Store, override_store, store_of
from celery_patterns.policies.idempotency.record import Record, record_key
from celery_patterns.testing import MovableClock, capture
from tests.ground.app import CONF, HISTORY
from tests.ground.ports import LOCALHOST, free_port
from tests.ground.workers import ROOT


@pytest.fixture
def app(every_store_url: str) -> Iterator[Celery]:
    """A project's app with one task, its store on each kind of server."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(patterns_url=every_store_url, result_backend="cache+memory://")

    policy = Idempotency("order", cache_errors=True)

    @app.task(base=IdempotentTask, idempotency=policy, name="shop.charge", shared=False)
    def charge(order: Any) -> str:
        if order == "broken":
            raise ValueError(order)
        return f"charged {order}"

    yield app
    store_of(app).close()


def typed(app: Celery, *words: str, answer: str = "") -> Result:
    """What comes of `celery -A shop patterns idempotency ...`."""
    context = SimpleNamespace(app=app)
    return CliRunner().invoke(patterns, ["idempotency", *words], obj=context, input=answer)


def running(app: Celery, order: str, lease: float = 60) -> None:
    """Another process runs the task for this order."""
    store = store_of(app)
    record = Record(
        store=store,
        key=record_key(store, "shop.charge", json.dumps(order)),
        owner="some-id/1",
        fingerprint="any",
        attempt=0,
    )
    record.begin(lease=lease, ttl=600, on_lapsed="rerun", claim=60)


# --- show ------------------------------------------------------------------------------------------------


def test_a_completed_call_is_shown(app: Celery) -> None:
    """An operator could not tell whether an order was charged, by whom and with what result."""
    charge = app.tasks["shop.charge"]
    charge.apply(("A-17",), task_id="some-id")
    shown = typed(app, "show", "shop.charge:A-17")
    assert shown.exit_code == 0, shown.output
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in shown.output.splitlines())
    assert (lines["key"], lines["state"]) == ('shop.charge:"A-17"', "completed")
    assert lines["task id"].startswith("some-id")
    assert "charged A-17" in lines["result"]
    assert 86_000 < int(lines["expires in"].removesuffix(" s")) <= 86_400


def test_a_call_is_shown_to_programs(app: Celery) -> None:
    """A script that watches an order would have to parse what is made for people."""
    app.tasks["shop.charge"].apply((17,), task_id="some-id")
    fields = json.loads(typed(app, "show", "shop.charge:17", "--json").output)
    assert fields["state"] == "completed"
    assert fields["task_id"].startswith("some-id")
    assert isinstance(fields["fence"], int)
    assert "charged 17" in fields["result"]
    assert fields["lease_left"] == 0


def test_a_failure_that_is_remembered_is_shown(app: Celery) -> None:
    """An operator would take a recorded failure for a success."""
    app.tasks["shop.charge"].apply(("broken",))
    fields = json.loads(typed(app, "show", "shop.charge:broken", "--json").output)
    assert fields["state"] == "failed"
    assert "ValueError" in fields["result"]


def test_a_running_call_is_shown_with_its_lease(app: Celery) -> None:
    """An operator could not tell a run that works from one that was killed."""
    running(app, "A-17")
    fields = json.loads(typed(app, "show", "shop.charge:A-17", "--json").output)
    assert (fields["state"], fields["task_id"], fields["result"]) == ("running", "some-id", None)
    assert 50 < fields["lease_left"] <= 60
    assert "-" in typed(app, "show", "shop.charge:A-17").output


def test_a_lapsed_call_is_shown_as_such(store_url: str) -> None:
    """What waits for a person to decide would look as if it were running."""
    app, store = Celery("shop"), Store(store_url)
    with override_store(store):
        running(app, "A-17")
        MovableClock(store).advance(61)
        fields = json.loads(typed(app, "show", "shop.charge:A-17", "--json").output)
    assert (fields["state"], fields["lease_left"]) == ("lapsed", 0)


@pytest.mark.parametrize(
    "order",
    [
        *[
            "A-17",
            "17",
            17,
            "",
            " ",
            "a:b",
            "a}b",
            '"quoted"',
            "-x",
            "x" * 500,
            "é",
            "\u2028",
            "\ud800",
            "null",
        ],
        *[None, True, 1.5, {"id": [1, None]}, ["a", 1]],
    ],
    ids=repr,
)
def test_every_key_is_found_as_events_write_it(order: Any, app: Celery) -> None:
    """An operator would copy the key from the log, and be told that there is none."""
    charge = app.tasks["shop.charge"]
    charge.apply((order,))
    with capture() as events:
        charge.apply((order,))
    (event,) = events.of("replayed")
    shown = typed(app, "show", "--json", "--", event.key or "")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output)["key"] == event.key


@pytest.mark.parametrize("order", ["A-17", "x" * 500, "a:b", 'say "no"', "é"], ids=repr)
def test_a_plain_word_stands_for_its_key(order: str, app: Celery) -> None:
    """An operator, who knows the order and not how keys are written, would be told that there is none."""
    app.tasks["shop.charge"].apply((order,))
    assert typed(app, "show", f"shop.charge:{order}").exit_code == 0


def test_what_is_not_recorded_is_said_to_be_so(app: Celery) -> None:
    """A script could not tell "nothing" from an answer."""
    for command in ("show", "forget"):
        shown = typed(app, command, "shop.charge:A-17")
        assert shown.exit_code == 1
        assert shown.output == "Error: nothing is recorded for shop.charge:A-17\n"


# --- forget ----------------------------------------------------------------------------------------------


def test_a_forgotten_call_runs_again(app: Celery) -> None:
    """What waits for a person would wait for ever."""
    charge = app.tasks["shop.charge"]
    charge.apply(("A-17",))
    charge.apply(("B-1",))
    forgotten = typed(app, "forget", "shop.charge:A-17", "--yes")
    assert (forgotten.exit_code, forgotten.output) == (0, 'forgot shop.charge:"A-17"\n')
    with capture() as events:
        charge.apply(("A-17",))
        assert not events.of("replayed")
        charge.apply(("B-1",))
        assert len(events.of("replayed")) == 1


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 1), ("n\n", 1, 0), ("", 1, 0)])
def test_forgetting_asks_first(answer: str, code: int, left: int, app: Celery) -> None:
    """A slip of the keyboard would have an order charged twice."""
    app.tasks["shop.charge"].apply(("A-17",), task_id="some-id")
    forgotten = typed(app, "forget", "shop.charge:A-17", answer=answer)
    assert forgotten.exit_code == code
    assert re.search(r'Forget shop\.charge:"A-17" \(completed, by some-id.*\)\? \[y/N\]', forgotten.output)
    assert typed(app, "show", "shop.charge:A-17").exit_code == left


def test_forgetting_a_running_call_warns(app: Celery) -> None:
    """An operator would not know that two runs may be under way at once."""
    running(app, "A-17")
    forgotten = typed(app, "forget", "shop.charge:A-17", "--yes")
    assert forgotten.exit_code == 0
    assert "some-id is running; a call that comes now would run beside it." in forgotten.output


# --- trouble ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["show"], ["forget", "--yes"]])
@pytest.mark.parametrize("url", [f"redis://:s3cret@{LOCALHOST}:{{}}/0", "http://:s3cret@{}"])
def test_an_error_is_one_line_without_a_password(command: list[str], url: str) -> None:
    """The operator would see a page of traceback, and whoever looks on the password."""
    app = Celery("shop")
    app.conf.patterns_url = url.format(free_port())
    shown = typed(app, *command, "shop.charge:A-17")
    assert shown.exit_code == 1
    assert shown.output.startswith("Error: ")
    assert len(shown.output.splitlines()) == 1
    assert "s3cret" not in shown.output


# --- through Celery --------------------------------------------------------------------------------------


def test_celery_knows_the_command(redis_url: str, tmp_path: Any) -> None:
    """The entry point would be missing from the package, or the app not be the one that `-A` names."""
    settings = {"broker_url": redis_url, "result_backend": redis_url, "patterns_url": redis_url}
    env = {
        **os.environ,
        CONF: json.dumps(settings),
        HISTORY: str(tmp_path / "history"),
        "PYTHONPATH": str(ROOT),
    }

    def celery(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "celery", "-A", "tests.apps.orders", "patterns", *words]
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    store = Store(redis_url)
    key = store.key("idempotency", "tests.apps.orders.charge", '"A-17"')
    Record(store=store, key=key, owner="some-id/1", fingerprint="any", attempt=0).begin(
        lease=60, ttl=600, on_lapsed="rerun", claim=60
    )
    shown = celery("idempotency", "show", "tests.apps.orders.charge:A-17", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["task_id"] == "some-id"
    forgotten = celery("idempotency", "forget", "tests.apps.orders.charge:A-17", "--yes")
    assert forgotten.stdout.endswith('forgot tests.apps.orders.charge:"A-17"\n'), forgotten.stderr
    assert not store.client.exists(key)
    assert "forget" in celery("idempotency", "--help").stdout
    store.close()
