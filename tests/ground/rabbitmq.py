"""A RabbitMQ node of the test session's own, beside any that the machine may run."""

import json
import os
import shutil
import subprocess
import uuid
from itertools import count
from pathlib import Path

import kombu

from tests.ground import tree
from tests.ground.ports import LOCALHOST, free_port
from tests.ground.processes import Process
from tests.ground.waiting import wait_for

_USER = "ground"
_VHOSTS_AT_ONCE = 16
# Debian's command in PATH changes the user and the home directory; the script behind it does neither.
_SCRIPTS = [Path("/usr/lib/rabbitmq/bin"), *Path("/usr/lib/rabbitmq/lib").glob("*/sbin")]


class RabbitMissing(Exception):
    """RabbitMQ is not installed on this machine."""


def find(program: str) -> str:
    """Return the path of a program of RabbitMQ or Erlang.

    Raises:
        RabbitMissing: there is none.
    """
    path = os.pathsep.join([*map(str, _SCRIPTS), os.environ.get("PATH", os.defpath)])
    found = shutil.which(program, path=path)
    if found is None:
        raise RabbitMissing(f"no {program} found: install RabbitMQ (Debian: apt-get install rabbitmq-server)")
    return found


class RabbitNode:
    """One node with its own name, ports, port mapper, cookie and directories; no plugins.

    Each test takes a virtual host of its own (`new_vhost`), so that no test sees another's queues.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.name = f"ground-{uuid.uuid4().hex[:8]}@localhost"
        self._epmd_port = free_port()
        self._dist_port = free_port()
        self._processes: list[Process] = []
        self._vhosts: list[str] = []
        self._vhost_numbers = count()

    @property
    def running(self) -> bool:
        """Tell whether the node's processes run."""
        return bool(self._processes) and all(process.running for process in self._processes)

    def pids(self) -> list[int]:
        """Return all processes of the node: the port mapper, the virtual machine and its helpers."""
        return [pid for process in self._processes for pid in tree.family(process.pid)]

    def ports(self) -> list[int]:
        """Return the ports on which the node listens: AMQP, Erlang's distribution, the port mapper."""
        return [self.port, self._dist_port, self._epmd_port]

    def start(self) -> None:
        """Start the node, if it does not run, and wait until it takes connections.

        Raises:
            RabbitMissing: RabbitMQ or Erlang is not installed.
        """
        if self.running:
            return
        server, epmd = find("rabbitmq-server"), find("epmd")
        self._prepare()
        # The port mapper would otherwise be started by the node as a daemon, and outlive it.
        self._processes = [
            self._spawn([epmd, "-port", str(self._epmd_port), "-address", LOCALHOST], "epmd"),
            self._spawn([server], "server"),
        ]
        wait_for(
            lambda: not self.running or self._takes_connections(),
            timeout=60,
            every=0.1,
            message=self.log_tail,
        )
        assert self.running, self.log_tail()

    def stop(self) -> None:
        """Shut the node down in order; it can be started again with its durable queues."""
        for process in reversed(self._processes):
            process.end(timeout=30)

    def restart(self) -> None:
        """Stop the node and start it again on the same port."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill the node and its port mapper (SIGKILL)."""
        for process in reversed(self._processes):
            process.kill()

    def remove(self) -> None:
        """Kill the node and delete its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def new_vhost(self) -> str:
        """Return the URL of a virtual host that nobody has used."""
        if not self._vhosts:
            self.ctl("import_definitions", str(self._define_vhosts()))
        return self.url(self._vhosts.pop(0))

    def url(self, vhost: str) -> str:
        """Return the URL of a virtual host."""
        return f"amqp://{_USER}:{_USER}@{LOCALHOST}:{self.port}/{vhost}"

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on this node and return what it prints."""
        command = [find("rabbitmqctl"), "--quiet", "--node", self.name, *arguments]
        done = subprocess.run(
            command, env=self._env(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def log_tail(self) -> str:
        """Return the end of the logs, for messages."""
        return "\n".join(process.log_tail() for process in self._processes)

    def _spawn(self, command: list[str], name: str) -> Process:
        log = self.directory / f"{name}.log"
        return Process(command, log=log, env=self._env(), cwd=self.directory)

    def _prepare(self) -> None:
        if self.directory.exists():
            return
        self.directory.mkdir(parents=True)
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(uuid.uuid4().hex)
        cookie.chmod(0o400)
        (self.directory / "enabled_plugins").write_text("[].\n")
        settings = {
            "listeners.tcp.default": f"{LOCALHOST}:{self.port}",
            "disk_free_limit.absolute": "1MB",  # a small disk would otherwise block every publisher
            "load_definitions": self._define_vhosts(),
        }
        lines = [f"{key} = {value}\n" for key, value in settings.items()]
        (self.directory / "rabbitmq.conf").write_text("".join(lines))

    def _define_vhosts(self) -> Path:
        """Write a file that defines some more virtual hosts, and the user that may use them."""
        self._vhosts = [f"test-{next(self._vhost_numbers)}" for _ in range(_VHOSTS_AT_ONCE)]
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [{"name": _USER, "password": _USER, "tags": "administrator"}],
            "vhosts": [{"name": name} for name in self._vhosts],
            "permissions": [{"user": _USER, "vhost": name, **everything} for name in self._vhosts],
        }
        path = self.directory / "definitions.json"
        path.write_text(json.dumps(definitions))
        return path

    def _takes_connections(self) -> bool:
        with kombu.Connection(self.url(self._vhosts[0]), connect_timeout=5) as connection:
            try:
                connection.connect()
            except connection.recoverable_connection_errors:
                return False
        return True

    def _env(self) -> dict[str, str]:
        """Return a whole environment, so that nothing of the machine's own node gets in."""
        here = str(self.directory)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": here,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_CONF_ENV_FILE": f"{here}/none",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": here,
            "RABBITMQ_MNESIA_BASE": f"{here}/data",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
