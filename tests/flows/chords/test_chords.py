"""What is said when a partial chord is made, and what it is made of."""

import json
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signature
from celery.backends.redis import RedisBackend, SentinelBackend

from celery_patterns import PolicyError, partial_chord
from celery_patterns.errors import StoreVersionError
from celery_patterns.flows.chords.backend import PartialRedisBackend, PartialSentinelBackend
from celery_patterns.flows.chords.mark import OPTION, Mark, mark_of, unmarked
from celery_patterns.flows.chords.partial import PartialChord
from celery_patterns.flows.chords.signatures import ends, in_order, result_id, starters
from celery_patterns.flows.chords.threshold import Threshold


def app_with(backend: str) -> Celery:
    return Celery("shop", backend=backend, set_as_current=False)


def task_of(app: Celery) -> Any:
    @app.task(name="task", shared=False)
    def task(*values: Any) -> None: ...

    return task


app = app_with("partial+redis://localhost:1/0")


@app.task(name="part", shared=False)
def part(*values: Any) -> None: ...


@app.task(name="body", shared=False)
def body(*values: Any) -> None: ...


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_success": 3}, r"min_success=3, but the header has 2 parts"),
        ({"min_success": -1}, r"min_success=-1"),
        ({"min_share": 2}, r"min_share=2"),
        ({"min_success": 1, "min_share": 0.5}, r"give one of them"),
        ({"on_failure": "stop"}, r"on_failure='stop': choose one of 'wait', 'fail_fast'"),
        ({"deadline": 0}, r"deadline=0: give at least"),
        ({"deadline": "soon"}, r"deadline='soon': give seconds, or a timedelta"),
        ({"on_late": "again"}, r"on_late='again': choose one of 'record', 'rerun'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    """A mistake would show when the body does not run, if ever."""
    with pytest.raises(PolicyError, match=message):
        partial_chord([part.s(), part.s()], body.s(), **options)


@pytest.mark.parametrize(
    ("header", "end", "message"),
    [
        ([part.s(), part], body.s(), r"header, member 1: <@task: part .* is no signature"),
        ([part.s(), 7], body.s(), r"header, member 1: 7 is no signature"),
        (None, body.s(), r"member 0: None is no signature"),
        ("pages", body.s(), r"member 0: 'p' is no signature"),
        ({"page": part.s()}, body.s(), r"header: \{'page': part\(\)\} is no signature"),
        ([part.s()], body, r"body: <@task: body .* is no signature"),
    ],
)
def test_what_is_no_signature_is_refused(header: Any, end: Any, message: str) -> None:
    """A task without its `.s()` would end in an error about something inside Celery."""
    with pytest.raises(PolicyError, match=message):
        partial_chord(header, end)


@pytest.mark.parametrize("nothing", [None, group()])
def test_a_body_is_needed(nothing: Any) -> None:
    """The outcomes would go nowhere."""
    with pytest.raises(PolicyError, match="needs a body"):
        partial_chord([part.s()], nothing)


@pytest.mark.parametrize("url", ["redis://localhost:1/0", "rpc://", "disabled://", "cache+memory://"])
def test_another_backend_is_refused_at_once(url: str) -> None:
    """A body would be given plain values, or a chord hang, on a backend that knows nothing of outcomes."""
    other = app_with(url)
    task = task_of(other)
    assert other.conf.result_backend  # the app is configured
    with pytest.raises(PolicyError, match=r'that of \'shop\' is .*put "partial\+" before it'):
        partial_chord([task.s()], task.s())


def test_another_backend_is_refused_when_it_is_published() -> None:
    """A chord that was made before the backend was set would not be checked."""
    other = app_with("partial+redis://localhost:1/0")
    task = task_of(other)
    made = partial_chord([task.s()], task.s())
    other._local.backend = app_with("redis://localhost:1/0").backend
    for canvas in (made, made.clone(), made | task.s()):
        with pytest.raises(PolicyError, match=r"partial\+"):
            canvas.apply_async()


def test_two_parts_with_one_id_are_refused() -> None:
    """One report would be taken for both parts."""
    with pytest.raises(PolicyError, match=r"two parts .* have the task id 'twin'"):
        partial_chord([part.s().set(task_id="twin"), part.s().set(task_id="twin")], body.s()).delay()


@pytest.mark.parametrize(
    ("url", "kind", "behind"),
    [
        ("partial+redis://:secret@host:1/2", PartialRedisBackend, "redis://:**@host:1/2"),
        ("partial+rediss://host:1/2?ssl_cert_reqs=required", PartialRedisBackend, "rediss://host:1/2"),
        ("partial+redis+socket:///run/redis.sock", PartialRedisBackend, "socket:///run/redis.sock"),
        (
            "partial+sentinel://a:1;sentinel://b:2",
            PartialSentinelBackend,
            "sentinel://a:1",
        ),
        ("partial+redis", PartialRedisBackend, "redis://"),
    ],
)
def test_the_scheme_chooses_the_backend(url: str, kind: type, behind: str) -> None:
    """A URL would open another backend than it says, or show its password."""
    backend: Any = app_with(url).backend
    assert type(backend) is kind
    assert isinstance(backend, SentinelBackend if kind is PartialSentinelBackend else RedisBackend)
    assert backend.as_uri().rstrip("/").startswith(behind.rstrip("/"))
    if "host" in url:
        assert (backend.connparams["host"], backend.connparams["db"]) == ("host", 2)
    if kind is PartialSentinelBackend:
        assert [one["host"] for one in backend.connparams["hosts"]] == ["a", "b"]


# --- the mark


def marked(**options: Any) -> Any:
    return partial_chord([part.s(), part.s()], body.s(), **options)


def marks_in(canvas: Any) -> list[Mark | None]:
    """The marks of all chords in a canvas, read as a worker does: from JSON."""
    found, todo = [], [json.loads(json.dumps(canvas))]
    while todo:
        one = todo.pop(0)
        if one.get("subtask_type") in {"chord", "partial_chord"}:
            found.append(mark_of(one["kwargs"]["body"]))
            header = one["kwargs"]["header"]
            todo.append(one["kwargs"]["body"])
            todo += header["kwargs"]["tasks"] if isinstance(header, dict) else header
        todo += one["kwargs"].get("tasks") or []
    return found


MARK = Mark(threshold=Threshold(min_share=0.5), fail_fast=True, deadline=90.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda made: made,
        lambda made: made.clone(),
        lambda made: made | body.s(),
        lambda made: chain(part.s(), made, body.s()),
        lambda made: group(made, part.s()),
        lambda made: signature(json.loads(json.dumps(made))) | body.s(),
        lambda made: made.set(queue="other", headers={"x": 1}),
        lambda made: made.on_error(body.s()),
    ],
)
@pytest.mark.parametrize("end", [body.s(), body.s() | body.s(), group(body.s(), body.s())])
@pytest.mark.filterwarnings("ignore:task_allow_error_cb_on_chord_header")
def test_the_mark_stays_whatever_is_made_of_the_chord(make: Any, end: Any) -> None:
    """Chained on or nested, a partial chord would turn into a plain one."""
    made = partial_chord([part.s(), part.s()], end, min_share=0.5, on_failure="fail_fast", deadline=90)
    assert MARK in marks_in(make(made))


def test_every_chord_has_its_own_mark() -> None:
    """A chord in a chord would ask for what the other one asks for."""
    inner = partial_chord([part.s()], body.s(), min_success=0)
    both = partial_chord([inner, part.s()], partial_chord([part.s()], body.s(), deadline=1), min_share=0.5)
    assert marks_in(both) == [
        Mark(threshold=Threshold(min_share=0.5)),
        Mark(deadline=1),
        Mark(threshold=Threshold(min_success=0)),
    ]
    assert marks_in(chord([inner], body.s())) == [None, Mark(threshold=Threshold(min_success=0))]


def test_the_caller_s_signatures_are_left_alone() -> None:
    """A body that is used for two chords would carry the mark of the first into the second."""
    mine = body.s()
    made = partial_chord([part.s()], mine, min_success=0)
    assert OPTION not in mine.options
    published = unmarked(made.body, app)
    assert OPTION not in published.options
    assert mark_of(made.body) is not None
    chained, inner = body.s() | body.s(), chord([part.s()], body.s() | body.s())
    partial_chord([inner], chained, min_success=0)
    assert OPTION not in str(chained)
    assert OPTION not in str(inner)


def test_a_newer_mark_is_refused() -> None:
    """A worker with old code would treat a chord in a way that nobody asked for."""
    made = marked()
    made.body.options[OPTION]["v"] = 2
    with pytest.raises(StoreVersionError, match="newer version"):
        mark_of(made.body)


def test_a_chord_without_parts_bears_no_mark() -> None:
    """Celery publishes the body of an empty chord itself, and would publish the mark with it."""
    assert marks_in(partial_chord([], body.s())) == [None]


def test_a_copy_is_partial_too() -> None:
    """A copy would be published without a look at the backend."""
    assert isinstance(marked().clone(), PartialChord)


# --- the shape of signatures


def test_headers_are_read_from_left_to_right() -> None:
    """Outcomes would stand in another order than the parts were written in."""
    one, two, three, four = (part.s(number) for number in range(4))
    nested = [one, group(two, group(three)), chain(part.s(), group(four, group(one, two)))]
    flat = in_order(nested)
    assert flat[:3] == [one, two, three]
    assert flat[3].tasks[1].tasks == [four, one, two]
    inside = in_order([chord([one, group(two, group(three))], group(four, group(one)))])[0]
    assert inside.tasks == [one, two, three]
    assert inside.body.tasks == [four, one]


def test_what_starts_and_what_ends() -> None:
    """A mark would be put where it gets lost, or a report be made of a task that is not the last."""
    canvas = chain(group(part.s(1), chain(part.s(2), part.s(3))), body.s(4), group(part.s(5), part.s(6)))
    assert [one["args"] for one in starters(canvas)] == [(1,), (2,)]
    assert [one["args"] for one in ends(canvas)] == [(5,), (6,)]
    around = chord(
        [part.s(1), part.s(2)], chain(body.s(3), chord([part.s(4)], body.s(5).set(task_id="last")))
    )
    assert [one["args"] for one in starters(around)] == [(1,), (2,)]
    assert [one["args"] for one in ends(around)] == [(5,)]
    assert result_id(around) == "last"
    assert result_id(group(part.s(), task_id="all")) == "all"
    assert next(starters(chord([], body.s(1))))["args"] == (1,)
