"""What can be asked of a simulation on the command line, with its limits. Light: every command's
`--help` imports it.
"""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_RATE_PER_S: Final = 100.0
RATE_PER_S_MAX: Final = 5_000.0
SECONDS_MAX: Final = 30 * 86_400.0
DEFAULT_SEED: Final = 1
SEED_MAX: Final = 10**9
INSTRUMENTS_MAX: Final = 20
"""Also of those that are taken by themselves."""
SYMBOL: Final = re.compile(r"[A-Z0-9]{2,12}-[A-Z0-9]{2,12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A simulation. No `symbols`: those that are open; no `seconds`: until it is stopped."""

    url: str
    rate_per_s: float = DEFAULT_RATE_PER_S
    seconds: float | None = None
    seed: int = DEFAULT_SEED
    symbols: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `simulate`."""
    parser.add_argument(
        "--url",
        type=_url,
        help="of the server; default: http://HOST:PORT of the environment",
    )
    parser.add_argument(
        "--rate",
        type=_number(RATE_PER_S_MAX),
        default=DEFAULT_RATE_PER_S,
        metavar="N",
        help="orders placed or amended a second, on average, of all instruments; cancels come on "
        "top (default: %(default)g)",
    )
    parser.add_argument(
        "--seconds",
        type=_number(SECONDS_MAX),
        metavar="N",
        help="end after so long; default: when it is stopped",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=DEFAULT_SEED,
        metavar="N",
        help="same seed, same flow (default: %(default)s)",
    )
    parser.add_argument(
        "--instruments",
        type=_symbols,
        default=(),
        metavar="A-B,C-D",
        help=f"which; default: the open ones, at most {INSTRUMENTS_MAX}",
    )


def options_of(arguments: argparse.Namespace, default_url: str) -> Options:
    """From what was parsed."""
    return Options(
        url=arguments.url or default_url,
        rate_per_s=arguments.rate,
        seconds=arguments.seconds,
        seed=arguments.seed,
        symbols=arguments.instruments,
    )


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise argparse.ArgumentTypeError("give a URL as http://127.0.0.1:3000")
    return text


def _number(most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= most:  # also false of NaN
            raise argparse.ArgumentTypeError(f"give a number above 0, at most {most:g}")
        return value

    return read


def _seed(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > SEED_MAX:
        raise argparse.ArgumentTypeError(f"give a whole number from 0 to {SEED_MAX}")
    return int(text)


def _symbols(text: str) -> tuple[str, ...]:
    symbols = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(map(SYMBOL.fullmatch, symbols)) or len(symbols) > INSTRUMENTS_MAX:
        allowed = f"give 1 to {INSTRUMENTS_MAX} symbols as BTC-USD,ETH-USD"
        raise argparse.ArgumentTypeError(allowed)
    return symbols
