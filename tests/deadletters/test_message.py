"""A message as a broker delivered it, of which no task knows anything."""

from types import SimpleNamespace

from celery_patterns.core.parking import HOME_HEADER
from celery_patterns.core.policy import NONCE_HEADER
from celery_patterns.deadletters.message import Message


def test_a_message_from_the_waiting_room_goes_back_to_where_it_was_meant_for() -> None:
    """A replay would be published to the queue of releases, which nobody may consume by then."""
    delivered = SimpleNamespace(
        body="[[], {}, {}]",
        headers={"id": "a", HOME_HEADER: "orders\npaid", NONCE_HEADER: "n", "compression": None},
        delivery_info={"exchange": "", "routing_key": "cp-releases"},
        properties={"priority": 3},
        content_type="application/json",
        content_encoding="utf-8",
    )
    letter = Message.of_delivery(delivered)
    assert (letter.exchange, letter.routing_key, letter.priority) == ("orders", "paid", 3)
    assert letter.headers == {"id": "a"}
