"""permessage-deflate: what is agreed on, and that whoever agreed can read what was made once."""

from zlib import MAX_WBITS, decompressobj

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.feed.compression import COMPRESSED_BYTES_MIN, WINDOW_BITS, agree, deflated
from app.feed.frames import compressed_frame, text_frame

OURS = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TAIL = b"\x00\x00\xff\xff"
"""What RFC 7692 has receivers put back."""


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ("permessage-deflate", OURS),
        ("permessage-deflate; client_max_window_bits", OURS),
        ("permessage-deflate;client_max_window_bits=9", OURS),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", OURS),
        ("permessage-deflate; server_max_window_bits=15", OURS + "; server_max_window_bits=15"),
        ('permessage-deflate; server_max_window_bits="12"', OURS + "; server_max_window_bits=12"),
        ("permessage-deflate; server_max_window_bits=11", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_max_window_bits=x", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; something_else", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", None),
        ("permessage-deflate; server_max_window_bits=12; server_max_window_bits=15", None),
        ("permessage-deflate; server_max_window_bits=9, permessage-deflate", OURS),
        ("x-webkit-deflate-frame, permessage-deflate", OURS),
        ("x-webkit-deflate-frame", None),
        (";;=;,", None),
        ("", None),
    ],
)
def test_an_offer_is_taken_where_it_can_be_kept(offered: str, agreed: str | None) -> None:
    """The first that can; what is agreed on needs no memory for a connection."""
    assert agree(offered) == agreed


@given(st.binary(max_size=20_000), st.binary(max_size=2_000))
def test_each_message_is_read_by_itself_in_the_least_window(payload: bytes, other: bytes) -> None:
    """Whatever came before it."""
    assert deflated(other) == deflated(other)
    for bits in (WINDOW_BITS, MAX_WBITS):
        reader = decompressobj(-bits)
        assert reader.decompress(deflated(payload) + TAIL) == payload
        assert not reader.unused_data


def test_a_short_message_is_not_compressed() -> None:
    """It would hardly be shorter; the frame says which it is."""
    short, long = b"x" * (COMPRESSED_BYTES_MIN - 1), b"x" * COMPRESSED_BYTES_MIN
    assert compressed_frame(short) == text_frame(short)
    frame = compressed_frame(long)
    assert len(frame) < len(long) / 4
    assert (frame[0], text_frame(long)[0]) == (0xC1, 0x81)
