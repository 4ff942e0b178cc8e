"""Valkey servers that can be stopped, killed and suspended, and the cluster."""

import pytest
import redis

SCRIPT = "redis.call('INCR', KEYS[1]) return redis.call('GET', KEYS[1])"


def test_server_begins_empty(valkey):
    """A test would see what another has left (see the next one)."""
    with valkey.client() as client:
        assert client.dbsize() == 0
        client.set("left", 1)


def test_server_is_emptied_between_tests(valkey):
    """A test would see what the one before has left."""
    with valkey.client() as client:
        assert client.dbsize() == 0


def test_stopped_server_is_down_and_comes_back_on_its_port(valkey):
    """Tests of an outage would test nothing, or never get their server back."""
    with valkey.client() as client:
        client.set("kept", 1)
        valkey.stop()
        with pytest.raises(redis.ConnectionError):
            client.ping()

        valkey.start()

        assert client.get("kept") is None


def test_server_is_up_again_for_the_next_test(valkey):
    """One test that stops the server would fail all that follow."""
    assert valkey.running
    valkey.suspend()  # for the one after this


def test_server_is_awake_again_for_the_next_test(valkey):
    """One test that suspends the server would hang all that follow."""
    with valkey.client() as client:
        assert client.ping()


def test_durable_server_survives_a_kill(start_valkey):
    """Tests of a crash of the store would mix up lost state with our mistakes."""
    server = start_valkey(durable=True)
    with server.client() as client:
        client.set("kept", "yes")

        server.kill()
        server.start()

        assert client.get("kept") == b"yes"


def test_suspended_server_answers_late(valkey):
    """Time-outs could not be tested."""
    with valkey.client(socket_timeout=0.1) as client:
        client.ping()
        valkey.suspend()
        with pytest.raises(redis.TimeoutError):
            client.ping()

        valkey.resume()

        assert client.ping()


def test_every_node_of_the_cluster_serves_scripts(cluster):
    """Scripts would be tested on one node, and their NOSCRIPT on none."""
    keys = {cluster.node_of(f"key-{number}").port: f"key-{number}" for number in range(50)}
    assert sorted(keys) == sorted(node.port for node in cluster.nodes)

    with cluster.client() as client:
        for node in cluster.nodes:
            with node.client() as direct:
                sha = direct.script_load(SCRIPT)
            assert client.evalsha(sha, 1, keys[node.port]) == b"1"


def test_cluster_is_emptied_between_tests(cluster):
    """A test would see the keys and the scripts of the one before."""
    for node in cluster.nodes:
        with node.client() as client:
            assert client.dbsize() == 0
            with pytest.raises(redis.exceptions.NoScriptError):
                client.evalsha("0" * 40, 0)


def test_stores_to_choose_from(every_store_url):
    """A test body would not run on each kind of store."""
    assert every_store_url.split("://")[0] in {"memory", "redis", "redis+cluster"}
