"""Partial chords in and around everything that Celery's canvas has, on both brokers."""

from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord, group, signature
from celery.exceptions import ChordError

from celery_patterns import ChordFailed, Outcomes, partial_chord
from tests.flows.chords.conftest import EXPIRED, PATIENCE, Ground


def sent(header: Any, body: Any, **options: Any) -> Any:
    return partial_chord(header, body, **options).apply_async()


def test_outcomes_stand_in_header_order_whatever_the_nesting(ground: Ground, tasks: ModuleType) -> None:
    """Values would be taken for those of other parts: Celery numbers nested groups backwards."""
    give, add = tasks.give, tasks.join
    cases = {
        "groups": (
            group(give.s(0), group(give.s(1), group(give.s(2), give.s(3))), give.s(4)),
            ["ok 0", "ok 1", "ok 2", "ok 3", "ok 4"],
        ),
        "a chain": ([give.s(0), chain(give.s(1), add.s(2)), give.s(3)], ["ok 0", "ok [1, 2]", "ok 3"]),
        "a chain that ends in a group": (
            [give.s(0), chain(give.s(1), group(add.s(2), group(add.s(3), add.s(4)))), give.s(5)],
            ["ok 0", "ok [1, 2]", "ok [1, 3]", "ok [1, 4]", "ok 5"],
        ),
        "a plain chord": (
            [give.s(0), chord([give.s(1), give.s(2)], add.s(3)), give.s(4)],
            ["ok 0", "ok [[1, 2], 3]", "ok 4"],
        ),
        "a chord whose body is a group": (
            [give.s(0), chord([give.s(1)], group(add.s(2), group(add.s(3)))), give.s(4)],
            ["ok 0", "ok [[1], 2]", "ok [[1], 3]", "ok 4"],
        ),
        "a chord whose body is a chain": (
            [give.s(0), chord([give.s(1)], chain(add.s(2), add.s(3))), give.s(4)],
            ["ok 0", "ok [[[1], 2], 3]", "ok 4"],
        ),
        "a partial chord": (
            [give.s(0), partial_chord([give.s(1), give.s(2)], tasks.gather.s("in")), give.s(3)],
            ["ok 0", "ok ['ok 1', 'ok 2']", "ok 3"],
        ),
        "a single signature": (chain(give.s(1), add.s(2)), ["ok [1, 2]"]),
        "one part": ([give.s(1)], ["ok 1"]),
        "a generator": ((give.s(n) for n in range(3)), ["ok 0", "ok 1", "ok 2"]),
        "no part": ([], []),
        "an empty group": ([give.s(0), group()], ["ok 0"]),
    }
    labels = {name: ground.label(name) for name in cases}
    for name, (header, _) in cases.items():
        sent(header, tasks.gather.s(labels[name]))
    told = {name: ground.told(label) for name, label in labels.items()}
    assert told == {name: expected for name, (_, expected) in cases.items()}


def test_a_chain_in_the_header_ends_where_it_stops(ground: Ground, tasks: ModuleType) -> None:
    """A chain that stops before its last task would hang the chord."""
    give, add, unknown = tasks.give, tasks.join, signature("nobody.knows", app=tasks.app)
    revoked = ground.label("revoked")
    tasks.app.control.revoke(revoked, reply=True, timeout=5, limit=1)
    cases = {
        "first fails": (chain(tasks.fail.s(), add.s(), add.s()), ["failed Business"]),
        "second fails": (chain(give.s(), tasks.fail.si(), add.s()), ["failed Business"]),
        "first revoked": (
            chain(give.s().set(task_id=revoked), add.s(), add.s()),
            ["revoked TaskRevokedError"],
        ),
        "first expired": (
            chain(give.s().set(**EXPIRED), add.s(), add.s()),
            ["revoked TaskRevokedError"],
        ),
        "first ignored": (chain(tasks.ignore.s(), add.s(), add.s()), ["lost Ignore"]),
        "first rejected": (chain(tasks.reject.s(), add.s()), ["failed Reject"]),
        "first killed": (chain(tasks.killed.s(), add.s()), ["failed WorkerLostError"]),
        "first unknown": (chain(unknown, add.s()), ["failed NotRegistered"]),
        "first replaced": (chain(tasks.replaced.s(1), add.s(2)), ["ok [1, 2]"]),
        "first retried": (chain(tasks.second_try.s(1), add.s(2)), ["ok [1, 2]"]),
        "ends in a group": (chain(tasks.fail.s(), group(add.s(1), add.s(2))), ["failed Business"] * 2),
        "ends in a chord": (
            chain(tasks.fail.s(), chord([add.s(1), add.s(2)], add.s())),
            ["failed Business"],
        ),
    }
    labels = {name: ground.label(name) for name in cases}
    for name, (part, _) in cases.items():
        sent([give.s("a"), part, give.s("z")], tasks.gather.s(labels[name]), min_success=0)
    told = {name: ground.told(label) for name, label in labels.items()}
    assert told == {name: ["ok a", *expected, "ok z"] for name, (_, expected) in cases.items()}


