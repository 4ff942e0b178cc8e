"""The command line as operators use it."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from celery_patterns.cli import dlq
from tests.ground.stage import Stage
from tests.ground.workers import ROOT, _inherited

LETTERS = "tests.apps.letters"


def _read(text: str, arguments: tuple[str, ...]) -> Any:
    return json.loads(text) if "--json" in arguments and text else text


@pytest.fixture
def shell(stage: Stage) -> Callable[..., Any]:
    """`shell("list", "--json")`: what `celery -A ... dlq list --json` prints, in a process of its own."""

    def run(*arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", LETTERS, "dlq", *arguments],
            cwd=ROOT,
            env={**_inherited(), **stage._env()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return _read(done.stdout, arguments)

    return run


@pytest.fixture
def cli() -> Callable[..., Any]:
    """`cli("list", "--json", code=0)`: the same without a process, once the module of tasks is loaded."""

    def run(*arguments: str, code: int = 0) -> Any:
        context = SimpleNamespace(app=importlib.import_module(LETTERS).app)
        done = CliRunner().invoke(dlq, arguments, obj=context)
        assert done.exit_code == code, done.output
        return _read(done.stdout, arguments)

    return run
