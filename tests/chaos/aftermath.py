"""What is left when all is quiet: how each call ended, the dead letters, the keys in the store."""

import json
import re
from collections.abc import Iterable
from typing import Any

from celery import Celery, states

from celery_patterns import DeadLetters
from celery_patterns.core.store import Store, store_of
from tests.chaos.story import Entry
from tests.ground.history import History


class Ends:
    """Which calls have ended, by Celery's own record."""

    def __init__(self, app: Celery, calls: Iterable[Entry]) -> None:
        self._app = app
        self._waiting = list(calls)
        self._states: dict[str, str] = {}

    def waiting(self) -> list[Entry]:
        """Return the calls that have not ended and still may; a step after a failed one never begins."""
        for call in self._waiting:
            state = self._app.backend.get_state(call["id"])
            if state in states.READY_STATES:
                self._states[call["id"]] = state
            elif any(
                self._states.get(step, states.SUCCESS) != states.SUCCESS for step in call.get("after", ())
            ):
                self._states[call["id"]] = NEVER
        self._waiting = [call for call in self._waiting if call["id"] not in self._states]
        return self._waiting


NEVER = "NEVER"
"""The state of a step that will not begin."""


def write_down(app: Celery, history: History) -> None:
    """Add to the history what a checker wants to know of the servers."""
    for call in history.entries("published"):
        meta = app.backend.get_task_meta(call["id"])
        failed = isinstance(meta["result"], BaseException)
        value = repr(meta["result"]) if failed else meta["result"]
        history.add("outcome", id=call["id"], state=meta["status"], value=value)
    for letter in DeadLetters(app).walk():
        about = {"source": letter.source, "exception": letter.exception, "deaths": letter.deaths}
        history.add("letter", id=letter.id, task_id=letter.task_id, state=letter.state, **about)
    _write_keys(history, store_of(app))


GONE = -2
"""What a server says of the end of a key that is not there."""


def _write_keys(history: History, store: Store) -> None:
    client, now = store.client, store.now()
    for key in sorted(client.scan_iter(count=1000)):
        kind, left = client.type(key).decode(), client.pttl(key)
        if left == GONE or key.decode() == store.clock_key:
            continue
        fields: dict[str, Any] = {}
        if kind == "hash" and b":dead:" not in key:
            fields = {name.decode(): value.decode() for name, value in client.hgetall(key).items()}
        about = {"key": key.decode(), "ttl": left / 1000, "now": now}
        history.add("key", name=key.decode().split(":")[1], **about, fields=fields)
        record = _RECORD.match(key.decode())
        if record and fields.get("state") == "completed":
            value = json.loads(fields["end"].partition("\n")[2])
            history.add("record", task=record["task"], order=record["order"], value=value)


_RECORD = re.compile(r'cp:idempotency:\{(?P<task>[^:]+):"(?P<order>[^"]+)"\}$')
