"""Tasks of an app that knows nothing of partial chords but its result backend's URL."""

from typing import Any

from tests.ground.app import ground_app, history

app = ground_app(__name__, worker_send_task_events=False)


@app.task(shared=False)
def give(value: Any) -> Any:
    """Succeed."""
    return value


@app.task(shared=False)
def gather(results: list[Any]) -> list[Any]:
    """Write down what became of the parts."""
    told = [result["state"] for result in results]
    history().add("body", told=told)
    return told
