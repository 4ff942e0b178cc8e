"""The operations on the room, one at a time."""

import pytest

from celery_patterns.core.parking import Spot
from celery_patterns.core.store import Store
from celery_patterns.policies.rate_limits.buckets import Bucket, Demand, as_text, close
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.policies.rate_limits.steering import RateLimitManager
from celery_patterns.waiting.answers import Parked, Release, Started, Ticket, Turn, Waits
from celery_patterns.waiting.parcel import Parcel
from celery_patterns.waiting.room import Room
from celery_patterns.waiting.stamps import Stamps
from tests.policies.rate_limits.frozen import FrozenClock

ONE = as_text([Demand(Bucket("one"), Rate.of("1/s"), 1, 1, strict=False)])
FIVE = as_text([Demand(Bucket("five"), Rate.of("1/s"), 5, 1, strict=False)])
BOTH = as_text(
    [
        Demand(Bucket("one"), Rate.of("1/s"), 1, 1, strict=False),
        Demand(Bucket("five"), Rate.of("1/s"), 5, 2, strict=False),
    ]
)


@pytest.fixture
def room(store: Store, frozen: FrozenClock) -> Room:
    room = Room(store)
    assert room.release("pump", (), 0).leads
    store.client.persist(room.key("room-leader"))  # until it looks again, however slow the machine is
    return room


def parcel(name: str = "x") -> Parcel:
    return Parcel(body=b"\xff\x00", content_type="a/b", content_encoding="binary", headers={"id": name})


def park(room: Room, name: str, demands: str = ONE, **how: object) -> Parked | Ticket | None:
    spot = {key: how.pop(key) for key in ("line", "turn", "patience") if key in how}
    return room.enter(parcel(name), id=name, spot=Spot(demands=demands, **spot), **how)


def ids(turn: Turn) -> list[str]:
    return [one.id for one in turn.releases]


def look(room: Room, confirmed: tuple[Release, ...] | list[Release] = ()) -> Turn:
    return room.release("pump", confirmed, 100)


def test_nothing_is_parked_where_no_pump_lives(store: Store) -> None:
    """A task would wait for somebody to release it who never comes."""
    assert park(Room(store), "a") is None
    assert Room(store).enter(parcel(), id="a", spot=Spot(demands=ONE), gate=True) is None
    assert not list(store.client.scan_iter())


def test_a_message_comes_back_byte_for_byte(room: Room) -> None:
    """A task would run with other arguments, or without its chord."""
    park(room, "a")
    (release,) = look(room).releases
    assert Parcel.of_stored(release.head, release.body) == parcel("a")


def test_a_ticket_counts_as_spent(room: Room, frozen: FrozenClock) -> None:
    """A worker that is slow to start would make a burst when it goes on."""
    for name in "abc":
        park(room, name)
    assert ids(look(room)) == ["a"]
    assert ids(look(room)) == ["a"], "nobody confirmed it"
    turn = look(room)
    assert ids(look(room, turn.releases)) == []
    frozen.now += 400_000
    assert ids(look(room)) == []


def test_a_lapsed_ticket_makes_room(room: Room, frozen: FrozenClock) -> None:
    """A worker that died with a ticket would stop its limit for ever."""
    park(room, "a")
    park(room, "b")
    turn = look(room)
    assert look(room, turn.releases).wait < 1
    frozen.now += 500_000
    assert ids(look(room)) == ["b"]


def test_a_start_turns_the_ticket_into_a_token(room: Room, frozen: FrozenClock) -> None:
    """The next one would come too early, or too late."""
    park(room, "a")
    park(room, "b")
    confirmed = look(room).releases
    assert isinstance(room.start(ONE, "a"), Started)
    turn = look(room, confirmed)
    assert ids(turn) == []
    frozen.now += 990_000
    assert ids(look(room)) == ["b"]
    started = room.start(ONE, "b")
    assert isinstance(started, Started)
    assert round(started.ahead * 1000) == 10, "it sleeps until its token is there"


def test_who_has_no_ticket_does_not_go_first(room: Room, frozen: FrozenClock) -> None:
    """A task that comes by another way would take the token of those who wait."""
    park(room, "a")
    assert isinstance(room.start(ONE, ""), Waits)
    look(room)
    assert isinstance(room.start(ONE, ""), Waits)
    frozen.now += 100_000
    assert isinstance(room.start(ONE, ""), Started), "the ticket's holder is late, and the token was there"
    assert isinstance(room.start(ONE, "a"), Waits)


