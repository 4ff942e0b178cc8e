"""A task whose policy names an argument that it does not have; `WRONGLY` says how it is declared."""

import os

from celery import shared_task

from celery_patterns import Idempotency, IdempotentTask, idempotent
from tests.ground.app import ground_app

app = ground_app(__name__)


def charge(order: str) -> str:
    return order


match os.environ["WRONGLY"]:
    case "by base":
        app.task(base=IdempotentTask, idempotency=Idempotency("order_id"))(charge)
    case "by decorator":
        idempotent("order_id")(app.task(charge))
    case "on a shared task":
        idempotent("order_id")(shared_task(charge))
