"""The Celery application, which both versions of the tasks share."""

import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from examples.tour.files import append

# The tour starts its own server and service, so only it knows where they are.
REDIS_URL = os.environ["TOUR_REDIS_URL"]
SERVICE_URL = os.environ["TOUR_SERVICE_URL"]
FOLDER = Path(os.environ["TOUR_FOLDER"])


def create_app(*, backend: str = REDIS_URL) -> Celery:
    """An application as anybody configures it: Redis as the broker and for the results."""
    app = Celery("tour", broker=REDIS_URL, backend=backend)
    app.conf.broker_connection_retry_on_startup = True
    return app


@worker_process_init.connect
def announce(**_: Any) -> None:
    """Tell the tour about a new worker child, so that it can be killed."""
    append(FOLDER / "children.jsonl", pid=os.getpid())
