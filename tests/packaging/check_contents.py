"""Does the installed wheel hold what the source tree holds? Run by .ci/run where only the wheel is installed.

    python check_contents.py path/to/src/celery_patterns

It runs before any extra is installed, so it also shows that importing the package needs none of them.
"""

import sys
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import celery_patterns


def main(source: Path) -> None:
    installed = Path(str(files(celery_patterns)))
    assert "site-packages" in installed.parts, f"imported from {installed}, which is not the wheel"

    expected = {path.relative_to(source) for path in source.rglob("*") if is_shipped(path)}
    shipped = {path.relative_to(installed) for path in installed.rglob("*") if is_shipped(path)}
    assert shipped == expected, f"missing: {expected - shipped}; not wanted: {shipped - expected}"
    assert Path("py.typed") in shipped, "type checkers would ignore the package's annotations"
    assert any(path.suffix == ".lua" for path in shipped), "the store's scripts are not in the wheel"

    for name in celery_patterns.__all__:
        assert hasattr(celery_patterns, name), f"__all__ promises {name}"

    commands = {entry.name: entry for entry in entry_points(group="celery.commands")}
    assert commands["patterns"].load(), "`celery patterns` would not be found"
    backends = {entry.name: entry for entry in entry_points(group="celery.result_backends")}
    assert backends["partial"].load(), "partial+redis:// would be an unknown result backend"


def is_shipped(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
