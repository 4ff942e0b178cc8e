"""A guarded task that is acknowledged before it runs."""

from celery_patterns import PolicyTask
from tests.apps.witness import Witness
from tests.ground.app import ground_app

app = ground_app(__name__)


@app.task(base=PolicyTask, witness=Witness())
def guarded(n: int) -> int:
    """Does nothing that a kill could lose."""
    return n
