"""Thresholds, fail_fast, deadlines, duplicates, retries, and what is left behind: on real workers."""

import json
import pickle
import re
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord, group
from celery.result import result_from_tuple

from celery_patterns import (
    ChordFailed,
    Outcomes,
    Progress,
    inspect_workflow,
    partial_chord,
    workflow_progress,
)
from celery_patterns.errors import PolicyError
from celery_patterns.flows.chords.mark import Mark
from celery_patterns.flows.chords.partial import PartialChord
from celery_patterns.flows.chords.record import ChordRecord
from tests.flows.chords.conftest import CHORDS, PATIENCE, Ground
from tests.ground.stage import Stage

# --- thresholds


@pytest.mark.parametrize(
    ("options", "good", "runs"),
    [
        ({}, 4, True),
        ({}, 3, False),
        ({"min_success": 3}, 3, True),
        ({"min_success": 3}, 2, False),
        ({"min_share": 0.5}, 2, True),
        ({"min_share": 0.5}, 1, False),
        ({"min_success": 0}, 0, True),
        ({"min_share": 0.0}, 0, True),
    ],
)
def test_the_body_runs_exactly_from_the_threshold_on(
    ground: Ground, wait_for: Any, options: dict[str, Any], good: int, runs: bool
) -> None:
    """A report would be made of too little, or withheld although there is enough."""
    tasks = ground.tasks
    label, expected = ground.label(), ["ok 1"] * good + ["failed Business"] * (4 - good)
    header = [tasks.give.s(1)] * good + [tasks.fail.s()] * (4 - good)
    body = tasks.gather.s(label).on_error(tasks.on_error.s()).on_error(tasks.on_error_by_id.s())
    result = partial_chord(header, body, **options).apply_async()
    if runs:
        assert result.get(timeout=PATIENCE) == expected == ground.told(label)
        return
    with pytest.raises(ChordFailed, match="of 4 parts must be ok") as caught:
        result.get(timeout=PATIENCE)
    assert [outcome.state for outcome in Outcomes(caught.value.results)] == [
        one.split()[0] for one in expected
    ]
    for event in ("errback", "errback by id"):
        told = wait_for(lambda event=event: ground.stage.history.last(event, id=result.id))
        assert told["told"] == expected
    assert ground.runs(label) == 0


# --- fail_fast


def test_fail_fast_revokes_what_has_not_started_and_waits_for_what_runs(
    ground: Ground, tasks: ModuleType, wait_for: Any
) -> None:
    """A thousand parts would run for nothing; or an errback would clean up under a part that is at work."""
    gate, label = ground.gate(), ground.label()
    running = tasks.wait.s(str(gate), "done")
    later = [tasks.give.s(n).set(countdown=3600) for n in range(20)]
    steps = chain(tasks.give.s(7).set(countdown=3600), tasks.join.s())
    retried = tasks.retry_later.s(str(gate))
    header = [running, tasks.fail.s().set(countdown=1), retried, *later, steps]
    body = tasks.gather.s(label).on_error(tasks.on_error.s())
    result = partial_chord(header, body, on_failure="fail_fast").apply_async()
    wait_for(lambda: ground.stage.history.count("waiting", id=result.parent.results[2].id))
    record = ChordRecord(tasks.app.backend, result.id)
    wait_for(lambda: sum(slot.state == "revoked" for slot in record.slots()) == 21, message=record.slots)
    assert result.state == "PENDING"
    gate.touch()
    with pytest.raises(ChordFailed):
        result.get(timeout=PATIENCE)
    told = wait_for(lambda: ground.stage.history.last("errback", id=result.id))["told"]
    revoked = "revoked TaskRevokedError"
    assert told == ["ok done", "failed Business", revoked, *[revoked] * 20, revoked]
    assert ground.runs(label) == 0


