"""How faults are inflicted, and how they end. Each is written down before it happens, and when it is over.

A kind is a method of `Faults` that does it and returns how it ends, or None if nothing is there to suffer it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from tests.chaos.aim import stop_at_work
from tests.chaos.plan import Fault, Habit
from tests.chaos.scene import Scene
from tests.ground import tree
from tests.ground.proxy import Proxy
from tests.ground.waiting import wait_for
from tests.ground.workers import Worker

Undo = Callable[[], None]

HABITS = {
    "kill_child": Habit(6),
    "stop_child": Habit(4, 1.0, 5.0),
    "kill_worker": Habit(1.5, 0.1, 2.0),
    "stop_worker": Habit(1.5, 1.0, 5.0),
    "replace_worker": Habit(1),
    "kill_pump": Habit(2),
    "stop_pump": Habit(2, 1.0, 5.0),
    "kill_store": Habit(1, 0.1, 3.0),
    "restart_store": Habit(1),
    "hang_store": Habit(1, 0.5, 3.0),
    "cut": Habit(2),
    "refuse": Habit(2, 0.5, 5.0),
    "hold": Habit(1.5, 0.5, 4.0),
    "drop": Habit(1.5, 0.5, 4.0),
    "delay": Habit(1.5, 1.0, 5.0),
    "lose_replies": Habit(4, 0.5, 3.0),
}
"""The kinds of faults, how often they come beside each other, and for how many seconds they last."""


AIMED = 0.7
"""The share of faults of pool processes that are to fall into a body."""


def nothing() -> None:
    """It is over as soon as it has happened."""


class Faults:
    """Inflicts faults on a scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._undo: dict[int, Undo] = {}
        self._busy: set[str] = set()
        self._up: set[str] = set()
        self._revived = 0

    def begin(self, fault: Fault) -> None:
        """Inflict a fault, or write down that it could not be."""
        self.revive()
        undo = getattr(self, f"_{fault.kind}")(fault)
        if undo is None:
            self._note("missed", fault)
        else:
            self._undo[fault.number] = undo

    def end(self, fault: Fault) -> None:
        """End it, if it was inflicted."""
        undo = self._undo.pop(fault.number, None)
        if undo is not None:
            undo()
            self._note("over", fault)

    def revive(self) -> None:
        """Replace workers that have ended by themselves, as whatever supervises them does."""
        for slot, worker in list(self.scene.workers.items()):
            if not worker.running and f"slot {slot}" not in self._busy:
                self._revived += 1
                death = Fault(-self._revived, 0.0, "kill_worker", slot, 0.0, 0.0)
                self._note("fault", death, pids=worker.all_pids(), by_itself=True)
                worker.kill()
                self._note("over", death)
                self.scene.start_worker(slot, wait=False)

    def _is_up(self, worker: Worker) -> bool:
        """Whether a worker is at work: Celery's ends if one of its processes dies while it starts."""
        if worker.name not in self._up and worker.running and f"{worker.name} ready." in worker.log_text():
            self._up.add(worker.name)
        return worker.running and worker.name in self._up

    def _note(self, event: str, fault: Fault, **more: Any) -> None:
        slot = {} if fault.kind.endswith("_store") else {"slot": fault.slot}
        self.scene.history.add(event, number=fault.number, kind=fault.kind, **slot, **more)

    def _alone(self, what: str, undo: Undo) -> Undo:
        """No other fault of its kind befalls `what` until this one is over."""
        self._busy.add(what)

        def free() -> None:
            undo()
            self._busy.discard(what)

        return free

    # --- processes

    def _kill_child(self, fault: Fault) -> Undo | None:
        return self._signal_child(fault, signal.SIGKILL)

    def _stop_child(self, fault: Fault) -> Undo | None:
        return self._signal_child(fault, signal.SIGSTOP)

    def _signal_child(self, fault: Fault, number: int) -> Undo | None:
        worker = self.scene.workers[fault.slot]
        children = worker.children() if self._is_up(worker) else []
        if not children or self._slot(fault) in self._busy:
            return None
        now = time.time()
        aimed = fault.draw < AIMED and stop_at_work(self.scene.history.path, children)
        pid = aimed or children[int(fault.draw * len(children))]
        self._note("fault", fault, pids=[pid], at=now, aimed=bool(aimed))
        _send(pid, number)
        if number == signal.SIGSTOP:
            return lambda: _send(pid, signal.SIGCONT)
        wait_for(lambda: not tree.alive(pid), message=f"child {pid} dies")
        return nothing

    def _kill_worker(self, fault: Fault) -> Undo | None:
        worker = self.scene.workers[fault.slot]
        if self._slot(fault) in self._busy:
            return None
        self._note("fault", fault, pids=worker.all_pids())
        worker.kill()
        return self._alone(self._slot(fault), lambda: self.scene.start_worker(fault.slot, wait=False))

    def _stop_worker(self, fault: Fault) -> Undo | None:
        worker = self.scene.workers[fault.slot]
        if self._slot(fault) in self._busy:
            return None
        self._note("fault", fault, pids=worker.all_pids())
        worker.suspend()
        return self._alone(self._slot(fault), worker.resume)

    def _replace_worker(self, fault: Fault) -> Undo | None:
        """As a deploy does: the old one ends what it has begun, and another starts beside it."""
        old = self.scene.workers[fault.slot]
        if self._slot(fault) in self._busy or not old.running:
            return None
        self._note("fault", fault, pids=[])
        old.begin_warm_stop()
        self.scene.start_worker(fault.slot, wait=False)
        return nothing

    def _kill_pump(self, fault: Fault) -> Undo | None:
        return self._signal_pump(fault, signal.SIGKILL)

    def _stop_pump(self, fault: Fault) -> Undo | None:
        return self._signal_pump(fault, signal.SIGSTOP)

    def _signal_pump(self, fault: Fault, number: int) -> Undo | None:
        """The pump beside a worker; half of the time it is the one that leads."""
        worker = self.scene.workers[fault.slot]
        pumps = worker.pumps() if self._is_up(worker) else []
        if not pumps:
            return None
        self._note("fault", fault, pids=pumps[:1])
        _send(pumps[0], number)
        return nothing if number == signal.SIGKILL else lambda: _send(pumps[0], signal.SIGCONT)

    @staticmethod
    def _slot(fault: Fault) -> str:
        return f"slot {fault.slot}"

    # --- the store

    def _kill_store(self, fault: Fault) -> Undo | None:
        return self._store(fault, self.scene.store.kill, self.scene.store.start)

    def _restart_store(self, fault: Fault) -> Undo | None:
        return self._store(fault, self.scene.store.stop, self.scene.store.start)

    def _hang_store(self, fault: Fault) -> Undo | None:
        return self._store(fault, self.scene.store.suspend, self.scene.store.resume)

    def _store(self, fault: Fault, do: Undo, undo: Undo) -> Undo | None:
        if "store" in self._busy:
            return None
        self._note("fault", fault)
        do()
        return self._alone("store", undo)

    # --- the way of one worker to the store

    def _cut(self, fault: Fault) -> Undo | None:
        return self._proxy(fault, Proxy.cut, undo=nothing)

    def _refuse(self, fault: Fault) -> Undo | None:
        return self._proxy(fault, Proxy.refuse)

    def _hold(self, fault: Fault) -> Undo | None:
        return self._proxy(fault, Proxy.hold)

    def _drop(self, fault: Fault) -> Undo | None:
        return self._proxy(fault, Proxy.drop)

    def _delay(self, fault: Fault) -> Undo | None:
        return self._proxy(fault, lambda proxy: proxy.delay(0.02 + 0.2 * fault.draw))

    def _lose_replies(self, fault: Fault) -> Undo | None:
        return self._proxy(fault, lambda proxy: proxy.lose_reply(b"EVALSHA", times=1 + int(fault.draw * 5)))

    def _proxy(self, fault: Fault, do: Callable[[Proxy], None], undo: Undo | None = None) -> Undo | None:
        proxy, name = self.scene.proxies[fault.slot], f"proxy {fault.slot}"
        if name in self._busy:
            return None
        self._note("fault", fault)
        do(proxy)
        return self._alone(name, proxy.heal) if undo is None else undo


def _send(pid: int, number: int) -> None:
    if tree.alive(pid):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, number)
