"""Where the API listens: the address to call it at, and whether the port is there to be taken.
Must not start anything.
"""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Final

from app.config import ConfigurationError, is_loopback
from app.embedded import ports

if TYPE_CHECKING:
    from app.config import Settings

# Workers of a server that was just stopped or killed let go of the port within this time.
PATIENCE_S: Final = 3.0
RETRY_INTERVAL_S: Final = 0.05


def await_port(settings: Settings) -> None:
    """Raises ConfigurationError if somebody else has HOST and PORT, or HOST is not ours."""
    deadline = time.monotonic() + PATIENCE_S
    while not ports.is_free(settings.port, settings.host):
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"cannot listen on HOST={settings.host!r} PORT={settings.port}: in use by another "
                f"program, or not an address of this machine; try PORT={_next(settings.port)}"
            )
        time.sleep(RETRY_INTERVAL_S)


def base_url(settings: Settings) -> str:
    """`http://host:port` as a client on this machine reaches it, also where we listen on all."""
    host = settings.host
    if not is_loopback(host) and _is_unspecified(host):
        host = "::1" if ":" in host else ports.LOOPBACK
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _next(port: int) -> int:
    return port + 1 if port < 65_535 else port - 1  # noqa: PLR2004  # the last port
