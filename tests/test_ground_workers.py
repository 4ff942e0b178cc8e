"""Real workers, and what can be done to them."""

import pytest

from tests.ground import tree

TASKS = "tests.ground.tasks"


@pytest.fixture
def tasks(load):
    """The plain tasks, in this process."""
    return load(TASKS)


@pytest.fixture
def gate(tmp_path):
    """The file that `until_told` waits for."""
    return tmp_path / "gate"


@pytest.fixture
def started(stage, wait_for):
    """Wait until so many runs of `until_told` have started, and return the last one's entry."""

    def wait(times=1):
        wait_for(lambda: stage.history.count("started") >= times, message=f"{times} starts")
        return stage.history.last("started")

    return wait


def test_worker_runs_a_task_on_each_broker(broker, worker, tasks, stage):
    """No integration test would mean anything."""
    worker(TASKS, concurrency=2)

    assert tasks.add.delay(2, 3).get(timeout=10) == 5

    assert stage.conf["broker_url"] == broker.url
    (entry,) = stage.history.entries("added")
    assert (entry["a"], entry["b"]) == (2, 3)
    assert tree.alive(entry["pid"])


def test_pool_processes_are_the_children(worker, tasks):
    """A test would kill the wrong process."""
    running = worker(TASKS, concurrency=3)

    assert len(running.children()) == 3
    assert tasks.pid.delay().get(timeout=10) in running.children()
    assert set(running.all_pids()) == {running.pid, *running.children()}


@pytest.mark.chaos
def test_killed_child_is_replaced(worker, tasks, wait_for):
    """After the first kill of a chaos test nothing would be under test."""
    running = worker(TASKS, concurrency=2)
    before = set(running.children())

    dead = running.kill_child()

    wait_for(lambda: len(running.children()) == 2)
    assert dead not in running.children()
    assert before & set(running.children()) == before - {dead}
    assert tasks.add.delay(1, 1).get(timeout=10) == 2


@pytest.mark.chaos
@pytest.mark.usefixtures("broker")
def test_child_killed_while_it_works(worker, tasks, gate, started):
    """The rerun after a kill, the heart of every guarantee, could not be tested."""
    running = worker(TASKS, concurrency=1)
    result = tasks.until_told.delay(str(gate))

    running.kill_child(started()["pid"])
    second = started(times=2)
    gate.touch()

    assert result.get(timeout=10) == "told"
    assert second["id"] == result.id


@pytest.mark.chaos
def test_killed_worker_leaves_no_process(worker, tasks, gate, started):
    """Half-dead workers would go on consuming the queues of later tests."""
    running = worker(TASKS, concurrency=2)
    tasks.until_told.delay(str(gate))
    started()
    pids = running.all_pids()
    assert len(pids) == 3

    running.kill()

    assert not any(map(tree.alive, pids))
    assert running.all_pids() == []


@pytest.mark.chaos
def test_killed_parent_leaves_no_process_after_the_test(worker, tasks, gate, started):
    """Orphaned pool processes would go on working through later tests."""
    running = worker(TASKS, concurrency=2)
    tasks.until_told.delay(str(gate))
    started()

    running.kill_parent()
    running.kill()

    assert running.all_pids() == []


@pytest.mark.chaos
@pytest.mark.usefixtures("broker")
def test_task_of_a_killed_worker_is_soon_delivered_again(stage, worker, tasks, gate, started):
    """Redelivery on Redis would take 100 seconds, and no test would wait for it."""
    stage.redeliver_after(1)
    first = worker(TASKS, concurrency=1)
    result = tasks.until_told.delay(str(gate))
    started()
    first.kill()
    gate.touch()

    worker(TASKS, concurrency=1)

    assert result.get(timeout=20) == "told"
    assert stage.history.count("started", id=result.id) >= 2


def test_message_of_a_living_worker_is_delivered_again_too(stage, worker, tasks, gate, started):
    """A body longer than the visibility timeout, and its copies, could not be tested."""
    stage.redeliver_after(1)
    worker(TASKS, concurrency=2)
    result = tasks.until_told.delay(str(gate))

    started(times=2)
    gate.touch()

    assert result.get(timeout=10) == "told"


def test_suspended_child_goes_on_where_it_was(stage, worker, tasks, gate, started):
    """A holder that sleeps through its lease could not be played."""
    running = worker(TASKS, concurrency=1)
    result = tasks.until_told.delay(str(gate))
    child = running.suspend_child(started()["pid"])
    gate.touch()
    assert not stage.history.count("ended")

    running.resume_child(child)

    assert result.get(timeout=10) == "told"
    assert stage.history.count("started") == 1


def test_suspended_worker_goes_on_where_it_was(worker, tasks):
    """A whole machine that stalls could not be played."""
    running = worker(TASKS, concurrency=1)
    running.suspend()
    result = tasks.add.delay(1, 2)
    assert not result.ready()

    running.resume()

    assert result.get(timeout=10) == 3


def test_warm_stop_ends_the_running_task(worker, tasks, gate, started, wait_for):
    """A warm shutdown could not be told from a crash."""
    running = worker(TASKS, concurrency=1)
    result = tasks.until_told.delay(str(gate))
    started()
    running.begin_warm_stop()
    wait_for(lambda: "Warm shutdown" in running.log_text())
    gate.touch()

    assert running.stop() == 0

    assert result.get(timeout=10) == "told"
    assert running.all_pids() == []


def test_cold_stop_gives_up_the_running_task(worker, tasks, gate, started, stage):
    """A cold shutdown could not be tested."""
    running = worker(TASKS, concurrency=1)
    tasks.until_told.delay(str(gate))
    started()

    running.stop_cold()

    assert stage.history.count("ended") == 0
    assert running.all_pids() == []


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_other_pools(worker, tasks, pool):
    """Policies would be tested in prefork workers only."""
    running = worker(TASKS, pool=pool, concurrency=2)

    assert tasks.pid.delay().get(timeout=10) == running.pid
    assert running.children() == []


def test_module_knows_where_it_runs(worker, tasks):
    """Modules could not keep process-wide handlers out of the test's process."""
    worker(TASKS, pool="solo")

    assert tasks.runs_in_worker.delay().get(timeout=10) is True
    assert tasks.runs_in_worker() is False


def test_worker_that_cannot_start_tells_why(worker):
    """A mistake in a module of tasks would look like a time-out."""
    with pytest.raises(AssertionError, match="no_such_module"):
        worker("tests.no_such_module")


def test_tasks_are_loaded_anew_for_each_test(load, stage):
    """A test would talk to the broker of the one before."""
    first = load(TASKS)
    stage.conf["broker_url"] = "redis://localhost:1/0"

    second = load(TASKS)

    assert second.app is not first.app
    assert second.app.conf.broker_url == "redis://localhost:1/0"


def test_tasks_called_here_write_to_the_same_history(tasks, stage):
    """Eager tasks would fail, or write into the history of another test."""
    tasks.add(1, 2)

    assert stage.history.count("added", a=1, b=2) == 1
