"""The work of the other jobs: charge orders, and renew them, at the payments service."""

import csv
import json
import random
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from examples.tour.service import DECLINED_CARD

ORDERS = Path(__file__).with_name("orders.csv")
GOOD_CARD = "4000-0001"


def orders() -> dict[str, int]:
    """The amount of each order, in cents."""
    with ORDERS.open(newline="") as file:
        return {row["order_id"]: int(row["amount_cents"]) for row in csv.DictReader(file)}


def renewals(limit: int | None) -> dict[str, tuple[int, str]]:
    """The amount of each renewal and its card: every third order, and every ninth of these is declined."""
    renewed = list(orders().items())[:limit:3]
    return {
        order_id.replace("order", "renewal"): (amount, DECLINED_CARD if at % 9 == 4 else GOOD_CARD)
        for at, (order_id, amount) in enumerate(renewed)
    }


class TooManyRequests(Exception):
    """The service takes no more for now.

    Args:
        retry_after: What it says in its header of that name.
    """

    def __init__(self, retry_after: str) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class CardDeclined(Exception):
    """The customer's bank says no, and will say so again."""


class ServiceDown(Exception):
    """Nothing goes at the service. It will be back, nobody knows when."""


def charge(service: str, order_id: str, amount: int, *, card: str = GOOD_CARD, key: str | None = None) -> str:
    """Ask the service for a charge and return the charge's own number.

    Raises:
        TooManyRequests: The service takes no more for now.
        CardDeclined: Another card is needed.
        ServiceDown: It takes nothing at all.
    """
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Idempotency-Key"] = key
    body = json.dumps({"order_id": order_id, "amount_cents": amount, "card": card}).encode()
    try:
        with urlopen(Request(f"{service}/charges", body, headers), timeout=30) as response:
            return str(json.load(response)["charge_id"])
    except HTTPError as error:
        if error.code == HTTPStatus.TOO_MANY_REQUESTS:
            raise TooManyRequests(error.headers["Retry-After"]) from error
        if error.code == HTTPStatus.PAYMENT_REQUIRED:
            raise CardDeclined(f"card {card} was declined") from error
        if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
            raise ServiceDown("503 Service Unavailable") from error
        raise


def make_orders(count: int = 300) -> None:
    """Write the file of orders again; it comes out the same each time."""
    rng = random.Random(300)
    with ORDERS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["order_id", "customer", "amount_cents", "currency"])
        for number in range(1, count + 1):
            customer, amount = rng.randint(1, 120), rng.randint(199, 49_999)
            writer.writerow([f"order-{number:04}", f"customer-{customer:03}", amount, "EUR"])


if __name__ == "__main__":
    make_orders()