def test_fail_fast_keeps_queued_tasks_from_running(stage: Stage, worker: Any, wait_for: Any) -> None:
    """Parts that are still in a queue would be run although nobody wants their results."""
    stage.conf["result_backend"] = f"partial+{stage.conf['result_backend']}"
    tasks = stage.load(CHORDS)
    header = [tasks.fail.s(), *(tasks.wait.s("/nowhere", n) for n in range(50))]
    result = partial_chord(header, tasks.gather.s(), on_failure="fail_fast").apply_async()
    running = worker(CHORDS, concurrency=1)
    with pytest.raises(ChordFailed) as caught:
        result.get(timeout=PATIENCE)
    counts = Outcomes(caught.value.results).counts
    assert counts == {"ok": 0, "failed": 1, "revoked": 50, "lost": 0}
    tasks.give.delay(1).get(timeout=PATIENCE)
    assert stage.history.count("waiting") == 0
    assert running.log_text().count("revoked") >= 50


def test_a_part_that_was_revoked_does_not_run(ground: Ground, tasks: ModuleType, wait_for: Any) -> None:
    """A worker that has not heard of the revocation yet would run it under the errback that cleans up."""
    gate, label = ground.gate(), ground.label()
    blockers = [tasks.wait.delay(str(gate)) for _ in range(4)]
    wait_for(lambda: all(ground.stage.history.count("waiting", id=one.id) for one in blockers))
    parts = [tasks.wait.s("/nowhere", n) for n in range(3)]
    steps = chain(tasks.wait.s("/nowhere", 3), group(tasks.join.s(1), tasks.join.s(2)))
    inner = chord([tasks.wait.s("/nowhere", 4), tasks.give.s(5)], tasks.join.s())
    body = tasks.gather.s(label).on_error(tasks.on_error.s())
    header = [tasks.give.s().set(queue="nobody"), *parts, steps, inner]
    result = partial_chord(header, body, on_failure="fail_fast").apply_async()
    record, why = ChordRecord(tasks.app.backend, result.id), b'{"error": "Business", "message": "no"}'
    record.report(result.parent.results[0].id, "failed", why)
    record.revoke(why)  # and the workers have not heard of it
    gate.touch()
    with pytest.raises(ChordFailed):
        result.get(timeout=PATIENCE)
    ground.flush()
    assert [slot.state for slot in record.slots()] == ["failed", *["revoked"] * 6]
    assert [one.state for one in result.parent.results[1:4]] == ["REVOKED"] * 3
    assert not any(ground.stage.history.count("waiting", id=one.id) for one in result.parent.results)


def test_fail_fast_goes_on_while_the_threshold_is_within_reach(ground: Ground, tasks: ModuleType) -> None:
    """A chord that can still succeed would be given up."""
    label = ground.label()
    header = [tasks.fail.s(), tasks.give.s(1).set(countdown=1), tasks.give.s(2)]
    partial_chord(header, tasks.gather.s(label), on_failure="fail_fast", min_success=2).apply_async()
    assert ground.told(label) == ["failed Business", "ok 1", "ok 2"]


# --- deadlines


def test_a_late_part_changes_nothing(ground: Ground, tasks: ModuleType, wait_for: Any) -> None:
    """A part that ends after the deadline would run the body again, or bring the chord's keys back."""
    gate, label = ground.gate(), ground.label()
    header = [tasks.give.s(1), tasks.wait.s(str(gate), "late"), tasks.wait_late.s(str(gate), "late")]
    result = partial_chord(header, tasks.gather.s(label), min_success=1, deadline=1).apply_async()
    assert ground.told(label) == ["ok 1", "lost -", "lost -"]
    assert result.get(timeout=PATIENCE)
    before = ground.keys(result.id)
    gate.touch()
    late = result.parent.results[1:]
    assert [one.get(timeout=PATIENCE) for one in late] == ["late", "late"]
    for one in late:
        event = wait_for(lambda one=one: ground.stage.history.last("event", what="late", id=one.id))
        assert event["state"] == "ok"
    ground.flush()
    assert ground.runs(label) == 1
    assert ground.keys(result.id) == before


