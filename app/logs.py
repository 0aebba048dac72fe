"""How log lines look, in every process: JSON for machines, text for people, on standard error.
Must not decide what is logged.
"""

from __future__ import annotations

import logging
import logging.config
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from app.config import LogFormat, Settings

logger: Final = logging.getLogger("crossbook")

# What every record has; all else came in by `extra=` and is a field of its own.
STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "asctime",
    "message",
    "taskName",
}
# C0 (with line feed, carriage return and ESC), DEL, C1 (with the one-byte CSI), the separators that
# also end a line, and the marks that turn the direction of what follows.
CONTROL_CHARACTERS: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
# No line of ours begins so, whatever the text of an exception says after a line feed.
INDENT: Final = "    "


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in STANDARD_FIELDS}


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the record's extras, exception."""

    _encode = msgspec.json.Encoder(enc_hook=str).encode

    def format(self, record: logging.LogRecord) -> str:
        """Never fails on a value that JSON does not know: that becomes its text."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _extras(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._encode(line).decode()


class TextFormatter(logging.Formatter):
    """The same for people: one line, extras as name=value; tracebacks below it, indented.
    What came from outside can neither begin a line nor reach the terminal as more than text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Time of day is enough on a terminal."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        line = f"{time} {record.levelname:<7} {record.name}: {record.getMessage()}{extras}"
        lines = [_harmless(line)]
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            lines += [INDENT + _harmless(part) for part in traceback.split("\n")]
        return "\n".join(lines)


def _harmless(text: str) -> str:
    return CONTROL_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def configure(settings: Settings) -> None:
    """Set up the root logger of this process; what libraries had set up before stays silent."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": _formatter(settings.log_format)}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
        }
    )
    # No formatter shows them, and finding them out costs more than writing the line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # the logging HOWTO's own switch, for the caller's line


def _formatter(log_format: LogFormat) -> type[logging.Formatter]:
    return JsonFormatter if log_format == "json" else TextFormatter
