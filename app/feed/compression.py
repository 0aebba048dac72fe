"""permessage-deflate (RFC 7692) as this server speaks it: agreed on where a client offers it, each
message compressed by itself.

Without a context that goes on from message to message, in either direction, a connection needs no
memory for it, and a compressed message is the same bytes for every socket: it is made once, like an
uncompressed one. Knows neither sockets nor messages.
"""

import re
from zlib import DEFLATED, Z_SYNC_FLUSH, compressobj

COMPRESSED_BYTES_MIN = 200
"""Shorter messages are sent as they are: of a delta with two levels a fifth would be saved."""
WINDOW_BITS = 12
"""How far back matches are looked for (4 KiB): beyond it books gain little, and a compressor needs
a quarter of the memory that the default of 15 takes."""
_MEMORY_LEVEL = 5
_LEVEL = 3
_SYNC_TAIL_BYTES = 4
"""The end of a flush that RFC 7692 has senders leave out."""

_NAME = "permessage-deflate"
_OFFER = re.compile(r"[A-Za-z0-9-]+(?:\s*;\s*[A-Za-z0-9_-]+(?:\s*=\s*\"?\d{1,2}\"?)?)*")
_ANSWER = f"{_NAME}; server_no_context_takeover; client_no_context_takeover"
_WINDOWS = range(8, 16)


def agree(header: str) -> str | None:
    """What to agree on of a client's `Sec-WebSocket-Extensions`: the offer of it that can be kept,
    in the words of the answer; None where nothing is compressed.
    """
    for offer in header.split(","):
        if _OFFER.fullmatch(offer.strip()):
            name, *parameters = (part.strip() for part in offer.split(";"))
            if name == _NAME and (answer := _accept(parameters)):
                return answer
    return None


def _accept(parameters: list[str]) -> str | None:
    """The answer to one offer; None where it asks for what cannot be kept."""
    answer = _ANSWER
    names = set()
    for parameter in parameters:
        name, _, value = (part.strip(' "') for part in parameter.partition("="))
        if name in names:  # 7.1 of the RFC: not one offer but none
            return None
        names.add(name)
        match name:
            case "server_no_context_takeover" | "client_no_context_takeover" if not value:
                continue
            case "client_max_window_bits" if not value or int(value) in _WINDOWS:
                continue
            case "server_max_window_bits" if value and WINDOW_BITS <= int(value) in _WINDOWS:
                answer += f"; server_max_window_bits={value}"
            case _:
                return None
    return answer


def deflated(payload: bytes) -> bytes:
    """A message's payload, compressed by itself."""
    compressor = compressobj(_LEVEL, DEFLATED, -WINDOW_BITS, _MEMORY_LEVEL)
    data = compressor.compress(payload) + compressor.flush(Z_SYNC_FLUSH)
    return data[:-_SYNC_TAIL_BYTES]