def test_a_failed_chord_in_the_header_is_a_failed_part(ground: Ground, tasks: ModuleType) -> None:
    """Celery never tells the enclosing chord, which would wait for ever."""
    give, broken = tasks.give, [tasks.give.s(1), tasks.fail.s()]
    cases = {
        "plain": (chord(broken, tasks.join.s()), ["failed ChordError"]),
        "partial": (partial_chord(broken, tasks.gather.s("inner")), ["failed ChordFailed"]),
        "partial, good enough": (
            partial_chord(broken, tasks.gather.s("inner"), min_success=1),
            ["ok ['ok 1', 'failed Business']"],
        ),
        "partial, body fails": (partial_chord([give.s(1)], tasks.fail.si()), ["failed Business"]),
        "partial, group body": (
            partial_chord(broken, group(tasks.join.s(1), tasks.join.s(2))),
            ["failed ChordFailed", "failed ChordFailed"],
        ),
        "partial, chain body": (
            partial_chord(broken, chain(tasks.join.s(1), tasks.join.s(2))),
            ["failed ChordFailed"],
        ),
        "plain, group body": (
            chord(broken, group(tasks.join.s(1), tasks.join.s(2))),
            ["failed ChordError", "failed ChordError"],
        ),
        "plain, chain body": (
            chord(broken, chain(tasks.join.s(1), tasks.join.s(2))),
            ["failed ChordError"],
        ),
        "two levels": (
            partial_chord([partial_chord(broken, tasks.gather.s("inner"))], tasks.gather.s("middle")),
            ["failed ChordFailed"],
        ),
        "chained": (
            chain(give.s(0), partial_chord([tasks.fail.si()], tasks.gather.s("inner")), tasks.join.s()),
            ["failed ChordFailed"],
        ),
    }
    labels = {name: ground.label(name) for name in cases}
    for name, (part, _) in cases.items():
        sent([give.s("a"), part, give.s("z")], tasks.gather.s(labels[name]), min_success=0)
    told = {name: ground.told(label) for name, label in labels.items()}
    assert told == {name: ["ok a", *expected, "ok z"] for name, (_, expected) in cases.items()}


def test_plain_chords_in_the_header_hang_nothing(ground: Ground, tasks: ModuleType) -> None:
    """What hangs Celery's own chord would hang the partial chord around it."""
    give, add, unknown = tasks.give, tasks.join, signature("nobody.knows", app=tasks.app)
    broken = chord([give.s(1), tasks.fail.s()], add.s())
    plain = chord([give.si(1), give.si(2)], add.s(3))
    cases = {
        "two levels": (chord([broken, give.s(3)], add.s()), "failed ChordError"),
        "in a body": (
            chord([give.s(1)], chain(add.s(), chord([tasks.fail.si()], add.s()))),
            "failed ChordError",
        ),
        "ignored": (chord([tasks.ignore.s(), give.s(3)], add.s()), "failed ChordError"),
        "unknown": (chord([unknown, give.s(3)], add.s()), "failed ChordError"),
        "a group in a chain": (
            chain(give.s(2), group(add.s(), tasks.ignore.si()), add.s()),
            "failed ChordError",
        ),
        "all is well": (
            chain(give.s(0), plain, group(add.s(4), add.s(5)), add.s(6)),
            "ok [[[[[1, 2], 3], 4], [[[1, 2], 3], 5]], 6]",
        ),
    }
    labels = {name: ground.label(name) for name in cases}
    for name, (part, _) in cases.items():
        sent([give.s("a"), part], tasks.gather.s(labels[name]), min_success=1)
    told = {name: ground.told(label) for name, label in labels.items()}
    assert told == {name: ["ok a", expected] for name, (_, expected) in cases.items()}
    assert "cp_chord" not in str(plain), "the caller's own chord would be changed"


def test_every_kind_of_body_is_given_the_outcomes(ground: Ground, tasks: ModuleType) -> None:
    """A chord would be partial with a single task as its body only."""
    header, gather, add = [tasks.give.s(1), tasks.fail.s()], tasks.gather, tasks.join
    expected = ["ok 1", "failed Business"]
    a, b = ground.label(), ground.label()
    results = {
        "group": sent(header, group(gather.s(a), gather.s(b)), min_success=0),
        "chain": sent(header, chain(gather.s("x"), add.s(2)), min_success=0),
        "chain with a group": sent(header, chain(gather.s("x"), group(add.s(1), add.s(2))), min_success=0),
        "chained on": (partial_chord(header, gather.s("x"), min_success=0) | add.s(2)).apply_async(),
        "group, chained on": (
            partial_chord(header, group(gather.s("x"), gather.s("x")), min_success=0) | add.s(2)
        ).apply_async(),
        "in a chain": chain(
            tasks.give.s(1),
            partial_chord([add.s(2), tasks.fail.si()], gather.s("x"), min_success=0),
            add.s(3),
        ).apply_async(),
        "in a group": group(
            partial_chord(header, gather.s("x"), min_success=0), tasks.give.s(5)
        ).apply_async(),
        "partial chord": sent(
            header,
            partial_chord([gather.s("x"), tasks.fail.si()], gather.s("y"), min_success=0),
            min_success=0,
        ),
    }
    got = {name: result.get(timeout=PATIENCE) for name, result in results.items()}
    assert got == {
        "group": [expected, expected],
        "chain": [expected, 2],
        "chain with a group": [[expected, 1], [expected, 2]],
        "chained on": [expected, 2],
        "group, chained on": [[expected, expected], 2],
        "in a chain": [["ok [1, 2]", "failed Business"], 3],
        "in a group": [expected, 5],
        "partial chord": [f"ok {expected}", "failed Business"],
    }
    assert ground.told(a) == ground.told(b) == expected


