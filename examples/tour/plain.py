"""The same tasks as people write them by default: compare with `tasks.py`."""

from examples.tour import payments, stdlib
from examples.tour.app import FOLDER, SERVICE_URL, create_app

app = create_app()


@app.task(name="index", acks_late=True, reject_on_worker_lost=True)
def index(module: str, path: str) -> stdlib.Survey:
    """Survey one module and put it into the index."""
    survey = stdlib.survey(path)
    with stdlib.opened(FOLDER) as database:
        stdlib.write(database, module, survey)
    return survey


@app.task(
    name="charge",
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(payments.TooManyRequests,),
    retry_backoff=True,
)
def charge(order_id: str, amount: int) -> str:
    """Charge one order."""
    return payments.charge(SERVICE_URL, order_id, amount)
