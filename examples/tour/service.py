"""A payments service, as its customers see one: a process of its own, reached over HTTP.

It writes each charge that it makes to a ledger, and honours the header `Idempotency-Key` as payment APIs do:
a request with a key that it knows is answered with the first charge and charges nothing. It takes so many
requests in any second and answers the others with 429 and `Retry-After`, as payment APIs do, too. One card
is always declined (402), and while a file called `outage` is there, nothing goes (503). It knows nothing else
about its callers, and does not notice when one of them dies in the middle of a request.
"""

import json
import sys
import threading
import time
from collections import deque
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from examples.tour.files import append

BANK_SECONDS = 0.05
REQUESTS_A_SECOND = 60
DECLINED_CARD = "4000-0002"


class Limit:
    """Takes so many requests in any second, wherever the second begins."""

    def __init__(self, refused: Path) -> None:
        self._refused = refused
        self._lock = threading.Lock()
        self._taken: deque[float] = deque(maxlen=REQUESTS_A_SECOND)

    def admits(self, order_id: str) -> bool:
        """Take a request, or write down that it was refused."""
        with self._lock:
            now = time.monotonic()
            if len(self._taken) == REQUESTS_A_SECOND and now - self._taken[0] < 1:
                append(self._refused, order=order_id)
                return False
            self._taken.append(now)
            return True


class Charges:
    """The charges made so far, by the key they were asked for with."""

    def __init__(self, ledger: Path, known: Path) -> None:
        self._ledger = ledger
        self._known = known
        self._lock = threading.Lock()
        self._by_key: dict[str, str] = {}
        self._count = 0

    def make(self, order_id: str, amount: int, key: str | None) -> str:
        """Charge, or answer with the charge that was made under this key before."""
        time.sleep(BANK_SECONDS)
        with self._lock:  # two requests with one key at the same time are one charge, too
            if key is not None and key in self._by_key:
                append(self._known, key=key)
                return self._by_key[key]
            self._count += 1
            charge_id = f"charge-{self._count:06}"
            append(self._ledger, charge=charge_id, order=order_id, amount=amount, key=key)
            if key is not None:
                self._by_key[key] = charge_id
            return charge_id


class Handler(BaseHTTPRequestHandler):
    """POST /charges, and nothing else."""

    charges: Charges
    limit: Limit
    outage: Path

    def do_POST(self) -> None:
        """Make a charge, or say why not."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.limit.admits(asked["order_id"]):
            self._answer(HTTPStatus.TOO_MANY_REQUESTS, {}, ("Retry-After", "1"))
        elif asked["card"] == DECLINED_CARD:
            self._answer(HTTPStatus.PAYMENT_REQUIRED, {})
        elif self.outage.exists():
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {})
        else:
            key = self.headers["Idempotency-Key"]
            charge_id = self.charges.make(asked["order_id"], asked["amount_cents"], key)
            self._answer(HTTPStatus.OK, {"charge_id": charge_id})

    def _answer(self, status: HTTPStatus, content: dict[str, str], *headers: tuple[str, str]) -> None:
        answer = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing; the ledger is the log."""


class Server(ThreadingHTTPServer):
    """Serves on a free port of this machine."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A caller was killed while it waited. The charge has been made all the same."""


def main(folder: Path) -> None:
    """Serve until told to stop; the first line of output is the address."""
    Handler.charges = Charges(folder / "ledger.jsonl", folder / "known.jsonl")
    Handler.limit = Limit(folder / "refused.jsonl")
    Handler.outage = folder / "outage"
    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