def test_a_task_that_came_back_survives_the_confirmation_of_its_release(room: Room) -> None:
    """It reached a worker before the pump could say so, had to wait again, and would be deleted then."""
    park(room, "a")
    (release,) = look(room).releases
    parked = park(room, "a", place=release.place)
    assert isinstance(parked, Parked)
    assert ids(look(room, [release])) == []
    assert room.store.client.exists(room.key("room-entry", "a"))
    assert room.store.client.zscore(room.key("room-line", "one:"), "a") == float(release.place)


def test_a_confirmation_of_an_older_release_deletes_nothing(room: Room, frozen: FrozenClock) -> None:
    """The confirmation of a pump that was asleep would delete what its successor is releasing."""
    park(room, "a")
    (old,) = look(room).releases
    room.store.client.delete(room.key("room-leader"))
    (new,) = room.release("other", (), 10).releases
    assert new.number > old.number
    assert not look(room, [old]).leads
    room.store.client.delete(room.key("room-leader"))
    (again,) = look(room, [old]).releases
    assert again.id == "a"


def test_one_pump_leads(room: Room) -> None:
    """Two would publish each entry twice."""
    park(room, "a")
    assert not room.release("other", (), 10).leads
    room.resign("other")
    assert not room.release("other", (), 10).leads
    room.resign("pump")
    assert ids(room.release("other", (), 10)) == ["a"]


def test_what_nobody_confirmed_is_released_again_at_its_place(room: Room) -> None:
    """A pump that was killed, or a reply that was lost, would lose tasks or their order."""
    for name in "abc":
        park(room, name, FIVE)
    first = look(room)
    assert ids(first) == ["a", "b", "c"]
    assert ids(look(room, first.releases[1:2])) == ["a", "c"]


def test_a_higher_rank_goes_first(room: Room) -> None:
    """An urgent task would wait behind all that came before it."""
    park(room, "low", FIVE, rank=6)
    park(room, "lower", FIVE, rank=9)
    park(room, "high", FIVE, rank=0)
    assert ids(look(room)) == ["high", "low", "lower"]


def test_turns_are_taken(room: Room, frozen: FrozenClock) -> None:
    """One tenant's thousands would delay another one's first."""
    for number in range(20):
        park(room, f"a{number}", FIVE, turn="a")
    first = look(room)
    assert len(first.releases) == 5
    for number in range(3):
        park(room, f"b{number}", FIVE, turn="b")
    confirmed, order = first.releases, []
    for release in first.releases:
        room.start(FIVE, release.ticket)
    for _ in range(6):
        frozen.now += 1_000_000
        turn = look(room, confirmed)
        confirmed = turn.releases
        for release in turn.releases:
            room.start(FIVE, release.ticket)
        order += [name[0] for name in ids(turn)]
    assert sorted(order) == ["a", "a", "a", "b", "b", "b"]


def test_all_limits_or_none(room: Room, frozen: FrozenClock) -> None:
    """A release would hold tickets of one limit while another one keeps the task waiting."""
    for name in "abc":
        park(room, name, BOTH)
    confirmed = look(room).releases
    assert [one.id for one in confirmed] == ["a"]
    client = room.store.client
    out = [client.hget(room.key("room-pace", bucket), "out") for bucket in ("one:", "five:")]
    assert out == [b"1", b"2"]
    started = room.start(BOTH, "a")
    assert isinstance(started, Started)
    frozen.now += 1_000_000
    assert ids(look(room, confirmed)) == ["b"]
    out = [client.hget(room.key("room-pace", bucket), "out") for bucket in ("one:", "five:")]
    assert out == [b"1", b"2"]


def test_who_waits_for_another_limit_is_in_nobodys_way(room: Room, frozen: FrozenClock) -> None:
    """The first in a line, kept by another limit, would keep all behind it."""
    room.start(FIVE, "")
    for name in "ab":
        park(room, name, BOTH)
    close(room.store, [Bucket("one")], 3_600)
    park(room, "c", FIVE)
    assert ids(look(room)) == ["c"]
    line = room.store.client.zrange(room.key("room-line", "one:"), 0, -1)
    assert line == [b"a", b"b"]


def test_a_returned_ticket_lets_the_next_one_go(room: Room) -> None:
    """A replayed task would hold its limit up for as long as a ticket lives."""
    park(room, "a")
    park(room, "b")
    confirmed = look(room).releases
    room.hand_in("a", [("one:", 1)])
    assert ids(look(room, confirmed)) == ["b"]


def test_the_gate_gives_tickets_while_there_is_room(room: Room) -> None:
    """A call that could run would wait, or one that cannot would be published."""
    found = [park(room, str(number), FIVE, gate=True) for number in range(7)]
    assert [type(one) for one in found] == [Ticket] * 5 + [Parked] * 2
    assert ids(look(room)) == []