def test_what_comes_after_a_failed_chord_fails_with_it(ground: Ground, tasks: ModuleType) -> None:
    """Whoever waits for the end of a chain or of a group body would wait for ever."""
    header, add = [tasks.give.s(1), tasks.fail.s()], tasks.join
    results = {
        "single": sent(header, add.s()),
        "chain": sent(header, chain(add.s(1), add.s(2), add.s(3))),
        "chain with a group": sent(header, chain(add.s(1), group(add.s(2), add.s(3)))),
        "chord": sent(header, chord([add.s(1), add.s(2)], add.s(3))),
        "chained on": (partial_chord(header, add.s()) | add.s(2) | add.s(3)).apply_async(),
        "in a chain": chain(
            tasks.give.s(1), partial_chord([tasks.fail.si()], add.s()), add.s(3)
        ).apply_async(),
        "group": sent(header, group(add.s(1), add.s(2))),
    }
    for result in results.values():
        with pytest.raises(ChordFailed, match="must be ok"):
            result.get(timeout=PATIENCE)
    with pytest.raises(ChordError) as caught:
        results["single"].get()
    assert Outcomes(caught.value.results).counts == {"ok": 1, "failed": 1, "revoked": 0, "lost": 0}


def test_a_plain_chord_around_a_failed_partial_chord_fails(ground: Ground, tasks: ModuleType) -> None:
    """Celery's own chord would wait for ever for a partial chord in its header that failed."""
    inner = partial_chord([tasks.fail.s()], tasks.gather.s("inner"))
    result = chord([tasks.give.s(1), inner], tasks.join.s()).apply_async()
    with pytest.raises(ChordError, match=r"Dependency .* raised ChordFailed"):
        tasks.app.AsyncResult(result.id).get(timeout=PATIENCE)


def test_errbacks_of_every_kind_of_body_are_called(ground: Ground, tasks: ModuleType, wait_for: Any) -> None:
    """Nobody would be told that a body did not run."""
    header, add, on_error = [tasks.give.s(1), tasks.fail.s()], tasks.join, tasks.on_error.s()
    by_id = tasks.on_error_by_id.s()
    bodies = {
        "single": (add.s().on_error(on_error), ["errback"]),
        "by id": (add.s().on_error(by_id), ["errback by id"]),
        "both": (add.s().on_error(on_error).on_error(by_id), ["errback", "errback by id"]),
        "chain": (chain(add.s(1), add.s(2)).on_error(on_error), ["errback"]),
        "first of a chain": (chain(add.s(1).on_error(on_error), add.s(2)), ["errback"]),
        "last of a chain": (chain(add.s(1), add.s(2).on_error(on_error)), []),
        "member of a group": (group(add.s(1).on_error(on_error), add.s(2)), ["errback"]),
    }
    called, told = {}, []
    for name, (body, expected) in bodies.items():
        since = len(ground.stage.history.entries())
        sent(header, body)
        wait_for(
            lambda since=since, expected=expected: len(errbacks(ground, since)) >= len(expected), message=name
        )
        ground.flush()
        called[name] = sorted(entry["event"] for entry in errbacks(ground, since))
        told += [entry["told"] for entry in errbacks(ground, since)]
    assert called == {name: expected for name, (_, expected) in bodies.items()}
    assert told == [["ok 1", "failed Business"]] * len(told)


def errbacks(ground: Ground, since: int) -> list[dict[str, Any]]:
    """The errbacks that were called since so many entries of the history."""
    return [entry for entry in ground.stage.history.entries()[since:] if "errback" in entry["event"]]


def test_an_errback_that_fails_stops_nothing(ground: Ground, tasks: ModuleType) -> None:
    """A bug in an errback would leave the rest of a body pending."""
    bad = tasks.on_error.s(1, 2, 3)
    result = sent([tasks.fail.s()], chain(tasks.join.s().on_error(bad), tasks.join.s()))
    with pytest.raises(ChordFailed):
        result.get(timeout=PATIENCE)
