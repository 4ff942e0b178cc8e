"""What one test has to play with: settings shared by its workers and itself, and a history."""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import kombu.pools
from celery import _state

from tests.ground import redelivery
from tests.ground.app import CONF, HISTORY
from tests.ground.history import History
from tests.ground.workers import Worker


@dataclass
class Stage:
    """The surroundings of one test.

    `conf` holds Celery settings (JSON values) that win over those in the module of tasks. Change it before
    the first worker is started or module loaded: it is read once by each.
    """

    directory: Path
    conf: dict[str, Any]
    workers: list[Worker] = field(default_factory=list)
    _modules: list[ModuleType] = field(default_factory=list)

    @property
    def history(self) -> History:
        """What tasks of this test have written down, in all processes."""
        return History(self.directory / "history.jsonl")

    def redeliver_after(self, visibility_timeout: float) -> None:
        """Let a Redis broker deliver unacknowledged messages again after so many seconds (and about one).

        RabbitMQ has no such time: it delivers again when the worker's connection ends.
        """
        if not self.conf["broker_url"].startswith("redis"):
            return
        options = self.conf.setdefault("broker_transport_options", {})
        options.update(redelivery.transport_options(visibility_timeout))

    def worker(
        self, module: str, *, wait: bool = True, env: Mapping[str, str] | None = None, **options: Any
    ) -> Worker:
        """Start a worker on a module of tasks; `options` are those of `Worker`."""
        worker = Worker(module, self.directory, env={**self._env(), **(env or {})}, **options)
        self.workers.append(worker)
        if wait:
            worker.wait_until_ready()
        return worker

    def load(self, module: str) -> ModuleType:
        """Import a module of tasks anew, so that its app in this process has the settings of this test."""
        sys.modules.pop(module, None)
        # What a task writes down while it runs in this process, eagerly, belongs to this test too.
        os.environ.update(self._env())
        loaded = importlib.import_module(module)
        self._modules.append(loaded)
        return loaded

    def close(self) -> None:
        """Kill the workers, and close what the loaded apps have opened."""
        for worker in self.workers:
            worker.kill()
        for module in self._modules:
            sys.modules.pop(module.__name__, None)
            with contextlib.suppress(AttributeError):
                # A result that is collected later would unsubscribe, at a server that is gone by then.
                module.app.backend.result_consumer._pubsub = None
            with contextlib.suppress(AttributeError):
                module.app.close()
                if _state.get_current_app() is module.app:
                    _state._set_current_app(_state.default_app)
        for name in self._env():
            os.environ.pop(name, None)
        kombu.pools.reset()

    def _env(self) -> dict[str, str]:
        return {CONF: json.dumps(self.conf), HISTORY: str(self.history.path)}