def test_two_publications_under_one_id_are_two(room: Room) -> None:
    """A call that somebody makes twice under one id would be lost once."""
    close(room.store, [Bucket("five")], 1)
    park(room, "a", FIVE, gate=True)
    park(room, "a", FIVE, gate=True)
    assert room.store.client.zcard(room.key("room-line", "five:")) == 2


def test_a_copy_that_waits_already_is_that_one(room: Room) -> None:
    """A redelivered message would wait twice, and run twice."""
    park(room, "a")
    park(room, "a")
    assert room.store.client.zcard(room.key("room-line", "one:")) == 1
    park(room, "a", "", attempt=1, wait=5.0)
    assert room.store.client.zcard(room.key("room-line", "one:")) == 0
    assert room.store.client.zcard(room.key("room-time")) == 1


def test_timed_entries_go_when_their_time_has_come(room: Room, frozen: FrozenClock) -> None:
    """A retry would come too early, or never."""
    park(room, "b", "", wait=20.0)
    park(room, "a", "", wait=10.0)
    turn = look(room)
    assert ids(turn) == []
    frozen.now += 9_999_999
    assert 0 < look(room).wait < 0.001
    frozen.now += 1
    assert ids(look(room)) == ["a"]


def test_those_who_wait_for_something_are_woken_in_order(room: Room, frozen: FrozenClock) -> None:
    """A slot that comes free would go to whoever came last, or to nobody."""
    for name in "abc":
        park(room, name, "", line="lock", wait=15.0)
        frozen.now += 1
    assert room.wake("lock") == 1
    first = look(room).releases
    assert [one.id for one in first] == ["a"]
    assert room.wake("other") == 0
    assert room.wake("lock", "c") == 1
    assert room.wake("lock", "c") == 0
    assert ids(look(room, first)) == ["c"]


def test_several_are_woken_at_once(room: Room) -> None:
    """Each of many places that come free would cost a round trip."""
    for name in "abc":
        park(room, name, "", line="lock", wait=15.0)
    assert room.wake("lock", "b", "x", "c") == 2
    assert sorted(ids(look(room))) == ["b", "c"]


@pytest.mark.parametrize(("who", "hears"), [((), "ab"), (("*",), "ab"), (("a",), "a")])
def test_whoever_is_woken_on_its_way_into_a_line_does_not_stop_there(
    room: Room, frozen: FrozenClock, who: tuple[str, ...], hears: str
) -> None:
    """It would sleep beside a lock that is free, since the holder ended between its look and its parking."""
    frozen.now += 5_000
    assert room.wake("lock", *who) == 0
    frozen.now += 5_000
    for name in "ab":
        park(room, name, "", line="lock", wait=15.0, looked=0.006)
    assert sorted(ids(look(room))) == list(hears)
    park(room, "c", "", line="lock", wait=15.0, looked=0.004)
    park(room, "d", "", line="other", wait=15.0, looked=0.006)
    park(room, "e", "", line="lock", wait=15.0)
    assert not set("cde") & set(ids(look(room))), "these looked later, elsewhere, or not at all"


def test_who_is_woken_in_the_line_rings_no_bell(room: Room, frozen: FrozenClock) -> None:
    """One free place would let two of them look."""
    park(room, "a", "", line="lock", wait=15.0)
    assert room.wake("lock") == 1
    park(room, "b", "", line="lock", wait=15.0, looked=0.006)
    assert ids(look(room)) == ["a"]


def test_all_are_woken_also_those_on_their_way(room: Room, frozen: FrozenClock) -> None:
    """A result is for all: one that comes a moment later would wait for the next look."""
    park(room, "a", "", line="result", wait=15.0)
    assert room.wake("result", "*") == 1
    park(room, "b", "", line="result", wait=15.0, looked=0.006)
    assert sorted(ids(look(room))) == ["a", "b"]


def test_all_who_wait_for_a_result_are_woken(room: Room) -> None:
    """Those behind the first would wait for as long as nobody looks."""
    for number in range(1_200):
        park(room, f"{number:04}", "", line="result", wait=15.0)
    assert room.wake("result", "*") == 1_200
    assert len(look(room).releases) == 100
    assert room.length("result") == 0


def test_of_a_line_that_nobody_wakes_one_looks_now_and_then(room: Room, frozen: FrozenClock) -> None:
    """Waiters would wait for ever if a holder vanished; or each of them would cost a look."""
    for name in "abc":
        park(room, name, "", line="lock", wait=10.0)
    frozen.now += 10_000_000
    (first,) = look(room).releases
    assert first.id == "a"
    park(room, "a", "", line="lock", wait=10.0, place=first.place)
    look(room, [first])
    frozen.now += 9_000_000
    assert ids(look(room)) == []
    frozen.now += 1_000_000
    assert ids(look(room)) == ["a"], "it has kept its place"


