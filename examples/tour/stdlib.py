"""The work of the first job: survey the files of the standard library into an SQLite file."""

import ast
import json
import os
import sqlite3
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict


class Survey(TypedDict):
    """What the index knows about a module."""

    functions: int
    classes: int
    lines: int
    imports: list[str]


class NotPython(Exception):
    """A file that cannot be parsed.

    Args:
        name: What the index would have called it.
        why: What the parser says.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)

    def __str__(self) -> str:
        return ": ".join(self.args)


def modules() -> dict[str, str]:
    """Every module of the running Python's standard library that is written in Python, with its file."""
    root = Path(sysconfig.get_path("stdlib"))
    found = _modules_below(root, "")
    return {name: str(path) for name, path in found if name.split(".")[0] in sys.stdlib_module_names}


def _modules_below(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for entry in sorted(folder.iterdir()):
        package = entry / "__init__.py"
        if package.is_file():
            yield prefix + entry.name, package
            yield from _modules_below(entry, f"{prefix}{entry.name}.")
        elif entry.suffix == ".py" and entry.stem != "__init__":
            yield prefix + entry.stem, entry


def test_data() -> dict[str, str]:
    """Files beside the library's own tests that are there to be read; some of them are broken on purpose."""
    root = Path(sysconfig.get_path("stdlib"))
    found = {path.relative_to(root): path for path in sorted(root.glob("**/test*/**/*.py"))}
    return {str(name): str(path) for name, path in found.items() if _is_data(name.parts)}


def _is_data(folders: tuple[str, ...]) -> bool:
    return "site-packages" not in folders and any(folder.endswith("data") for folder in folders)


def survey(name: str, path: str) -> Survey:
    """Parse one file and count what is in it.

    Raises:
        NotPython: It cannot be parsed.
    """
    source = Path(path).read_bytes()
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError as error:
        raise NotPython(name, error.msg) from error
    imports = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imports |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return Survey(
        functions=sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        lines=source.count(b"\n"),
        imports=sorted(imports),
    )


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The index; what was written is committed at the end, in one transaction."""
    database = sqlite3.connect(folder / "index.sqlite", timeout=30)
    try:
        with database:
            yield database
    finally:
        database.close()


def create(folder: Path, *, fenced: bool) -> None:
    """Make an empty index, either one that can check fences or a plain table."""
    columns = "functions INTEGER, classes INTEGER, lines INTEGER, imports TEXT"
    with opened(folder) as database:
        # Write-ahead logging lets four processes write in turn without long waits.
        database.execute("PRAGMA journal_mode = WAL")
        if fenced:
            database.execute(
                f"CREATE TABLE modules (module TEXT PRIMARY KEY, {columns}, fence INTEGER, writes INTEGER)"
            )
        else:
            database.execute(f"CREATE TABLE modules (module TEXT, {columns})")


def write_fenced(database: sqlite3.Connection, module: str, survey: Survey, *, fence: int) -> None:
    """Write a module's row, unless an attempt with a higher fence has done so.

    The row of an earlier attempt is replaced: that attempt was cut short before its end was recorded, or
    there would be no later one. `writes` counts how often that was so.
    """
    database.execute(
        """
        INSERT INTO modules VALUES (?, ?, ?, ?, ?, ?, 1)
        ON CONFLICT (module) DO UPDATE SET
            functions = excluded.functions, classes = excluded.classes, lines = excluded.lines,
            imports = excluded.imports, fence = excluded.fence, writes = writes + 1
        WHERE excluded.fence > fence
        """,
        (*_row(module, survey), fence),
    )


def write(database: sqlite3.Connection, module: str, survey: Survey) -> None:
    """Add a row for a module, as a table without a thought for repetition takes it."""
    database.execute("INSERT INTO modules VALUES (?, ?, ?, ?, ?)", _row(module, survey))


def _row(module: str, survey: Survey) -> tuple[str, int, int, int, str]:
    imports = json.dumps(survey["imports"])
    return module, survey["functions"], survey["classes"], survey["lines"], imports


def read(folder: Path) -> list[tuple[str, Survey]]:
    """Every row of the index."""
    with opened(folder) as database:
        rows = database.execute("SELECT module, functions, classes, lines, imports FROM modules").fetchall()
    return [
        (module, Survey(functions=functions, classes=classes, lines=lines, imports=json.loads(imports)))
        for module, functions, classes, lines, imports in rows
    ]


def write_report(folder: Path, not_python: list[str]) -> None:
    """Write down which files could not be parsed; a second time replaces the first."""
    new = folder / f"report.{os.getpid()}"
    new.write_text(json.dumps(not_python))
    new.replace(folder / "report.json")


def read_report(folder: Path) -> list[str] | None:
    """The files that the report names; ``None`` if there is no report."""
    report = folder / "report.json"
    return list(json.loads(report.read_text())) if report.exists() else None


def rewritten(folder: Path) -> int:
    """How many writes of an attempt cut short were replaced under a higher fence."""
    with opened(folder) as database:
        (surplus,) = database.execute("SELECT coalesce(sum(writes - 1), 0) FROM modules").fetchone()
    return int(surplus)