def test_the_body_does_not_wait_for_the_deadline(ground: Ground, tasks: ModuleType) -> None:
    """A chord would take as long as its deadline, or end once more when that comes."""
    label = ground.label()
    partial_chord([tasks.give.s(1)], tasks.gather.s(label), deadline=2).apply_async()
    assert ground.told(label) == ["ok 1"]
    tasks.give.apply_async((1,), countdown=2).get(timeout=PATIENCE)
    ground.flush()
    assert ground.runs(label) == 1


def test_a_deadline_passes_for_a_header_that_was_never_published(
    ground: Ground, tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer that dies while it publishes ten thousand parts would leave a chord that waits for ever."""
    label, send = ground.label(), tasks.app.amqp.send_task_message
    sent = []

    def dies(producer: Any, name: str, message: Any, **options: Any) -> Any:
        if name == tasks.give.name:
            if sent:
                raise KeyboardInterrupt
            sent.append(name)
        return send(producer, name, message, **options)

    monkeypatch.setitem(tasks.app.amqp.__dict__, "send_task_message", dies)
    with pytest.raises(KeyboardInterrupt):
        partial_chord([tasks.give.s(n) for n in range(3)], tasks.gather.s(label), min_success=1, deadline=2)()
    monkeypatch.undo()
    assert ground.told(label) == ["ok 0", "lost -", "lost -"]


def test_a_record_that_is_lost_fails_the_chord(ground: Ground, tasks: ModuleType, wait_for: Any) -> None:
    """A backend that was emptied would leave a chord hanging, and nobody would be told."""
    label = ground.label()
    body = tasks.gather.s(label).on_error(tasks.on_error.s())
    lost = partial_chord([tasks.give.s(1).set(queue="nobody")], body, deadline=3).apply_async()
    ran = partial_chord([tasks.give.s(1)], tasks.gather.s(label), deadline=3).apply_async()
    assert ran.get(timeout=PATIENCE) == ["ok 1"]
    for result in (lost, ran):
        tasks.app.backend.client.delete(*ChordRecord(tasks.app.backend, result.id).keys)
    with pytest.raises(ChordFailed, match="the record of the chord is gone"):
        lost.get(timeout=PATIENCE)
    assert wait_for(lambda: ground.stage.history.last("errback", id=lost.id))["told"] == []
    ground.flush()
    assert ground.stage.history.count("errback", id=ran.id) == 0
    assert tasks.app.AsyncResult(ran.id).state == "SUCCESS"
    assert f"The record of chord {lost.id} is gone" in ground.worker.log_text()


def test_a_deadline_that_comes_far_too_late_fails_nothing(
    ground: Ground, tasks: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """The errbacks of a chord that ended well would be called hours after its record has expired."""
    result = partial_chord([tasks.give.s(1).set(queue="nobody")], tasks.gather.s()).apply_async()
    backend = tasks.app.backend
    record = ChordRecord(backend, result.id)
    backend.client.delete(*record.keys)
    body = tasks.gather.s().set(task_id=result.id)
    Mark(id=result.id).put_on(body)
    assert backend.watch_chord(result.id, body, late=record.ttl + 1) is None
    assert result.state == "PENDING"
    assert "so late that its record" in caplog.text
    backend.watch_chord(result.id, body, late=record.ttl - 1)
    assert tasks.app.AsyncResult(result.id).state == "FAILURE"


def test_a_worker_with_another_backend_says_that_it_reports_nothing(
    stage: Stage, worker: Any, wait_for: Any
) -> None:
    """A chord would hang for one worker that was set up differently, and nothing would say why."""
    stage.conf["result_backend"] = f"partial+{stage.conf['result_backend']}"
    tasks = stage.load(CHORDS)
    result = partial_chord([tasks.give.s(1), tasks.give.s(2)], tasks.gather.s()).apply_async()
    stage.conf["result_backend"] = stage.conf["result_backend"].removeprefix("partial+")
    running = worker(CHORDS, concurrency=1)
    what = f"is a part of partial chord {result.id}, but the result backend of this worker is redis://"
    wait_for(lambda: what in running.log_text(), timeout=PATIENCE)
    assert running.log_text().count(what) == 1


def test_a_header_that_begins_after_its_deadline_is_refused(ground: Ground, tasks: ModuleType) -> None:
    """Every part would be lost, although nothing went wrong."""
    workflow = partial_chord([tasks.give.s(1)], tasks.gather.s(), deadline=2)
    with pytest.raises(PolicyError, match="counted from publication"):
        workflow.apply_async(countdown=3)
    with pytest.raises(PolicyError, match="counted from publication"):
        workflow.set(countdown=2).delay()


def test_a_worker_needs_no_more_than_the_url(stage: Stage, worker: Any) -> None:
    """A worker whose code never mentions the library would not start, or not know what a deadline is."""
    stage.conf["result_backend"] = f"partial+{stage.conf['result_backend']}"
    tasks = stage.load("tests.apps.parts")
    worker("tests.apps.parts", quiet=True)
    header = [tasks.give.s(1), tasks.give.s(2).set(queue="nobody")]
    result = partial_chord(header, tasks.gather.s(), min_success=1, deadline=1).apply_async()
    assert result.get(timeout=PATIENCE) == ["ok", "lost"]


# --- duplicates, retries, deferrals, additions


def test_parts_that_are_delivered_twice_count_once(
    ground: Ground, tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redelivered part would be counted for another one, or run the body twice."""
    label, send = ground.label(), tasks.app.amqp.send_task_message

    def twice(producer: Any, name: str, message: Any, **options: Any) -> Any:
        if name in {tasks.give.name, tasks.fail.name}:
            send(producer, name, message, **options)
        return send(producer, name, message, **options)

    monkeypatch.setitem(tasks.app.amqp.__dict__, "send_task_message", twice)
    header = [tasks.give.s(n) for n in range(10)] + [tasks.fail.s()]
    partial_chord(header, tasks.gather.s(label), min_share=0.5).apply_async()
    monkeypatch.undo()
    assert ground.told(label) == [f"ok {n}" for n in range(10)] + ["failed Business"]
    ground.flush()
    assert ground.runs(label) == 1


def test_a_chord_that_is_begun_twice_ends_once(
    ground: Ground, tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain step that is delivered twice would run the body behind it twice."""
    label, send = ground.label(), tasks.app.amqp.send_task_message

    def twice(producer: Any, name: str, message: Any, **options: Any) -> Any:
        if name == tasks.give.name:
            send(producer, name, message, **options)
        return send(producer, name, message, **options)

    header = [tasks.join.s(2), tasks.fail.si()]
    workflow = chain(tasks.give.s(1), partial_chord(header, tasks.gather.s(label), min_success=1))
    monkeypatch.setitem(tasks.app.amqp.__dict__, "send_task_message", twice)
    workflow.apply_async()
    monkeypatch.undo()
    assert ground.told(label) == ["ok [1, 2]", "failed Business"]
    ground.flush()
    assert ground.runs(label) == 1


def test_a_body_may_be_replaced_by_another_chord(ground: Ground, tasks: ModuleType) -> None:
    """A body that has parts run again keeps its id, and the second chord would be taken for the first."""
    label = ground.label()
    header = [tasks.give.s(1), tasks.fail.s()]
    result = partial_chord(header, tasks.try_again.s(label), min_success=1).apply_async()
    assert result.get(timeout=PATIENCE) == ["ok old", "ok new"]
    assert ground.stage.history.count("tried", label=label) == 1
    assert workflow_progress(tasks.app.AsyncResult(result.id)) == Progress(done=2, failed=0, total=2)


def test_two_chords_may_have_one_id(ground: Ground, tasks: ModuleType) -> None:
    """A chord that is given the same task_id every night would run in the first night only."""
    first, second, nightly = ground.label(), ground.label(), ground.label("nightly")
    partial_chord([tasks.give.s(1)], tasks.gather.s(first)).apply_async(task_id=nightly)
    assert ground.told(first) == ["ok 1"]
    partial_chord([tasks.give.s(2), tasks.give.s(3)], tasks.gather.s(second)).apply_async(task_id=nightly)
    assert ground.told(second) == ["ok 2", "ok 3"]
    ground.flush()
    assert ground.runs(first) == 1


def test_parts_that_our_policies_defer_are_waited_for(
    ground: Ground, tasks: ModuleType, wait_for: Any
) -> None:
    """A duplicate that waits for the first run of its key would be taken for a part that has ended."""
    gate, label, key = ground.gate(), ground.label(), ground.label("key")
    header = [tasks.once.s(key, str(gate)), tasks.once.s(key, str(gate)), tasks.second_try.s(3)]
    partial_chord(header, tasks.gather.s(label)).apply_async()
    wait_for(lambda: ground.stage.history.count("event", what="deferred", key=f'{CHORDS}.once:"{key}"'))
    assert ground.runs(label) == 0
    gate.touch()
    assert ground.told(label) == [f"ok {key}", f"ok {key}", "ok 3"]
    assert ground.stage.history.count("effect", key=key) == 1


def test_a_part_may_add_parts(ground: Ground, tasks: ModuleType) -> None:
    """A part that finds more to do while it runs could not say so; the body would run too early."""
    label = ground.label()
    header = [tasks.add_parts.s([1, 2]), tasks.fail.s()]
    partial_chord(header, tasks.gather.s(label), min_share=0.75).apply_async()
    assert ground.told(label) == ["ok added", "failed Business", "ok 1", "ok 2"]


def test_a_part_may_be_replaced_by_a_group(ground: Ground, tasks: ModuleType) -> None:
    """The parts of the replacement would be counted instead of the part."""
    label = ground.label()
    partial_chord([tasks.become_group.s([1, 2]), tasks.give.s(3)], tasks.gather.s(label)).apply_async()
    # The order in the replacement, a plain chord, is Celery's own: until 5.5 the last came first.
    assert ground.told(label) in (["ok [1, 2]", "ok 3"], ["ok [2, 1]", "ok 3"])


def test_options_of_the_call_reach_the_body_and_leave_the_mark(ground: Ground, tasks: ModuleType) -> None:
    """Headers given to apply_async would turn the chord into a plain one."""
    a, b = ground.label(), ground.label()
    header = [tasks.give.s(1), tasks.fail.s()]
    partial_chord(header, tasks.gather.s(a), min_success=1).apply_async(headers={"x": 1}, priority=3)
    partial_chord(header, tasks.gather.s(b).set(headers={"y": 2}), min_success=1).delay()
    assert ground.told(a) == ground.told(b) == ["ok 1", "failed Business"]


def test_a_frozen_chord_can_be_sent(ground: Ground, tasks: ModuleType) -> None:
    """Whoever needs the ids before sending would get a chord that counts other parts."""
    label = ground.label()
    workflow = partial_chord([tasks.give.s(1), tasks.fail.s()], tasks.gather.s(label), min_success=1)
    frozen = workflow.freeze()
    assert workflow.apply_async().id == frozen.id
    assert ground.told(label) == ["ok 1", "failed Business"]


def test_a_chord_that_was_sent_elsewhere_is_still_partial(ground: Ground, tasks: ModuleType) -> None:
    """A chord that is an argument of a task, or kept as JSON, would raise the error of a part."""
    header = [tasks.give.si(1), tasks.fail.si()]
    workflow = partial_chord(header, tasks.gather.s("x"), min_success=1)
    chained = chain(tasks.give.s(0), workflow)
    restored = {
        "json": tasks.app.signature(json.loads(json.dumps(workflow))),
        "pickle": pickle.loads(pickle.dumps(workflow)),
        "copy": workflow.clone(),
        "in a chain": tasks.app.signature(json.loads(json.dumps(chained))),
    }
    for name, one in restored.items():
        result = one.apply_async()
        assert result.get(timeout=PATIENCE) == ["ok 1", "failed Business"], name
        again = result_from_tuple(json.loads(json.dumps(result.as_tuple())), app=tasks.app)
        assert again.get(timeout=PATIENCE) == ["ok 1", "failed Business"], name
        result.parent.save()
        assert len(tasks.app.GroupResult.restore(result.parent.id)) == 2
    assert isinstance(restored["json"], PartialChord)
    assert tasks.type_of.delay(workflow).get(timeout=PATIENCE) == "PartialChord"


def test_a_body_that_cannot_be_published_fails(ground: Ground, tasks: ModuleType) -> None:
    """A body without a way to its queue would leave its caller waiting."""
    body = tasks.gather.s().set(serializer="nonsense")
    result = partial_chord([tasks.give.s(1)], body).apply_async()
    with pytest.raises(ChordFailed, match="could not be published") as caught:
        result.get(timeout=PATIENCE)
    assert Outcomes(caught.value.results).values() == [1]


# --- plain chords


def test_a_plain_chord_is_celerys_own(stage: Stage, worker: Any, valkey: Any) -> None:
    """Whoever changes the backend for one chord would change all the others."""
    seen = []
    for number, scheme in ((1, ""), (2, "partial+")):
        stage.conf["result_backend"] = scheme + valkey.url(number)
        stage.conf["task_default_queue"] = f"queue-{number}"
        tasks = stage.load(CHORDS)
        worker(CHORDS)
        ends = [end_of(canvas) for canvas in plain_canvases(tasks)]
        with valkey.client(number) as client:
            keys = Counter(ID.sub("ID", key.decode()) for key in client.scan_iter("celery*"))
        seen.append((ends, keys))
    assert seen[0] == seen[1]


ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def plain_canvases(tasks: ModuleType) -> list[Any]:
    give, add, body = tasks.give, tasks.join, tasks.gather_plain.s()
    return [
        chord([give.s(1), give.s(2)], body),
        chord([give.s(1), tasks.fail.s()], body.on_error(tasks.on_any_error.s())),
        chord([give.s(1), group(give.s(2), give.s(3)), chain(give.s(4), add.s(5))], body),
        chord([give.s(1), chord([give.s(2)], add.s(3))], body),
        chain(give.s(1), group(add.s(2), add.s(3)), add.s(4)),
        chord([tasks.add_parts.s([1, 2])], tasks.size.s()),
    ]


def end_of(canvas: Any) -> Any:
    """What a caller gets: the value, or the error without its ids."""
    result = canvas.apply_async()
    try:
        return result.app.AsyncResult(result.id).get(timeout=PATIENCE)
    except Exception as error:  # noqa: BLE001 - it is what this is about
        return ID.sub("ID", repr(error))


# --- what is left


def test_nothing_is_left_after_the_expiry(stage: Stage, worker: Any, wait_for: Any, valkey: Any) -> None:
    """Each chord would leave keys in Redis for ever."""
    stage.conf |= {"result_backend": f"partial+{valkey.url(1)}", "result_expires": 2}
    tasks = stage.load(CHORDS)
    worker(CHORDS)
    header = [tasks.give.s(1), tasks.fail.s(), chain(tasks.give.s(2), tasks.join.s())]
    partial_chord(header, tasks.gather.s("body"), min_success=0).apply_async()
    partial_chord(header, chain(tasks.gather.s("body"), tasks.join.s(1)), min_success=0).apply_async()
    partial_chord(header, tasks.gather.s(), on_failure="fail_fast").apply_async()
    lost = tasks.give.s(3).set(queue="nobody")
    partial_chord([tasks.give.s(1), lost], tasks.gather.s("body"), min_success=0, deadline=1).apply_async()
    partial_chord([tasks.give.s(1), lost], tasks.gather.s("never")).apply_async()
    wait_for(lambda: stage.history.count("body", label="body") == 3, timeout=PATIENCE)
    with valkey.client(1) as client:
        assert [key for key in client.scan_iter("celery*") if client.ttl(key) < 0] == []
        wait_for(
            lambda: not client.keys("celery*"), timeout=PATIENCE, message=lambda: str(client.keys("celery*"))
        )


def test_a_chord_that_went_well_keeps_no_parts(ground: Ground, tasks: ModuleType, wait_for: Any) -> None:
    """Values of ten thousand parts would stay in Redis for a day, after they were handed on."""
    label = ground.label()
    result = partial_chord([tasks.give.s("x" * 100)] * 3, tasks.gather.s(label)).apply_async()
    ground.told(label)
    wait_for(lambda: not ground.keys(f"{result.id}.parts"))
    assert ground.keys(f"{result.id}.chord")


# --- eager


def test_an_eager_chord_gives_outcomes(stage: Stage) -> None:
    """Whoever tests with task_always_eager would see another chord than production does."""
    stage.conf |= {"task_always_eager": True, "result_backend": "cache+memory://"}
    tasks = stage.load(CHORDS)
    header = [tasks.give.s(1), tasks.fail.s("bad"), chain(tasks.give.s(2), tasks.join.s(3))]
    told = partial_chord(header, tasks.gather.s(), min_success=2).apply_async().get()
    assert told == ["ok 1", "failed Business", "ok [2, 3]"]
    chained = partial_chord(header, tasks.gather.s(), min_success=2) | tasks.join.s(9)
    assert chained.apply_async().get() == [told, 9]
    failed = partial_chord(header, tasks.gather.s()).apply_async()
    with pytest.raises(ChordFailed, match="3 of 3 parts must be ok: 2 ok, 1 failed"):
        failed.get()


def test_an_eager_chord_ends_as_a_real_one(stage: Stage) -> None:
    """A test would see no errback, or an ignored part that failed, or could not look at the result."""
    stage.conf |= {"task_always_eager": True, "result_backend": "cache+memory://"}
    tasks = stage.load(CHORDS)
    body = tasks.gather.s().on_error(tasks.on_error.s()).on_error(tasks.on_error_by_id_eagerly.s())
    failed = partial_chord([tasks.give.s(1), tasks.ignore.s()], body).apply_async()
    assert isinstance(failed.result, ChordFailed)
    assert stage.history.last("errback", id=failed.id)["told"] == ["ok 1", "lost Ignore"]
    assert stage.history.count("errback by id", id=failed.id) == 1
    assert workflow_progress(failed) == Progress(done=1, failed=1, total=1)
    assert inspect_workflow(failed).error.startswith("ChordFailed: 2 of 2 parts must be ok")
    both = group(tasks.give.s(1), tasks.give.s(2)).apply_async()
    assert workflow_progress(both) == Progress(done=2, failed=0, total=2)
    assert inspect_workflow(both).state == "SUCCESS"
    inner = chord([tasks.give.s(1), tasks.give.s(2)], tasks.join.s(3))
    assert partial_chord([inner, tasks.give.s(4)], tasks.gather.s())().get() == ["ok [[1, 2], 3]", "ok 4"]


@pytest.mark.parametrize("propagates", [False, True])
def test_an_eager_chord_survives_errors_that_propagate(stage: Stage, propagates: bool) -> None:
    """task_eager_propagates would let the error of a part out of the chord."""
    stage.conf |= {"task_always_eager": True, "task_eager_propagates": propagates}
    tasks = stage.load(CHORDS)
    header = [tasks.fail.s("bad"), tasks.give.s(1)]
    assert partial_chord(header, tasks.gather.s(), min_success=1)().get() == ["failed Business", "ok 1"]
    with pytest.raises(ChordFailed):
        partial_chord(header, tasks.gather.s())().get()
