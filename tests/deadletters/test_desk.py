"""What operators see and decide, on fakeredis, a real server and a cluster."""

from typing import Any

import pytest
from celery import Celery

from celery_patterns.deadletters import DeadLetters, Filter, move_to_dlq
from celery_patterns.errors import DeadLetterError, DeadLetterTooLarge
from celery_patterns.testing import MovableClock
from tests.deadletters.letters import die


def ids(desk: DeadLetters, **wanted: Any) -> list[str]:
    return [one.id for one in desk.list(Filter(**wanted), limit=100).entries]


def test_a_death_that_is_told_twice_is_one_entry(app: Celery, desk: DeadLetters) -> None:
    """A hard limit, which Celery reports twice, would count as two deaths."""
    assert die(app, "a", by="a/1").deaths == 1
    assert die(app, "a", by="a/1").deaths == 0
    assert die(app, "a", by="a/2").deaths == 2
    assert [(one.id, one.deaths) for one in desk.list().entries] == [("a", 2)]


def test_pages_lead_through_all_entries_the_latest_first(app: Celery, desk: DeadLetters) -> None:
    """An entry would be shown twice, or on no page."""
    for at in range(7):
        die(app, f"e{at}")
    seen, before = [], None
    while True:
        page = desk.list(limit=3, before=before)
        seen += [one.id for one in page.entries]
        before = page.next
        if before is None:
            break
    assert seen == [f"e{at}" for at in reversed(range(7))]


def test_filters_tell_entries_apart(app: Celery, desk: DeadLetters, clock: MovableClock) -> None:
    """An operator would replay what another team has to decide about."""
    die(app, "old", task="shop.mail", error=ValueError("x"), queue="mail")
    clock.advance(3600)
    die(app, "new")
    middle = desk.store.now() - 60
    assert ids(desk, task="shop.m*") == ["old"]
    assert ids(desk, exception="ValueError") == ["old"]
    assert ids(desk, queue="mail") == ["old"]
    assert ids(desk, since=middle) == ["new"]
    assert ids(desk, until=middle) == ["old"]
    assert ids(desk, group=desk.get("new").cause[:6]) == ["new"]
    assert ids(desk, ids=("new", "gone", "new")) == ["new"]
    assert ids(desk, ids=("new",), task="shop.mail") == []
    assert ids(desk, state=None) == ["new", "old"]
    assert desk.query.count(Filter(task="shop.*")) == 2
    with pytest.raises(DeadLetterError, match="no state 'closed'"):
        Filter(state="closed")


def test_groups_count_causes(app: Celery, desk: DeadLetters) -> None:
    """A thousand failures of one outage would look like a thousand problems."""
    for at in range(5):
        die(app, f"net{at}")
    die(app, "bug", error=KeyError("colour"))
    found = desk.groups()
    assert [(one.exception, one.count) for one in found] == [("ConnectionError", 5), ("KeyError", 1)]
    assert found[1].message == "'colour'"
    desk.archive(Filter(group=found[0].id))
    assert [one.exception for one in desk.groups()] == ["KeyError"]
    assert [one.count for one in desk.groups(Filter(state="archived"))] == [5]


def test_decisions_lead_only_where_they_may(app: Celery, desk: DeadLetters) -> None:
    """An archived entry would be replayed with the open ones, or a deleted one stay in an index."""
    for one in "abc":
        die(app, one)
    assert desk.archive(Filter(ids=("a",)), "known") == 1
    assert desk.archive(Filter(ids=("a",), state=None)) == 0
    assert desk.get("a").history[-1].words == "known"
    assert desk.resolve(Filter(ids=("b",))) == 1
    assert desk.unarchive(Filter(state=None)) == 1
    assert desk.counts() == {"open": 2, "quarantined": 0, "replaying": 0, "resolved": 1, "archived": 0}
    assert desk.purge(Filter(state=None)) == 3
    assert not any(desk.counts().values())
    keys = [key for key in desk.store.client.scan_iter("cp:dead:*") if not key.endswith(b":last")]
    assert keys == [], "nothing is left behind"


def test_retention_deletes_what_has_ended_and_nothing_else(
    app: Celery, desk: DeadLetters, clock: MovableClock
) -> None:
    """An open dead letter would vanish behind everybody's back, or closed ones fill the store."""
    for one in ("open", "closed", "later"):
        die(app, one, retention=60)
    desk.resolve(Filter(ids=("closed",)))
    clock.advance(3600)
    desk.archive(Filter(ids=("later",)))
    assert ids(desk, state=None) == ["later", "open"]


def test_an_edit_changes_what_is_replayed_and_keeps_what_died(app: Celery, desk: DeadLetters) -> None:
    """A corrected address would be lost, or the evidence of the wrong one."""
    die(app, "a", kwargs={"order": "a", "amount": 1})
    edited = desk.edit("a", kwargs={"amount": 2})
    assert edited.letter.decoded(app)[1] == {"order": "a", "amount": 2}
    assert b'"amount": 1' in (edited.original or b"")
    assert edited.history[-1].what == "edited"
    assert "'amount': 2" in edited.letter.headers["kwargsrepr"]
    desk.resolve(Filter(ids=("a",)))
    with pytest.raises(DeadLetterError, match="it is resolved"):
        desk.edit("a", kwargs={"amount": 3})
    with pytest.raises(DeadLetterError, match="no dead letter 'b'"):
        desk.edit("b", kwargs={})


def test_code_may_move_a_call_itself(app: Celery, desk: DeadLetters) -> None:
    """Code that catches its failures would have nowhere to put them."""

    @app.task(name="shop.mail")
    def mail(to: str) -> None: ...

    first = move_to_dlq(mail, {"to": "a@example.org"}, ValueError("bounced"))
    second = move_to_dlq("shop.mail", ["b@example.org"], ValueError("bounced"), app=app)
    entries = {one.id: one for one in desk.list().entries}
    assert set(entries) == {first, second}
    assert entries[first].letter.decoded(app)[:2] == ([], {"to": "a@example.org"})
    assert entries[second].letter.decoded(app)[:2] == (["b@example.org"], {})
    assert entries[first].source == "moved"
    assert entries[first].letter.routing_key == "celery"


def test_a_body_that_no_store_takes_is_refused(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a message would be stored as if it were all of it."""
    monkeypatch.setattr("celery_patterns.deadletters.store.LARGEST_BODY", 10)
    with pytest.raises(DeadLetterTooLarge):
        die(app, "a")


def test_a_large_body_is_kept_whole(app: Celery, desk: DeadLetters) -> None:
    """A large payload would be cut."""
    text = "x" * 3_000_000
    die(app, "a", kwargs={"text": text})
    assert desk.get("a").letter.decoded(app)[1] == {"text": text}
