"""The start of every module of tasks that tests hand to workers.

    from tests.ground.app import ground_app, history

    app = ground_app(__name__, task_acks_late=True)

    @app.task
    def charge(order_id): history().add("charged", order_id=order_id)

The worker's process and the test's process import such a module alike; which servers it talks to comes from
the environment (see `Stage`).
"""

import json
import os
from typing import Any

from celery import Celery

from tests.ground import redelivery
from tests.ground.history import History

CONF = "GROUND_CONF"
HISTORY = "GROUND_HISTORY"
WORKER = "GROUND_WORKER"


def ground_app(name: str, **conf: Any) -> Celery:
    """Return an app with the module's own settings, and over them those of the test."""
    settings = {"broker_connection_retry_on_startup": True, **conf, **json.loads(os.environ.get(CONF, "{}"))}
    if "unacked_restore_interval" in settings.get("broker_transport_options", {}):
        redelivery.hasten()
    app = Celery(name)
    app.conf.update(settings)
    return app


def history() -> History:
    """Return the history of the running test, for tasks to write to."""
    return History(os.environ[HISTORY])


def in_worker() -> bool:
    """Tell whether this process belongs to a worker, and not to the test.

    A module is loaded once by a worker, but once for each test by the test's process: what it registers for
    the whole process, as a subscriber of events, is for workers only.
    """
    return WORKER in os.environ
