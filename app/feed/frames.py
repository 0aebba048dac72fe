"""WebSocket frames as bytes (RFC 6455, section 5.2), server to client.

Such frames are not masked, so one frame is the same bytes for every socket: it is made once and
written to all of them. Never compressed, which stays legal where permessage-deflate was agreed on.
Must not know what the frames carry.
"""

import struct

_FINAL_TEXT = 0x81
_FINAL_PING = 0x89
_SHORT_MAX = 125
"""Longest payload whose length fits into the frame's second byte."""
_MEDIUM = 126
_MEDIUM_MAX = 0xFFFF
_LONG = 127

PING = bytes((_FINAL_PING, 0))


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text message; `payload` is UTF-8."""
    size = len(payload)
    if size <= _SHORT_MAX:
        return bytes((_FINAL_TEXT, size)) + payload
    if size <= _MEDIUM_MAX:
        return struct.pack("!BBH", _FINAL_TEXT, _MEDIUM, size) + payload
    return struct.pack("!BBQ", _FINAL_TEXT, _LONG, size) + payload
