"""Free TCP ports that stay free while a server is stopped and started again."""

import os
import random
import socket

LOCALHOST = "127.0.0.1"

# Below the range from which Linux and macOS serve outgoing connections: a port from that range could be
# taken by any client while its server is down, and the restart would fail.
_RANGE = range(16_000, 32_000)
# Processes that share the tests share no port, also not one whose server is stopped for a moment.
_ours = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_OURS = _RANGE[_ours :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on and that this process has not been given before."""
    while True:
        port = random.choice(_OURS)
        if port not in _given and _can_bind(port):
            _given.add(port)
            return port


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
    return True
