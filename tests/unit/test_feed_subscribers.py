"""The queue of one socket: bounded, never waited for, and ended politely."""

import threading

import pytest

from app.feed.messages import NOTHING, Frames
from app.feed.subscribers import CLOSE_SLOW_CONSUMER, WRITE_BYTES, Closing, Subscriber
from tests.unit.test_feed_messages import read

ONE = Frames(b"12345", 1)
NO_TIME = 0.0


def test_what_is_offered_is_taken_in_order() -> None:
    """Frames leave as they came, several at once, counted in messages."""
    subscriber = Subscriber()
    assert subscriber.offer(Frames(b"a", 1))
    assert subscriber.offer(Frames(b"bc", 2))
    assert subscriber.take(NO_TIME) == Frames(b"abc", 3)
    assert subscriber.take(NO_TIME) is NOTHING


def test_a_writer_gets_little_at_once() -> None:
    """A take ends as soon as WRITE_BYTES are reached, so that a slow client is noticed."""
    subscriber = Subscriber()
    for _ in range(3):
        subscriber.offer(Frames(b"x" * (WRITE_BYTES - 1), 1))
    assert subscriber.take(NO_TIME).messages == 2
    assert subscriber.take(NO_TIME).messages == 1


@pytest.mark.parametrize(
    ("messages_max", "bytes_max"), [(3, 10**6), (10**6, 15), (10**6, 17), (10**6, 19)]
)
def test_a_full_queue_ends_the_connection_with_a_word(messages_max: int, bytes_max: int) -> None:
    """The first frame over either limit drops all that waits; the client is told `slow_consumer`
    and closed with 4008, and nothing is taken in any more."""
    subscriber = Subscriber(messages_max, bytes_max)
    assert [subscriber.offer(ONE) for _ in range(5)] == [True, True, True, False, False]
    (told,) = read(subscriber.take(NO_TIME).data)
    assert (told["type"], told["code"]) == ("error", "slow_consumer")
    assert subscriber.closing is not None
    assert subscriber.closing.code == CLOSE_SLOW_CONSUMER == 4008
    assert subscriber.take(60.0) is NOTHING


def test_what_was_taken_makes_room() -> None:
    """The limit is on what waits, not on what ever passed."""
    subscriber = Subscriber(messages_max=2, bytes_max=10)
    for _ in range(50):
        assert subscriber.offer(ONE)
        assert subscriber.offer(ONE)
        assert subscriber.take(NO_TIME).messages == 2


def test_a_waiting_writer_wakes_for_a_frame_and_for_the_end() -> None:
    """A take that waits returns as soon as there is something to do."""
    subscriber = Subscriber()
    taken: list[Frames] = []
    writer = threading.Thread(target=lambda: taken.extend(subscriber.take(60.0) for _ in range(2)))
    writer.start()
    subscriber.offer(ONE)
    subscriber.close(Closing(1001, "stopping"), Frames(b"bye", 1))
    writer.join(10)
    assert not writer.is_alive()
    assert taken in ([ONE, Frames(b"bye", 1)], [Frames(b"bye", 1), NOTHING])


def test_the_first_reason_to_close_stands() -> None:
    """A connection that is ending is not ended again for another reason."""
    subscriber = Subscriber()
    assert subscriber.close(Closing(1001, "stopping"))
    assert not subscriber.close(Closing(1000, ""))
    subscriber.fall_behind()
    assert subscriber.closing == Closing(1001, "stopping")
    assert not subscriber.offer(ONE)


GOING = Closing(1001, "stopping")


def test_who_retires_sends_what_waits_and_the_answer_to_the_message_in_hand() -> None:
    """What a message asked for may be done already: its client has to hear of it."""
    subscriber = Subscriber()
    assert subscriber.begin()
    assert subscriber.offer(ONE)
    subscriber.retire(GOING)
    assert subscriber.closing == GOING
    assert not subscriber.is_over
    assert subscriber.take(NO_TIME) == ONE
    assert not subscriber.is_over, "the answer is still to come"
    assert subscriber.offer(Frames(b"answer", 1))
    subscriber.end()
    assert not subscriber.is_over
    assert not subscriber.offer(ONE), "nothing new"
    assert subscriber.take(NO_TIME) == Frames(b"answer", 1)
    assert subscriber.is_over


def test_no_message_is_begun_that_would_not_be_answered() -> None:
    for ended in (Subscriber.retire, Subscriber.close):
        subscriber = Subscriber()
        ended(subscriber, GOING)
        assert not subscriber.begin()
        assert subscriber.is_over


def test_a_writer_waits_for_the_answer_of_one_who_retires() -> None:
    subscriber = Subscriber()
    assert subscriber.begin()
    subscriber.retire(GOING)
    taken: list[Frames] = []
    writer = threading.Thread(target=lambda: taken.append(subscriber.take(60.0)))
    writer.start()
    subscriber.offer(ONE)
    writer.join(10)
    assert taken == [ONE]
    subscriber.end()
    assert subscriber.take(60.0) is NOTHING


def test_a_connection_that_ends_for_another_reason_drops_what_waits() -> None:
    subscriber = Subscriber()
    assert subscriber.begin()
    subscriber.offer(ONE)
    subscriber.close(GOING)
    assert subscriber.take(NO_TIME) is NOTHING
    assert not subscriber.offer(ONE)


def test_whoever_has_much_to_offer_waits_for_room() -> None:
    """Until half of the queue is free in messages and in bytes, so that resuming never makes a slow
    consumer; and no longer than the connection lasts."""
    subscriber = Subscriber(messages_max=4, bytes_max=10**6)
    for _ in range(3):
        subscriber.offer(Frames(b"x" * WRITE_BYTES, 1))
    waited = threading.Thread(target=subscriber.wait_for_room)
    waited.start()
    assert waited.is_alive()
    subscriber.take(NO_TIME)
    waited.join(10)
    assert not waited.is_alive()
    for ended in (Subscriber.retire, Subscriber.close):
        full = Subscriber(messages_max=10**6, bytes_max=11)
        full.offer(Frames(b"123456", 1))
        waited = threading.Thread(target=full.wait_for_room)
        waited.start()
        ended(full, GOING)
        waited.join(10)
        assert not waited.is_alive()
