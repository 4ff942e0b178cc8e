"""A world around the room's scripts: a broker, workers and pumps as plain values, and where each task is."""

from collections import Counter
from dataclasses import dataclass, field

from celery_patterns.core.parking import Spot
from celery_patterns.core.store import Store
from celery_patterns.policies.rate_limits.buckets import Demand, as_text
from celery_patterns.waiting.answers import Parked, Release, Started, Ticket, Turn, Waits
from celery_patterns.waiting.parcel import Parcel
from celery_patterns.waiting.room import Room


@dataclass(frozen=True)
class Message:
    """One message in the broker."""

    task: int
    ticket: str = ""
    place: str = ""
    revoked: bool = False


@dataclass
class Task:
    """What a task demands, and how it goes on."""

    demands: list[Demand]
    rank: int = 0
    turn: str = ""
    attempt: int = 0
    starts: list[int] = field(default_factory=list)
    revoked: bool = False
    buried: bool = False

    @property
    def is_done(self) -> bool:
        return bool(self.starts) or self.buried


class World:
    """One app: its broker holds messages in no order, since any order may happen."""

    def __init__(self, store: Store) -> None:
        self.room = Room(store)
        self.store = store
        self.broker: list[Message] = []
        self.tasks: list[Task] = []
        self.taken: dict[str, list[Release]] = {}
        self.copies = 0

    def publish(self, demands: list[Demand], *, gate: bool, rank: int = 0, turn: str = "") -> Task:
        """A producer sends a task."""
        self.tasks.append(Task(demands, rank, turn))
        number = len(self.tasks) - 1
        found = self._enter(number, gate=True) if gate else None
        if not isinstance(found, Parked):
            self.broker.append(Message(number, ticket=found.id if isinstance(found, Ticket) else ""))
        return self.tasks[number]

    def deliver(self, index: int, *, dies: bool = False) -> Started | Waits | None:
        """A worker gets a message; it may die after it has parked its task, before it acknowledges."""
        message = self.broker.pop(index % len(self.broker))
        task = self.tasks[message.task]
        if message.revoked:
            task.buried = True
            return None
        answer = self.room.start(as_text(task.demands), message.ticket)
        if isinstance(answer, Started):
            task.starts.append(round(answer.at * 1e6))
        elif self._enter(message.task, place=message.place) is None:
            self.broker.append(message)  # a countdown
        if dies:
            self.broker.append(message)
            self.copies += 1
        return answer

    def pump(self, name: str, *, dies: str = "") -> Turn:
        """A pump's turn; it may die with what it was told, or with what it has published."""
        turn = self.room.release(name, self.taken.pop(name, ()), 10)
        if dies != "before":
            for release in turn.releases:
                ticket = release.ticket if release.demands else ""
                self.broker.append(
                    Message(int(release.id.partition("#")[0]), ticket, release.place, release.revoked)
                )
            if dies:
                self.copies += len(turn.releases)
            else:
                self.taken[name] = list(turn.releases)
        return turn

    def elect(self, name: str) -> None:
        """The leader's lease runs out, and another one leads."""
        self.store.client.delete(self.room.key("room-leader"))
        self.copies += sum(len(taken) for other, taken in self.taken.items() if other != name)
        self.taken = {name: self.taken.get(name, [])}

    def cancel(self, number: int) -> None:
        """Somebody revokes a task."""
        if self.room.cancel([str(number)]):
            self.tasks[number].revoked = True

    def waiting(self) -> Counter[int]:
        """The tasks in the room: waiting, or released and not confirmed."""
        found: Counter[int] = Counter()
        for key in self.store.client.scan_iter(match=self.room.key("room-entry", "*").replace("{", "\\{")):
            found[int(key.decode().rpartition(":")[2].partition("#")[0])] += 1
        return found

    def lost(self) -> list[int]:
        """Tasks that are nowhere, and have not run."""
        waiting, underway = self.waiting(), {message.task for message in self.broker}
        return [
            number
            for number, task in enumerate(self.tasks)
            if not task.is_done and number not in underway and not waiting[number]
        ]

    def _enter(self, number: int, *, gate: bool = False, place: str = "") -> Ticket | Parked | None:
        task = self.tasks[number]
        return self.room.enter(
            Parcel(body=b"", content_type="", content_encoding="", headers={"id": str(number)}),
            id=str(number),
            spot=Spot(demands=as_text(task.demands), turn=task.turn),
            place=place,
            rank=task.rank,
            attempt=task.attempt,
            gate=gate,
        )
