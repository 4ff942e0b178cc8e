"""Publishing a singleton: the lock is taken before the message goes out.

====================  =======================  ====================================================
the lock is           a bare call              a call in a canvas
====================  =======================  ====================================================
free, or its own      takes it, is published   takes it, is published
another's             ``use_existing``         is published, and gets the holder's result
                      gets the holder's        when it is its turn to start
                      ``AsyncResult``
..                    ``skip`` is published,   as above
                      to end with ``None``
..                    ``raise`` raises         is published, and raises at its start
..                    ``defer`` is published,  the same
                      and waits at its start
..                    ``replace``,             the same
                      ``keep_latest`` take
                      the place of another
====================  =======================  ====================================================

A message without its lock is no danger: whoever starts it asks again. So when the store is away, a
call is published all the same, unless the policy is to raise. What no end can tell is a publisher
that is killed between the lock and the message: that lock lasts for ``queued_ttl``.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from celery.utils import uuid

from celery_patterns.core.guard import Guard
from celery_patterns.core.lease import task_id_of
from celery_patterns.core.timing import start_delay, time_to_expiry
from celery_patterns.errors import SingletonConflict, StoreUnavailable
from celery_patterns.policies.singleton.headers import AT_HEADER, SKIP_HEADER, following
from celery_patterns.policies.singleton.lock import KIND, Held, Lock, Queued

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.result import AsyncResult

    from celery_patterns.core.policy import Call, Publish
    from celery_patterns.policies.singleton.policy import Singleton

_CANVAS = ("task_id", "chain", "chord", "group_id", "link", "link_error", "root_id")
"""The options of a call for whose very result something waits."""

EXPIRY_SLACK = 1.0
"""Seconds past its expiry for which a message that no worker has seen keeps its lock."""


class Publication:
    """One call that is about to be published.

    Args:
        policy: The policy.
        call: The call.
        lock: The lock of its key.
        key: The key, as operators write it.
    """

    def __init__(self, policy: Singleton, call: Call, lock: Lock, key: str) -> None:
        self.policy = policy
        self.has_chosen_id = call.has_chosen_id
        self.is_bare = not any(call.options.get(name) for name in _CANVAS)
        new = call.id is None
        self.call = replace(call, options={**call.options, "task_id": call.id or uuid()}, has_new_id=new)
        self.lock = replace(lock, host=socket.gethostname())
        self.guard = Guard(self.call, KIND, key, policy.on_store_error)

    def send(self, proceed: Publish) -> AsyncResult[Any]:
        """Publish it, or answer for the call that it duplicates.

        Raises:
            SingletonConflict: As the policy says.
            StoreUnavailable: Likewise.
        """
        if self.policy.scope == "while_executing":
            return self._send_unlocked(proceed)
        try:
            answer = self.lock.queue(self._id, self._queued())
        except StoreUnavailable as error:
            if self.policy.on_store_error == "raise":
                raise
            self.guard.store_error("publish", "published without its lock", error)
            return proceed(self.call)
        if isinstance(answer, Queued):
            return self._publish(answer, proceed)
        return self._conflict(answer, proceed)

    def _send_unlocked(self, proceed: Publish) -> AsyncResult[Any]:
        if self.has_chosen_id:
            self.guard.begin_anew(self.lock.store, self.lock.marker(self._id))
        return proceed(self.call)

    def _publish(self, queued: Queued, proceed: Publish) -> AsyncResult[Any]:
        self.call.at_parking.append(self._keep)
        newest = self.policy.on_conflict in {"replace", "keep_latest"}
        call = self._with_headers({AT_HEADER: queued.at}) if newest else self.call
        try:
            return proceed(call)
        except BaseException:
            self._withdraw()
            raise

    def _conflict(self, held: Held, proceed: Publish) -> AsyncResult[Any]:
        holder, on_conflict = task_id_of(held.owner), self.policy.on_conflict
        if on_conflict == "defer":
            return proceed(self.call)
        if not self.is_bare:
            follows = on_conflict != "raise" and self.policy.scope == "until_executed"
            return proceed(self._with_headers(following(self.call, holder)) if follows else self.call)
        if on_conflict == "skip":
            return proceed(self._with_headers({SKIP_HEADER: holder}))
        if on_conflict == "raise":
            self.guard.refuse(SingletonConflict(f"key {self.guard.key} is held by {holder}", held.left))
        self.guard.tell("joined", holder=holder)
        return cast("AsyncResult[Any]", self.call.task.AsyncResult(holder))

    def _keep(self, wait: float) -> None:
        """It waits for something else before a worker has it: the lock lasts as much longer."""
        try:
            self.lock.keep_queued(self._id, self._queued() + wait)
        except StoreUnavailable as error:
            self.guard.store_error("parking", "the lock lasts until queued_ttl", error)

    def _withdraw(self) -> None:
        """Nothing was published: give up the lock, or the turn."""
        try:
            self.lock.release(f"{self._id}/", None, ended=False)
        except StoreUnavailable as error:
            self.guard.store_error("withdrawal", "the lock lasts until queued_ttl", error)

    def _queued(self) -> float:
        app, options = self.call.app, self.call.options
        expires = options.get("expires", self.call.task.expires)
        left = time_to_expiry(app, expires)
        queued = start_delay(app, options) + cast("float", self.policy.queued_ttl)
        return queued if left is None else min(queued, left + EXPIRY_SLACK)

    @property
    def _id(self) -> str:
        return cast("str", self.call.id)

    def _with_headers(self, more: Mapping[str, str | int]) -> Call:
        headers = {**self.call.headers, **more}
        return replace(self.call, options={**self.call.options, "headers": headers})
