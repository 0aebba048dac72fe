"""Settings, typed and checked, read from the environment once at the start of each process.
Knows nothing of Flask, Redis or Postgres: it says which values are allowed, not what they do.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "text"]
Auth = Literal["off"]

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 3000
DEFAULT_DATA_DIR: Final = "./data"
DEFAULT_IDEMPOTENCY_TTL_S: Final = 86_400
PORT_MAX: Final = 65_535
WORKERS_MAX: Final = 64
IDEMPOTENCY_TTL_S_MAX: Final = 30 * 86_400
REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
POSTGRES_SCHEMES: Final = ("postgresql", "postgres")
# RFC 1123 labels: what a resolver can be asked for. Addresses are checked by `ipaddress`.
HOST_NAME: Final = re.compile(r"(?i)[a-z0-9][a-z0-9-]{0,62}(\.[a-z0-9][a-z0-9-]{0,62})*\.?")
PURPOSE: Final = "AUTH_OFF_ON_PURPOSE"


class ConfigurationError(Exception):
    """A setting that stops the start; its text is one line, for the person at the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the environment decides. Paths are absolute, times are seconds."""

    host: str
    port: int
    redis_url: str | None
    database_url: str | None
    data_dir: Path
    web_concurrency: int
    log_level: LogLevel
    log_format: LogFormat
    auth: Auth
    rate_limit_per_s: int | None
    idempotency_ttl_s: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Raises ConfigurationError for the first value that is malformed or not allowed."""
        host = _host(environ)
        return cls(
            host=host,
            port=_integer(environ, "PORT", DEFAULT_PORT, 1, PORT_MAX),
            redis_url=_url(environ, "REDIS_URL", REDIS_SCHEMES),
            database_url=_url(environ, "DATABASE_URL", POSTGRES_SCHEMES),
            data_dir=_directory(environ, "DATA_DIR", DEFAULT_DATA_DIR),
            web_concurrency=_integer(environ, "WEB_CONCURRENCY", usable_cores(), 1, WORKERS_MAX),
            log_level=_log_level(environ),
            log_format=_log_format(environ),
            auth=_auth(environ, host),
            rate_limit_per_s=_rate_limit(environ),
            idempotency_ttl_s=_integer(
                environ, "IDEMPOTENCY_TTL_S", DEFAULT_IDEMPOTENCY_TTL_S, 1, IDEMPOTENCY_TTL_S_MAX
            ),
        )


def usable_cores() -> int:
    """Cores that this process may run on, at most WORKERS_MAX."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, WORKERS_MAX)


def is_loopback(host: str) -> bool:
    """True where nothing outside this machine can reach `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(environ: Mapping[str, str], name: str) -> str | None:
    # `FOO= make run` and compose's `FOO: ${FOO:-}` both mean "not set".
    return environ.get(name, "").strip() or None


def _refuse(name: str, value: str, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={value!r} is not allowed: {allowed}")


def _integer(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = _text(environ, name)
    if value is None:
        return default
    # Not int(): it takes "1_000", " 7" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,10}", value) or not low <= int(value) <= high:
        raise _refuse(name, value, f"give a whole number from {low} to {high}")
    return int(value)


def _host(environ: Mapping[str, str]) -> str:
    value = _text(environ, "HOST") or DEFAULT_HOST
    if not _is_address(value) and not _is_host_name(value):
        raise _refuse("HOST", value, "give an IP address or a host name, without scheme and port")
    return value


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_host_name(value: str) -> bool:
    # All digits and dots and yet no address ("127.0.0.300") is a slip, not a name.
    return bool(HOST_NAME.fullmatch(value)) and not re.fullmatch(r"[0-9.]+", value)


def _url(environ: Mapping[str, str], name: str, schemes: tuple[str, ...]) -> str | None:
    value = _text(environ, name)
    if value is None:
        return None
    allowed = "give a URL that begins with " + " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(value)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise _refuse(name, _without_secrets(value), allowed) from None
    goes_somewhere = parts.path if parts.scheme == "unix" else parts.netloc or parts.query
    if "://" not in value or parts.scheme not in schemes or not port_is_valid or not goes_somewhere:
        raise _refuse(name, _without_secrets(value), allowed)
    return value


def _without_secrets(url: str) -> str:
    # An error line ends up in logs and screenshots; a password must not.
    without_query = url.split("?", 1)[0]
    return re.sub(r"^([^/]*//)?.*@", r"\1***@", without_query)


def _directory(environ: Mapping[str, str], name: str, default: str) -> Path:
    value = _text(environ, name) or default
    try:
        path = Path(value).expanduser().absolute()
        is_something_else = path.exists() and not path.is_dir()
    except (OSError, RuntimeError, ValueError):
        raise _refuse(name, value, "give the path of a folder") from None
    if is_something_else:
        raise _refuse(name, value, "give the path of a folder, this is something else")
    return path


def _log_level(environ: Mapping[str, str]) -> LogLevel:
    value = _text(environ, "LOG_LEVEL") or "info"
    for level in get_args(LogLevel):
        if value.lower() == level:
            return level  # type: ignore[no-any-return]  # get_args() is typed Any
    raise _refuse("LOG_LEVEL", value, "give debug, info, warning or error")


def _log_format(environ: Mapping[str, str]) -> LogFormat:
    value = _text(environ, "LOG_FORMAT")
    if value is None:
        return "text" if sys.stderr is not None and sys.stderr.isatty() else "json"
    for known in get_args(LogFormat):
        if value.lower() == known:
            return known  # type: ignore[no-any-return]  # get_args() is typed Any
    raise _refuse("LOG_FORMAT", value, "give json or text")


def _auth(environ: Mapping[str, str], host: str) -> Auth:
    value = _text(environ, "AUTH") or "off"
    if value == "required":
        raise _refuse("AUTH", value, "API keys arrive in a later version, until then give off")
    if value != "off":
        raise _refuse("AUTH", value, "give off")
    # Asked first: a slip in it is a slip on loopback, too, where it would show only later.
    on_purpose = _off_on_purpose(environ)
    if not is_loopback(host) and not on_purpose:
        allowed = f"set HOST to a loopback address or say {PURPOSE}=yes"
        raise ConfigurationError(
            f"AUTH=off is not allowed with HOST={host!r}, which others can reach: {allowed}"
        )
    return "off"


def _off_on_purpose(environ: Mapping[str, str]) -> bool:
    value = _text(environ, PURPOSE)
    if value not in {None, "yes"}:
        raise _refuse(PURPOSE, str(value), "give yes, or leave it out")
    return value == "yes"


def _rate_limit(environ: Mapping[str, str]) -> int | None:
    value = _text(environ, "RATE_LIMIT_PER_S")
    if value not in {None, "0"}:
        raise _refuse("RATE_LIMIT_PER_S", str(value), "it is not available yet, leave it out or 0")
    return None
