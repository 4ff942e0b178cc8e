"""Scripts: found by digest, sent whole to a server that does not know them, on the server's clock."""

import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from celery.signals import worker_init

from celery_patterns.core import startup as _startup  # noqa: F401 - it listens to a worker's start
from celery_patterns.core.script import Script, prelude
from celery_patterns.core.store import Store
from celery_patterns.testing import MovableClock
from tests.ground.servers import ValkeyCluster, ValkeyServer

NAMES = sorted(one.name.removesuffix(".lua") for one in files("celery_patterns").joinpath("lua").iterdir())
lapse = Script("lease_lapse")


class ClockReader(Script):
    """A script that tells the time."""

    body = "return string.format('%.0f', now_us())"  # type: ignore[assignment]


def calls_of(client: Any, command: str) -> int:
    stats: dict[str, Any] = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_a_script_runs_again_after_the_server_forgot_it(every_store_url: str) -> None:
    """A restart of Redis, or somebody's SCRIPT FLUSH, would fail every task from then on."""
    store = Store(every_store_url)
    assert lapse(store, ["cp:{a}"], ["owner", 0]) == b"lost"
    for _ in range(3):
        store.client.script_flush()
        assert lapse(store, ["cp:{a}"], ["owner", 0]) == b"lost"
    store.close()


def test_each_node_of_a_cluster_learns_a_script_by_itself(cluster: ValkeyCluster) -> None:
    """A node that joined, or was restarted, would refuse every call for its keys."""
    store = Store(cluster.url())
    keys: dict[int, str] = {}
    for key in (f"cp:{{{number}}}" for number in range(100)):
        keys.setdefault(store.client.get_node_from_key(key).port, key)
    assert len(keys) == len(cluster.nodes)
    for key in keys.values():
        assert lapse(store, [key], ["owner", 0]) == b"lost"
    with cluster.nodes[1].client() as client:
        client.script_flush()
    for key in keys.values():
        assert lapse(store, [key], ["owner", 0]) == b"lost"
    store.close()


def test_a_known_script_costs_its_digest_only(valkey: ValkeyServer) -> None:
    """Each call would carry the whole text over the wire."""
    store = Store(valkey.url())
    with valkey.client() as client:
        client.config_resetstat()
        for _ in range(10):
            lapse(store, ["cp:{a}"], ["owner", 0])
        assert (calls_of(client, "eval"), calls_of(client, "evalsha")) == (1, 10)
    store.close()


@pytest.mark.parametrize("name", NAMES)
def test_every_script_is_accepted_by_the_server(name: str, valkey: ValkeyServer) -> None:
    """A mistake in a rare script would show on the day when it is needed."""
    with valkey.client() as client:
        assert client.script_load(Script(name).text())
        assert client.script_load(Script(name).text("cp:clock"))


@pytest.mark.parametrize("name", NAMES)
def test_every_script_opens_with_its_contract_and_stays_portable(name: str) -> None:
    """Whoever calls it would have to guess; or a supported server would lack what it uses."""
    body = Script(name).body
    contract = re.match(r"(?:--.*\n)+", body)
    assert contract
    assert all(word in contract[0] for word in ("KEYS[1]", "ARGV", "Returns"))
    assert not re.search(r"\b(cmsgpack|struct|bit|sha1hex|os)\.", re.sub(r"--.*", "", body))


def test_scripts_go_by_the_servers_clock(store_url: str) -> None:
    """Two workers whose clocks differ would disagree about a lease."""
    store = Store(store_url)
    before = store.now()
    read = int(ClockReader("clock")(store, ["cp:{a}"], [])) / 1e6
    assert before <= read <= store.now()
    assert "TIME" in prelude(None)
    assert "GET" not in prelude(None)


def test_scripts_obey_a_movable_clock_and_only_that_of_their_store(store_url: str) -> None:
    """Tests of what happens after a day would take a day, or move the time of other tests."""
    moved, other, read = Store(store_url, "moved"), Store(store_url, "other"), ClockReader("clock")
    clock = MovableClock(moved)
    clock.advance(3600)
    clock.advance(0.5)
    before = int(read(other, ["other:{a}"], []))
    ahead = int(read(moved, ["moved:{a}"], []))
    after = int(read(other, ["other:{a}"], []))
    assert before <= ahead - 3600.5e6 <= after
    assert other.now() <= moved.now() - 3600.5 <= other.now()


def test_numbers_reach_the_script_whole(store_url: str, wait_for: Callable[..., Any]) -> None:
    """Microseconds since 1970 have 16 digits: a fence that is rounded would not increase."""
    store = Store(store_url)
    read = ClockReader("clock")
    first = int(read(store, ["cp:{a}"], []))
    assert len(str(first)) == 16
    assert wait_for(lambda: int(read(store, ["cp:{a}"], [])) > first)


def test_a_worker_reads_its_scripts_before_it_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first task of each of its processes would read them, and be late by as much."""
    script = Script("lease_renew")
    worker_init.send(sender=None)
    monkeypatch.setattr("celery_patterns.core.script.files", lambda _: pytest.fail("it was read again"))
    assert script.text().startswith("local function now_us")
    assert script.digest(None)
