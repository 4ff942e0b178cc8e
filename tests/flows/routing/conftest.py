"""Apps that publish into a list: what Celery would hand to its producer, after routing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery

from celery_patterns import Event, subscribe

REDIS = "redis://127.0.0.1:1/0"
RABBITMQ = "amqp://127.0.0.1:1//"


@dataclass(frozen=True)
class Sent:
    """One message, as it would have gone to the broker."""

    task: str
    headers: dict[str, Any]
    options: dict[str, Any]

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self.options["queue"].name

    @property
    def priority(self) -> int | None:
        """Its number, if it has one."""
        return self.options.get("priority")


@dataclass
class Outbox:
    """What an app has published, in order."""

    messages: list[Sent] = field(default_factory=list)

    @property
    def last(self) -> Sent:
        """The newest message."""
        return self.messages[-1]

    def capture(self, app: Celery) -> None:
        """Have `app` publish here. Everything before the wire is Celery's own doing."""

        def send(producer: Any, name: str, message: Any, headers: Any = None, **options: Any) -> None:
            self.messages.append(Sent(name, headers or {}, options))

        vars(app.amqp)["send_task_message"] = send


MakeApp = Callable[..., Celery]


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """`make_app(router, broker=REDIS)`: an app of its own, with a few tasks and an outbox."""
    apps = []

    def make(*routers: Any, broker: str = REDIS, **conf: Any) -> Celery:
        app = Celery("proj", broker=broker, set_as_current=False, fixups=[])
        app.conf.update(task_routes=list(routers), task_ignore_result=True, **conf)
        app.outbox = Outbox()
        _add_tasks(app)
        app.outbox.capture(app)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


def _add_tasks(app: Celery) -> None:
    @app.task(shared=False, name="proj.charge")
    def charge(order: Any, amount: int = 1, urgent: bool = False) -> None: ...

    @app.task(shared=False, name="proj.export")
    def export(tenant: str, **filters: Any) -> None: ...

    @app.task(shared=False, name="proj.reports.daily")
    def daily() -> None: ...

    @app.task(shared=False, name="proj.pinned", queue="pinned")
    def pinned() -> None: ...

    @app.task(shared=False, name="proj.method", bind=True)
    def method(self: Any, order: Any) -> None: ...


@pytest.fixture(params=[REDIS, RABBITMQ], ids=["redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """A broker that nobody connects to: routing must not need one."""
    return request.param


@pytest.fixture
def events() -> Iterator[list[Event]]:
    """The events of this process."""
    heard: list[Event] = []
    stop = subscribe(heard.append)
    yield heard
    stop()
