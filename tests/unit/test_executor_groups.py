"""Calls that one run of a script takes together: how they are grouped, and who gets which answer.
`integration/test_executor.py` sends them to a server.
"""

from app.engine.executor import MAX_GROUPED_CALLS, Call, Sent, grouped
from tests.scripting import script

TAKES_MANY = script("return {}")
TAKES_ONE = script("return {1}")


def sent(number: int, symbol: str = "A") -> Sent:
    return Sent(Call(TAKES_MANY, (symbol,), (number,), ("shared",)))


def numbers(packet_sent: list[Sent]) -> list[object]:
    return [each.call.args[0] for each in packet_sent]


def test_calls_of_one_script_and_book_are_one_packet_in_their_order() -> None:
    """And no call goes before another of its book."""
    alone = Sent(Call(TAKES_ONE, ("A",), (9,)))
    packets = list(grouped([sent(1), sent(2, "B"), sent(3), alone, sent(4)]))
    assert sorted(numbers(packet.sent) for packet in packets) == [[1, 3], [2], [4], [9]]
    of_book_a = [packet for packet in packets if packet.sent[0].call.keys == ("A",)]
    assert [numbers(packet.sent)[0] for packet in of_book_a] == [1, 9, 4]


def test_a_packet_is_bounded() -> None:
    packets = list(grouped([sent(number) for number in range(MAX_GROUPED_CALLS + 1)]))
    assert [len(packet.sent) for packet in packets] == [MAX_GROUPED_CALLS, 1]


def test_each_call_gets_its_own_answer_and_what_is_left_is_told() -> None:
    (packet,) = grouped([sent(1), sent(2), sent(3)])
    left = packet.take([[b"first"], [b"second"]])
    assert [each.outcome for each in packet.sent] == [[b"first"], [b"second"], None]
    assert numbers(left) == [3]
