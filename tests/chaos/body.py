"""The body of the guarded tasks: an effect on an account that checks fences, or a failure, written down."""

import os
import random
import time
from pathlib import Path
from typing import Any

from celery_patterns import DeadLetterMixin, IdempotentTask, RetryableTask, SingletonTask, TokenBucketTask
from celery_patterns.core.policy import NONCE_HEADER
from tests.chaos.terms import POLICIES, Declined, Flaky
from tests.ground.app import history
from tests.ground.fenced import FencedFile, Stale

BOOKS = "CHAOS_BOOKS"
"""The directory of the accounts' files."""


class GuardedTask(DeadLetterMixin, RetryableTask, IdempotentTask, SingletonTask, TokenBucketTask):
    """Everything at once."""

    abstract = True
    dead_letter = POLICIES["dead_letter"]
    retry_policy = POLICIES["retry_policy"]
    idempotency = POLICIES["idempotency"]
    singleton = POLICIES["singleton"]
    token_bucket = POLICIES["token_bucket"]


def book(task: Any, order: str, account: str, branch: int, fate: str) -> dict[str, Any]:
    """Have the effect, or the failure, and write down how it went."""
    request = task.request
    fence, granted = getattr(request, "fence", None), getattr(request, "granted_at", None)
    owner = f"{request.id}/{getattr(request, NONCE_HEADER)}"
    about = {
        "id": request.id,
        "task": task.name,
        "owner": owner,
        "order": order,
        "account": account,
        "fence": fence,
    }
    limits = dict.fromkeys(("all", f"branch:{branch}"), granted)
    history().add("begin", granted=limits, parent=os.getppid(), retries=request.retries, **about)
    try:
        number = _add_one(account, fence, fate, request.retries)
    except BaseException as error:
        history().add("end", how=type(error).__name__, **about)
        raise
    history().add("effect", number=number, **about)
    linger()
    history().add("end", how="returned", **about)
    return {"order": order, "by": owner, "fence": fence, "number": number}


def work() -> None:
    """What a body takes its time for. A test without processes has other things happen meanwhile."""
    time.sleep(random.choice((0.0, 0.0, 0.01, 0.05, 0.2)))


def linger() -> None:
    """What it takes its time for afterwards: the effect has happened, and nobody has recorded it yet."""
    time.sleep(random.choice((0.0, 0.0, 0.0, 0.01, 0.05)))


def _add_one(account: str, fence: int | None, fate: str, retries: int) -> int | None:
    """Add one to the account's number, which only the holder of the highest fence may."""
    file = FencedFile(Path(os.environ[BOOKS]) / f"{account}.json")
    try:
        number = None if fence is None else file.read(fence) + 1
        work()
        _meet(fate, retries)
        if number is not None:
            file.write(fence, number)
    except Stale:
        raise Flaky("another holds the account by now") from None
    return number


def _meet(fate: str, retries: int) -> None:
    """Fail as the call is fated to."""
    if fate == "declined":
        raise Declined("no such account")
    if fate == "hopeless" or (fate == "flaky" and not retries) or (fate == "moody" and random.random() < 0.3):
        raise Flaky(fate)
