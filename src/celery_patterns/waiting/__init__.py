"""The waiting room: what must wait does not sit in a worker.

``room.py`` has the operations on the room, ``parcel.py`` what waits in it, ``parking.py`` and ``gate.py`` how
calls come in, ``pump.py`` what publishes them again, ``helper.py`` and ``worker.py`` how each worker comes
to have a pump.
"""

from importlib import import_module
from typing import Any

from celery.signals import celeryd_after_setup

from celery_patterns.core.parking import open_room
from celery_patterns.waiting.gate import book_groups_in_chunks
from celery_patterns.waiting.parking import WaitingRoom

open_room(WaitingRoom())
book_groups_in_chunks()


@celeryd_after_setup.connect
def _open_beside(instance: Any, **_: Any) -> None:
    import_module("celery_patterns.waiting.worker").open_beside(instance)
