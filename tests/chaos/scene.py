"""Where a session plays: a store that survives its restarts, workers, and a proxy between each and it."""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Self
from unittest.mock import Mock

from celery import signals

from celery_patterns.core.redelivery import redelivery_timeout
from tests.chaos import watch
from tests.chaos.body import BOOKS
from tests.chaos.broken import BROKEN
from tests.chaos.disturbed import SKEW, TWICE
from tests.chaos.terms import VISIBILITY, as_entry
from tests.ground.app import CONF
from tests.ground.fenced import FencedFile
from tests.ground.history import History
from tests.ground.proxy import Proxy
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.workers import Worker

TASKS = "tests.chaos.tasks"
SKEWS = (0.0, 5.0, -5.0)
SHARE_TWICE = 0.02
ACCOUNTS = 30
BRANCHES = 3


@dataclass
class Scene:
    """The servers and processes of one session. A context manager.

    Args:
        stage: Its directory, and the settings that all processes share: a broker and a result backend, which
            no fault touches. The store is the scene's own.
        seed: What the processes' own disturbances are drawn from; with an even one there is a waiting room.
        slots: How many workers there are; one that was killed is replaced in its slot.
        concurrency: How many processes each of them has.
        broken: Which mechanism is broken in the workers, if one is; see `broken`.
    """

    stage: Stage
    seed: int
    slots: int = 2
    concurrency: int = 3
    broken: str = ""
    store: ValkeyServer = field(init=False)
    proxies: list[Proxy] = field(init=False, default_factory=list)
    workers: dict[int, Worker] = field(init=False, default_factory=dict)
    _started: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.store = ValkeyServer(self.stage.directory / "store", durable=True)
        self.stage.redeliver_after(VISIBILITY)
        self.stage.conf["patterns_waiting_room"] = self.seed % 2 == 0

    @property
    def history(self) -> History:
        """What all processes write to."""
        return self.stage.history

    def __enter__(self) -> Self:
        self.store.start()
        self.proxies = [Proxy(self.store.port).__enter__() for _ in range(self.slots)]
        for number in range(ACCOUNTS):
            FencedFile(self.books / f"account-{number}.json").create()
        for slot in range(self.slots):
            self.start_worker(slot, wait=False)
        for worker in self.workers.values():
            worker.wait_until_ready(timeout=60)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signals.after_task_publish.disconnect(watch.sent)
        self.stage.close()
        for proxy in self.proxies:
            proxy.__exit__()
        self.store.kill()

    @property
    def books(self) -> Path:
        """Where the accounts' files are."""
        path = self.stage.directory / "books"
        path.mkdir(exist_ok=True)
        return path

    def start_worker(self, slot: int, *, wait: bool = True) -> None:
        """Start a worker in a slot; its clock, and which messages it sends twice, are drawn anew."""
        self._started += 1
        skew = random.Random(f"{self.seed}/{self._started}").choice(SKEWS)
        conf = {**self.stage.conf, "patterns_url": self.proxies[slot].through(self.store.url())}
        twice = f"{SHARE_TWICE}/{self.seed}-{self._started}"
        env = {
            CONF: json.dumps(conf),
            SKEW: str(skew),
            TWICE: twice,
            BOOKS: str(self.books),
            BROKEN: self.broken,
        }
        worker = self.stage.worker(TASKS, wait=wait, env=env, concurrency=self.concurrency)
        self.workers[slot] = worker
        self.history.add("worker", slot=slot, name=worker.name, worker=worker.pid, skew=skew)

    def stop_workers(self) -> None:
        """Stop what still runs, warm; one that hangs is noted, with what its threads are at in its log."""
        for worker in self.stage.workers:
            try:
                worker.stop(timeout=30)
            except AssertionError:
                self.history.add("stuck", name=worker.name)

    def client(self) -> ModuleType:
        """The module of tasks in this process, which publishes without being disturbed; ask for it once."""
        self.stage.conf["patterns_url"] = self.store.url()
        tasks = self.stage.load(TASKS)
        self.history.add("terms", **as_entry(redelivery_timeout(tasks.app)))
        # Nobody here waits for a result, they are looked up when all is quiet: so nothing is subscribed to.
        tasks.app.conf.result_backend_thread_safe = True
        tasks.app.backend.result_consumer = Mock()
        signals.after_task_publish.connect(watch.sent)
        return tasks
