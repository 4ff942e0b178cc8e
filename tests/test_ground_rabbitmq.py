"""The RabbitMQ node of the session, and one that comes and goes."""

import socket

import kombu
import pytest

from tests import conftest
from tests.ground import rabbitmq, tree
from tests.ground.ports import LOCALHOST
from tests.ground.rabbitmq import RabbitMissing, RabbitNode


def _put(url):
    with kombu.Connection(url) as connection, connection.SimpleQueue("letters") as queue:
        queue.put("hello")


def _size(url):
    with kombu.Connection(url) as connection, connection.SimpleQueue("letters") as queue:
        return queue.qsize()


def test_each_test_has_queues_of_its_own(rabbitmq_node, rabbitmq_url):
    """A test would consume what another has left."""
    _put(rabbitmq_url)

    other = rabbitmq_node.new_vhost()

    assert (_size(rabbitmq_url), _size(other)) == (1, 0)


def test_there_are_always_more_virtual_hosts(rabbitmq_node):
    """The suite would run out of them after some tests."""
    urls = [rabbitmq_node.new_vhost() for _ in range(20)]

    assert len(set(urls)) == 20
    for url in urls[-2:]:
        _put(url)


@pytest.mark.rabbitmq
@pytest.mark.chaos
def test_node_restarts_and_goes_away(rabbitmq_node, tmp_path):
    """An outage of the broker could not be tested, or Erlang's helpers would stay behind."""
    node = RabbitNode(tmp_path / "node")
    node.start()
    assert node.port != rabbitmq_node.port
    url = node.new_vhost()
    _put(url)

    node.restart()

    assert _size(url) == 1
    pids = node.pids()
    assert len(pids) >= 3  # the port mapper, the virtual machine, its helper
    node.stop()
    assert not any(map(tree.alive, pids))
    for port in node.ports():
        with socket.socket() as probe:
            assert probe.connect_ex((LOCALHOST, port)) != 0
    assert rabbitmq_node.running


@pytest.fixture
def _rabbit_is_missing(monkeypatch):
    def find(program):
        raise RabbitMissing(f"no {program} found")

    monkeypatch.setattr(rabbitmq, "find", find)


@pytest.mark.usefixtures("_rabbit_is_missing")
@pytest.mark.parametrize(("required", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_missing_rabbitmq(monkeypatch, tmp_path_factory, required, outcome):
    """The continuous integration would skip all tests on RabbitMQ without a word."""
    monkeypatch.setenv(conftest.REQUIRE_RABBITMQ, required)
    with pytest.raises(outcome, match="no rabbitmq-server found"):
        next(conftest.start_rabbitmq(tmp_path_factory))
