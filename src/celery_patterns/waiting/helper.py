"""A worker's own pump: a process beside it, ``python -m celery_patterns.waiting.helper``.

It is a fresh interpreter and no fork, since a fork inherits locks and sockets; so it is the same for
every pool. It imports no module of the app: it gets the settings that it needs through its standard
input, and ends when its worker does.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any, cast

from celery import Celery

from celery_patterns.core.settings import setting
from celery_patterns.core.store import Store
from celery_patterns.core.urls import store_url
from celery_patterns.waiting.pump import Pump
from celery_patterns.waiting.queues import ReleaseQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("celery_patterns")

_SETTINGS = (
    "broker_url",
    "broker_write_url",
    "broker_transport",
    "broker_transport_options",
    "broker_use_ssl",
    "broker_login_method",
    "broker_connection_timeout",
    "broker_failover_strategy",
)


def start(app: Celery, queues: Sequence[ReleaseQueue]) -> subprocess.Popen[bytes]:
    """Start the pump of this worker.

    Args:
        app: The worker's.
        queues: The release queues that the worker consumes.

    Raises:
        OSError: There is no such interpreter, or no room for one more process.
        TypeError: A setting is an object that cannot be told to another process.
    """
    url, options = store_url(app)
    told = {
        "conf": {name: value for name in _SETTINGS if not callable(value := app.conf.get(name))},
        "store": [url, setting(app, "patterns_prefix", "cp"), options],
        "clock": bool(setting(app, "patterns_test_clock", False)),
        "queues": [[one.name, one.arguments, one.homes] for one in queues],
        "parent": os.getpid(),
    }
    text = json.dumps(told, default=os.fspath).encode()
    process = subprocess.Popen(  # noqa: S603 - this very interpreter, on our own module
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
    )
    with cast("IO[bytes]", process.stdin) as told_to:
        told_to.write(text)
    return process


def main() -> None:
    """Pump until the worker ends."""
    told: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    logging.basicConfig(
        level=logging.INFO, format="[%(asctime)s: %(levelname)s/pump] %(message)s", stream=sys.stderr
    )
    ended = False

    def end(*_: Any) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which still ends its tasks
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    app = Celery(set_as_current=False)
    app.conf.update({name: value for name, value in told["conf"].items() if value is not None})
    url, prefix, options = told["store"]
    store = Store(url, prefix, options)
    if told["clock"]:
        store.clock_key = f"{prefix}:clock"
    queues = [ReleaseQueue(name, arguments, tuple(homes)) for name, arguments, homes in told["queues"]]
    parent = told["parent"]
    Pump(app, store, queues).run(lambda: ended or os.getppid() != parent)


if __name__ == "__main__":
    main()
