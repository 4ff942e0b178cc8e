"""An operation's slot is its own while it is under way, and its number above all that the slot had."""

import os

from celery_patterns.core.operations import operations


def test_a_slot_is_used_again_with_a_higher_number() -> None:
    """The server would fill with slots, or take a new operation for one that it has done."""
    slots = operations("again")
    slot, first = slots.begin()
    slots.end(slot)
    assert slots.begin()[0] == slot
    slots.end(slot)
    assert slots.begin()[1] > first


def test_operations_at_the_same_time_have_slots_of_their_own() -> None:
    """Of two threads, the one with the lower number would be told that it was served already."""
    slots = operations("threads")
    taken = [slots.begin()[0] for _ in range(5)]
    assert len(set(taken)) == 5


def test_an_operation_without_an_answer_keeps_its_slot() -> None:
    """Its command may still arrive, and would overwrite the number of the next one."""
    slots = operations("lost")
    lost, _ = slots.begin()
    assert slots.begin()[0] != lost


def test_a_forked_child_has_slots_of_its_own() -> None:
    """A child would be told of its parent's grants."""
    slots = operations("fork")
    slot, _ = slots.begin()
    slots.end(slot)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, operations("fork").begin()[0].encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 200).decode()
    assert theirs.rpartition(":")[0] == slot.rpartition(":")[0]
    assert theirs.rpartition(":")[2].partition(".")[0] != slot.rpartition(":")[2].partition(".")[0]
