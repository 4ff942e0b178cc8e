"""What a chord may still be told about a task that has ended."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.backends.redis import RedisBackend

from celery_patterns.core.outcome import is_counted
from celery_patterns.core.policy import Call
from tests.ground.servers import ValkeyServer


def part(backend: str, **request: Any) -> Any:
    """Return a call that is part 1 of a chord, over a result backend."""
    app = Celery(set_as_current=False, backend=backend)
    request = {"chord": {"task": "body"}, "group": "g", "group_index": 1, **request}
    seam: Any = SimpleNamespace(task=SimpleNamespace(backend=app.backend))
    return Call(seam=seam, args=(), kwargs={}, request=SimpleNamespace(**request))


def test_a_chord_that_leaves_out_what_it_has_counted_may_be_told_twice(valkey: ValkeyServer) -> None:
    """A part whose process was killed before it was counted would never be, and the chord not end."""
    if not hasattr(RedisBackend, "_chord_part_return_script"):
        pytest.skip("the chords of this Celery do not")
    assert is_counted(part(valkey.url(1))) is None


def test_an_older_chord_is_told_only_what_it_has_not_counted(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its body would run twice, if the second report comes while the last of the first ones is at work."""
    monkeypatch.delattr(RedisBackend, "_chord_part_return_script", raising=False)
    call = part(valkey.url(1))
    with valkey.client(1) as client:
        parts, size = (call.task.backend.get_key_for_group("g", name) for name in (".j", ".s"))
        client.set(size, 3)
        client.zadd(parts, {"another part": 0})
        assert is_counted(call) is False
        client.zadd(parts, {"this part": 1})
        assert is_counted(call) is True
        client.delete(parts, size)
        assert is_counted(call) is True, "the chord is over"


def test_nothing_is_told_where_nobody_knows(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy would be counted for another part."""
    monkeypatch.delattr(RedisBackend, "_chord_part_return_script", raising=False)
    assert is_counted(part("cache+memory://")) is True
    assert is_counted(part(valkey.url(1), chord=None)) is True
    assert is_counted(part(valkey.url(1), group_index=None)) is True
