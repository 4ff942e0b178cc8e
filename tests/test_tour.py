"""The README's first command, in a size that a test can wait for."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery.states import FAILURE, SUCCESS
from examples.tour.count import Outcome, count
from examples.tour.jobs import Job

ROOT = Path(__file__).parents[1]
MODULES, ORDERS, RENEWALS = 80, 60, 20
NAMED = re.compile(r"the report names the (\d+) files that are no Python")
BOUNDED = ("--modules", str(MODULES), "--orders", str(ORDERS), "--kill-every", "0.4")


def start(temporary: Path, *options: str) -> subprocess.Popen[str]:
    # A test run in the background of a script ignores SIGINT, and what it starts would inherit that.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # Everything that the tour starts inherits TMPDIR, so what it leaves behind can be told by that.
        return subprocess.Popen(
            [sys.executable, "-m", "examples.tour", *BOUNDED, *options],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(temporary), "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, ours)


def finish(tour: subprocess.Popen[str]) -> str:
    try:
        output, _ = tour.communicate(timeout=150)
    except BaseException:
        tour.send_signal(signal.SIGINT)  # so that it stops what it has started
        tour.communicate(timeout=20)
        raise
    return output


def figures(output: str, job: str) -> list[str]:
    """A job's row: sent, done, done twice, lost, dead, replayed, deferred, caught, 429, kills, seconds."""
    (row,) = [line.split()[1:] for line in output.splitlines() if line.split()[:1] == [job]]
    return row


def causes(output: str) -> list[str]:
    """The exceptions in the table of dead letters."""
    rows = [line.split() for line in output.splitlines()]
    return [row[2] for row in rows if len(row) > 3 and row[1] == "renew"]


def processes_of(temporary: Path) -> Iterator[str]:
    mark = f"TMPDIR={temporary}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                yield (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # gone meanwhile, or somebody else's


@pytest.mark.integration
@pytest.mark.chaos
def test_nothing_is_lost_and_nothing_done_twice_under_sigkill(tmp_path: Path) -> None:
    """If this failed, the first command of the README would show that the library does not hold."""
    tour = start(tmp_path, "--quiet")
    output = finish(tour)

    assert tour.returncode == 0, output
    for job, least in (("index", MODULES), ("charge", ORDERS)):
        sent, done, twice, lost, dead, replayed, _, caught, refused, kills, _ = figures(output, job)
        assert int(done) >= least
        assert int(sent) >= 2 * int(done) - 1
        assert (twice, lost, dead, refused) == ("0", "0", "0", "0")
        assert int(replayed) >= least
        assert int(caught) <= int(kills)
        assert int(kills) > 0, "the job ended before anybody was killed"
    assert NAMED.search(" ".join(output.split())), output
    sent, done, twice, lost, dead, *_ = figures(output, "renew")
    assert (sent, done, twice, lost, dead) == (str(RENEWALS), str(RENEWALS), "0", "0", str(RENEWALS))
    assert sorted(causes(output)) == ["CardDeclined", "ServiceDown"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
@pytest.mark.chaos
def test_without_the_library_the_same_work_is_done_twice(tmp_path: Path) -> None:
    """If this failed, the comparison that the tour offers would show no difference."""
    tour = start(tmp_path, "--quiet", "--without-patterns")
    output = finish(tour)

    assert tour.returncode == 0, output
    for job, keys in (("index", MODULES), ("charge", ORDERS)):
        _, _, twice, lost, *_ = figures(output, job)
        assert int(twice) > keys / 2
        assert (job, lost) in {("index", "1"), ("charge", lost)}, (
            "a failed part must cost Celery's chord its body"
        )
    _, _, _, lost, *_ = figures(output, "renew")
    assert int(lost) > RENEWALS / 2


@pytest.mark.integration
@pytest.mark.chaos
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_tour_leaves_nothing_behind(tmp_path: Path, end: signal.Signals) -> None:
    """If this failed, Ctrl-C would leave a server, a worker or a folder on the reader's machine."""
    tour = start(tmp_path, "--quiet", "--without-patterns")
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*/index.sqlite")) and time.monotonic() < deadline:
        time.sleep(0.05)
    tour.send_signal(end)
    output = finish(tour)

    assert tour.returncode == 130, output
    assert list(processes_of(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def counted(
    folder: Path,
    *,
    effects: list[tuple[str, int]],
    told: list[str | None],
    caught: int = 0,
    refused: int = 0,
    kills: int = 0,
    bad: str | None = "is bad",
) -> Outcome:
    """What the tour counts when `a` is sent twice and `b` once, both with the effect 1, and `c` must fail."""
    job = Job(
        task=SimpleNamespace(name="work"),
        claim="",
        calls={"a": (), "b": (), "c": ()},
        expected={"a": 1, "b": 1},
        effects=lambda: effects,
        caught=lambda: caught,
        refused=lambda: refused,
        failing=frozenset({"c"}),
    )
    results = {
        str(number): {"status": SUCCESS if answer else FAILURE, "result": answer}
        for number, answer in enumerate(told)
    }
    results["3"] = {"status": FAILURE if bad else SUCCESS, "result": bad}
    keys = {"0": "a", "1": "a", "2": "b", "3": "c"}
    return count(job, keys, results, folder, kills=kills, seconds=1.0)


@pytest.mark.parametrize(
    ("bad", "figures"),
    [
        ({"effects": [("a", 1), ("a", 1), ("b", 1)]}, {"twice": 1}),
        ({"effects": [("a", 1)]}, {"lost": 1}),
        ({"effects": [("a", 1), ("b", 2)]}, {"wrong": 1}),
        ({"told": ["x", None, "y"]}, {"lost": 1, "differing": 0}),
        ({"told": ["x", "x"]}, {"lost": 1}),
        ({"told": ["x", "z", "y"]}, {"differing": 1}),
        ({"caught": 3, "kills": 2}, {"twice": 1}),
        ({"refused": 1}, {"refused": 1}),
        ({"bad": None}, {"lost": 1}),
        ({"effects": [("a", 1), ("b", 1), ("c", 1)]}, {"wrong": 1}),
    ],
)
def test_the_tour_notices_what_goes_wrong(tmp_path: Path, bad: dict, figures: dict) -> None:
    """If this failed, the tour would report success whatever the library did."""
    fine = {"effects": [("a", 1), ("b", 1)], "told": ["x", "x", "y"], "caught": 1, "kills": 1}
    assert counted(tmp_path, **fine).good

    outcome = counted(tmp_path, **fine | bad)

    assert not outcome.good
    assert {figure: getattr(outcome, figure) for figure in figures} == figures
