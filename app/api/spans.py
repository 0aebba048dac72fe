"""What requests for market data say about time: interval, start, end, limit, window."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from app.api.fields import Errors, read_time
from app.api.http import whole_number
from app.api.problems import FieldError, invalid
from app.domain.candles import DAY_MINUTES, INTERVAL_MINUTES, MINUTE_US

DEFAULT_CANDLES, MAX_CANDLES = 100, 1000
DEFAULT_WINDOW = "24h"
MAX_WINDOW_DAYS = 30
SPAN_PARAMETERS = {"interval": True, "start": False, "end": False, "limit": False}

_WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNIT_MINUTES = {"m": 1, "h": 60, "d": DAY_MINUTES}


class WantedCandles(NamedTuple):
    """A page of candles as it was asked for: those that begin from the first bound on and before
    the second, at most so many.
    """

    interval_us: int
    bounds: tuple[int | None, int | None]
    limit: int


def read_candles(query: Mapping[str, str]) -> WantedCandles:
    """Of `interval`, `start`, `end` and `limit`.

    Raises:
        Problem: 400 `validation_failed`.
    """
    errors: Errors = []
    minutes = INTERVAL_MINUTES.get(query["interval"])
    if minutes is None:
        detail = f"one of {', '.join(INTERVAL_MINUTES)}"
        errors.append(FieldError("interval", "invalid_value", detail))
    start, end = (_time(query, name, errors) for name in ("start", "end"))
    if start is not None and end is not None and end <= start:
        errors.append(FieldError("end", "out_of_range", "must be after start"))
    if errors or minutes is None:
        raise invalid(errors)
    limit = whole_number(query, "limit", DEFAULT_CANDLES, MAX_CANDLES)
    return WantedCandles(minutes * MINUTE_US, (start, end), limit)


def _time(query: Mapping[str, str], name: str, errors: Errors) -> int | None:
    text = query.get(name)
    # A plus sign that was not percent-encoded arrives as a space.
    return None if text is None else read_time(name, text.replace(" ", "+"), errors)


def read_window(query: Mapping[str, str]) -> int:
    """Minutes of `window`.

    Raises:
        Problem: 400 `validation_failed`.
    """
    match = _WINDOW.fullmatch(query.get("window", DEFAULT_WINDOW))
    minutes = int(match[1]) * _UNIT_MINUTES[match[2]] if match else 0
    if not 0 < minutes <= MAX_WINDOW_DAYS * DAY_MINUTES:
        detail = f"minutes, hours or days as 90m, 24h or 7d, up to {MAX_WINDOW_DAYS}d"
        raise invalid([FieldError("window", "invalid_value", detail)])
    return minutes