def test_a_revoked_entry_leaves_at_once(room: Room, frozen: FrozenClock) -> None:
    """A revoked task would run in the end; or its chord would never learn of it."""
    close(room.store, [Bucket("one")], 3_600)
    park(room, "a")
    assert room.cancel(["a", "unknown"]) == 1
    (release,) = look(room).releases
    assert release.revoked
    assert not release.ticket
    assert room.cancel(["a"]) == 0


def test_patience_ends(room: Room, frozen: FrozenClock) -> None:
    """A task with max_wait or expires would wait on, and nobody would learn that it is too late."""
    close(room.store, [Bucket("one")], 3_600)
    park(room, "a", patience=2.0)
    park(room, "b")
    frozen.now += 2_000_000
    (release,) = look(room).releases
    assert (release.id, release.ticket) == ("a", "")


def test_a_change_reaches_those_who_wait(room: Room, frozen: FrozenClock) -> None:
    """Who waits for an hour would do so although the limit was raised."""
    hourly = as_text([Demand(Bucket("hourly"), Rate.of("1/h"), 1, 1, strict=False)])
    room.start(hourly, "")
    park(room, "a", hourly)
    assert ids(look(room)) == []
    with pytest.MonkeyPatch.context() as patch:
        manager = RateLimitManager()
        patch.setattr(RateLimitManager, "_store", room.store)
        manager.adjust_rate("hourly", "1000/s")
    frozen.now += 1_000
    room.wake_all()
    assert ids(look(room)) == ["a"]


def test_a_newer_bucket_is_left_alone(room: Room) -> None:
    """A pump of an old version would misread what a new one has written."""
    park(room, "a")
    room.store.client.set("cp:limit:{cp}:one:", "2|something new")
    assert ids(look(room)) == []
    assert room.store.client.exists(room.key("room-entry", "a"))


def test_what_no_broker_takes_keeps_nobody(room: Room, frozen: FrozenClock) -> None:
    """One message that cannot be published would keep its whole line for ever."""
    for name in "ab":
        park(room, name)
    for _ in range(5):
        assert ids(look(room)) == ["a"]
    assert ids(look(room)) == ["b"]
    frozen.now += 30_000_000
    turn = look(room)
    assert "a" in ids(turn), "it is tried again"


def test_whoever_names_no_turn_is_one_more_tenant(room: Room, frozen: FrozenClock) -> None:
    """A task that was declared without fair_by would wait until all tenants have nothing left."""
    close(room.store, [Bucket("one")], 1)
    for number in range(5):
        park(room, f"a{number}", turn="a")
    park(room, "plain")
    park(room, "b0", turn="b")
    order = []
    for _ in range(4):
        frozen.now += 1_000_000
        turn = look(room)
        order += ids(turn)
        room.release("pump", turn.releases, 0)
        for one in turn.releases:
            room.start(ONE, one.ticket)
    assert order.index("plain") <= 2
    assert order.index("b0") <= 2


def test_a_small_tenant_is_not_kept_by_a_large_one(room: Room, frozen: FrozenClock) -> None:
    """Ten calls of one tenant would wait for a thousand of another."""
    close(room.store, [Bucket("one")], 1)
    for number in range(1_000):
        park(room, f"large-{number}", turn="large")
    for number in range(10):
        park(room, f"small-{number}", turn="small")
    started: list[str] = []
    while sum(one.startswith("small") for one in started) < 10:
        assert len(started) <= 30, "three times of what they would take alone"
        frozen.now += 1_000_000
        turn = look(room)
        started += [one.id for one in turn.releases]
        room.release("pump", turn.releases, 0)
        for one in turn.releases:
            room.start(ONE, one.ticket)


def test_revoked_stamps_are_known_to_every_pump(room: Room) -> None:
    """What was revoked by a stamp would run if the workers were restarted before its turn."""
    Stamps(room).revoke({"order": ["A", "B"], "kind": "x"})
    stamps = Stamps(room)
    assert not stamps.match({"stamped_headers": ["order"], "stamps": {"order": ["A"]}})
    stamps.read()
    assert stamps.match({"stamped_headers": ["order"], "stamps": {"order": ["Z", "B"]}})
    assert stamps.match({"stamped_headers": ["order", "kind"], "stamps": {"order": "C", "kind": "x"}})
    assert not stamps.match({"stamped_headers": ["order"], "stamps": {"order": ["C"]}})
    assert not stamps.match({"stamps": {"order": ["A"]}})
    assert not stamps.match({"id": "a"})
