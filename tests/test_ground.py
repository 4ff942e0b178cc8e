"""The ground itself: histories, waiting, and nothing left behind."""

import os
import signal
import subprocess
import sys

import pytest
from celery import signals

from tests.ground import processes, tree
from tests.ground.history import History
from tests.ground.isolation import isolated
from tests.ground.waiting import wait_for
from tests.ground.workers import ROOT


def _run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_history_of_many_processes_is_whole(tmp_path):
    """Entries would be torn or lost, and every count of effects with them."""
    history = History(tmp_path / "history.jsonl")
    writer = (
        "import sys; from tests.ground.history import History\n"
        "for number in range(500): History(sys.argv[1]).add('wrote', number=number, filling='x' * 300)"
    )
    command = [sys.executable, "-c", writer, str(history.path)]
    writers = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]

    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    for writer in writers:
        numbers = [entry["number"] for entry in history.entries("wrote", pid=writer.pid)]
        assert numbers == list(range(500))
    assert history.count() == 2_000


def test_a_wait_that_fails_says_what_for():
    """A hanging test would end without telling what it waited for."""
    with pytest.raises(AssertionError, match=r"not within 0.05 s: the flood \(last: 0\)"):
        wait_for(lambda: 0, timeout=0.05, message="the flood")


def test_a_killed_session_leaves_no_server(tmp_path):
    """Servers of an interrupted run would stay and hold ports and memory."""
    code = (
        "import os, signal, sys; from pathlib import Path; from tests.ground.servers import ValkeyServer\n"
        "server = ValkeyServer(Path(sys.argv[1])); server.start()\n"
        "print(server.process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )

    done = _run(code, tmp_path)

    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_for(lambda: not tree.alive(int(done.stdout)), message="the server of the killed session ends")


def test_a_process_that_will_not_end_is_killed_and_reported(tmp_path):
    """A server that hangs at its end would hang the tests, or stay."""
    stubborn = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('I stay', flush=True)\n"
        "while True: signal.pause()"
    )
    log = tmp_path / "log"
    process = processes.Process([sys.executable, "-c", stubborn], log=log, env=os.environ, cwd=tmp_path)
    wait_for(lambda: "I stay" in process.log_text())

    with pytest.raises(AssertionError, match="ends") as raised:
        process.end(timeout=0.1)

    assert raised.value.__notes__ == ["I stay"]
    assert not tree.alive(process.pid)


def test_children_of_a_process_die_with_it(tmp_path):
    """Grandchildren (pool processes, say) would outlive the test that killed their parent."""
    parent = (
        "import signal, subprocess\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True); signal.pause()"
    )
    log = tmp_path / "log"
    process = processes.Process([sys.executable, "-c", parent], log=log, env=os.environ, cwd=tmp_path)
    child = int(wait_for(process.log_text))
    assert tree.children(process.pid) == [child]

    process.kill()

    assert not tree.alive(process.pid)
    assert not tree.alive(child)


def test_a_failed_test_shows_the_logs_of_its_workers(tmp_path):
    """Failures in workers would be guesswork."""
    test = tmp_path / "test_failing.py"
    test.write_text(
        "def test_failing(worker):\n    worker('tests.ground.tasks', concurrency=1)\n    assert 0\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(test)]
    options = ["-c", str(ROOT / "pyproject.toml"), "--basetemp", str(tmp_path / "inner")]

    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)

    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "log of worker-" in done.stdout
    assert "tests.ground.tasks.until_told" in done.stdout
    assert "left running" not in done.stdout


def test_what_a_test_hears_of_ends_with_it() -> None:
    """It would go on to hear of the tasks of every later test of its process."""
    heard = []

    def hear(**_: object) -> None:
        heard.append("task")

    before = list(signals.task_success.receivers)
    with isolated():
        signals.task_success.connect(hear, weak=False)
        signals.task_success.send(sender=None)
    signals.task_success.send(sender=None)
    assert heard == ["task"]
    assert signals.task_success.receivers == before
