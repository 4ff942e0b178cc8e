"""The command line as operators use it: in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.ground.stage import Stage
from tests.ground.workers import ROOT, _inherited


@pytest.fixture
def cli(stage: Stage) -> Callable[..., Any]:
    """`cli("list", "--json")`: what `celery -A ... dlq list --json` prints, read as JSON."""

    def run(*arguments: str, code: int = 0, app: str = "tests.apps.letters") -> Any:
        command = [sys.executable, "-m", "celery", "-A", app, "dlq", *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**_inherited(), **stage._env()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in arguments and done.stdout else done.stdout

    return run
