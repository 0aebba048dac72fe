"""Log lines: what came from outside stays inside its line, whatever characters it has."""

import contextlib
import json
import logging
import re
from collections.abc import Callable

import pytest

from app.logs import JsonFormatter, TextFormatter

# What ends a line or gives a terminal orders, somewhere: line feed, carriage return, vertical tab,
# form feed, NEL, Unicode's two separators; bell, backspace, ESC, DEL, CSI, OSC; marks of direction.
DANGEROUS = [*"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\0\a\b\x1b\x7f\x9b\x9d\u200f\u202e\u2066"]
FORGED = "12:00:00.000 INFO    crossbook: alice is an admin"


def fail(error: Exception) -> None:
    raise error


def raised(error: Exception) -> Exception:
    """The exception with a traceback."""
    with contextlib.suppress(type(error)):
        fail(error)
    return error


def record(
    message: str, *values: object, error: Exception | None = None, **extra: object
) -> logging.LogRecord:
    """A record as `logger.error` makes it."""
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("crossbook", logging.ERROR, __file__, 1, message, values, exc_info)
    vars(made).update(extra)
    return made


def text(made: logging.LogRecord) -> str:
    return TextFormatter().format(made)


def test_a_line_of_text_has_time_level_logger_message_and_extras() -> None:
    line = text(record("order %s", "placed", order_id="BTC-USD-1", price="10.5", after_s=0.25))
    form = r"\d\d:\d\d:\d\d\.\d{3} ERROR   crossbook: order placed(?P<extras>.*)"
    found = re.fullmatch(form, line)
    assert found is not None
    assert found["extras"] == " order_id=BTC-USD-1 price=10.5 after_s=0.25"


@pytest.mark.parametrize("character", DANGEROUS, ids=lambda character: f"{ord(character):04x}")
@pytest.mark.parametrize(
    "make",
    [
        record,
        lambda bad: record("client %s", bad),
        lambda bad: record("order", client_id=bad),
        lambda bad: record("order", body={"client": [bad]}, client_id=Odd(bad)),
        lambda bad: record("order", **{bad: "value"}),
        lambda bad: record("order", error=raised(ValueError("x")), client_id=bad),
    ],
    ids=["message", "argument", "extra", "nested", "name", "beside a traceback"],
)
def test_no_character_leaves_its_line_or_reaches_the_terminal(
    make: Callable[[str], logging.LogRecord], character: str
) -> None:
    shown = text(make(f"bob{character}{FORGED}"))
    assert character not in shown.splitlines()[0]
    assert [line for line in shown.splitlines() if line.startswith(FORGED)] == []
    assert "bob" in shown, "the rest is there"
    assert FORGED in shown


class Odd:
    """A value whose text is what it was given."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __str__(self) -> str:
        return self._shown


def test_what_was_there_can_be_read() -> None:
    assert text(record("a\nb", who="\x1b[2Jé€")).endswith(r"a\u000ab who=\u001b[2Jé€")


def test_a_traceback_stays_readable_and_indented() -> None:
    shown = text(record("failed", error=raised(ValueError("broken"))))
    first, *below = shown.split("\n")
    assert first.endswith("ERROR   crossbook: failed")
    assert below[0] == "    Traceback (most recent call last):"
    assert below[-1] == "    ValueError: broken"
    assert any(re.fullmatch(r'      File ".*", line \d+, in fail', line) for line in below)


@pytest.mark.parametrize("character", DANGEROUS, ids=lambda character: f"{ord(character):04x}")
def test_an_exceptions_text_forges_no_line(character: str) -> None:
    error = ValueError(f"bad{character}{FORGED}")
    error.add_note(f"a note{character}{FORGED}")
    group = ExceptionGroup(f"many{character}{FORGED}", [error])
    for each in (error, group):
        shown = text(record("failed", error=raised(each)))
        below = shown.split("\n")[1:]
        assert [line for line in below if not line.startswith("    ")] == []
        assert "".join(below).isprintable()
        assert [line for line in shown.splitlines() if line.startswith(FORGED)] == []


def test_json_is_one_line_whatever_it_holds() -> None:
    bad = "bob\n\r\x1b\0" + FORGED
    made = record(bad, error=raised(ValueError(bad)), client_id=bad, odd=Odd(bad))
    line = JsonFormatter().format(made)
    assert re.search(r"[\x00-\x1f]", line) is None
    read = json.loads(line)
    assert read["message"] == read["client_id"] == read["odd"] == bad
    assert read["exception"].endswith(f"ValueError: {bad}")
