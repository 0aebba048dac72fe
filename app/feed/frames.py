"""WebSocket frames as bytes (RFC 6455, section 5.2), server to client.

Such frames are not masked, so one frame is the same bytes for every socket that reads it: it is
made once and written to all of them. A frame that is not compressed stays legal where
permessage-deflate was agreed on. Must not know what the frames carry.
"""

import struct

from app.feed.compression import COMPRESSED_BYTES_MIN, deflated

_FINAL_TEXT = 0x81
_COMPRESSED = 0x40
"""RSV1, which marks a message as compressed (RFC 7692, section 6)."""
_FINAL_PING = 0x89
_SHORT_MAX = 125
"""Longest payload whose length fits into the frame's second byte."""
_MEDIUM = 126
_MEDIUM_MAX = 0xFFFF
_LONG = 127

PING = bytes((_FINAL_PING, 0))


def text_frame(payload: bytes, first: int = _FINAL_TEXT) -> bytes:
    """One unfragmented text message; `payload` is UTF-8. `first` is the frame's first byte."""
    size = len(payload)
    if size <= _SHORT_MAX:
        return bytes((first, size)) + payload
    if size <= _MEDIUM_MAX:
        return struct.pack("!BBH", first, _MEDIUM, size) + payload
    return struct.pack("!BBQ", first, _LONG, size) + payload


def compressed_frame(payload: bytes) -> bytes:
    """The same for whoever agreed on permessage-deflate; compressed where that is worth while."""
    if len(payload) < COMPRESSED_BYTES_MIN:
        return text_frame(payload)
    return text_frame(deflated(payload), _FINAL_TEXT | _COMPRESSED)
