"""The model of a book that snapshots, rebuilding and audits share: on generated tapes its text is
that of the reference and of what lies in Redis, and no number of an event can be altered unnoticed.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import islice

import fakeredis
import pytest
from redis import Redis

from app.domain.book_state import FORMAT, BookState, Inconsistent, digest_of
from app.domain.orders import parse_record
from app.domain.rules import Rules
from app.engine.layout import PROCESS_FIELDS, field_of, read_book, settings_of, standing_of
from tests.differential import KINDS, PipelinedVenue, Tape
from tests.reference import ReferenceBook
from tests.reference.digest import book_digest, book_lines
from tests.venue import SYMBOL

Fields = dict[str, str]

TAPE_LENGTH = 900
SETS = ("bids", "asks", "buy_stops", "sell_stops", "owners", "expiries")
AT_ONCE = 40
"""Commands between two looks at the whole book."""


@pytest.fixture
def client() -> Iterator[Redis]:
    server = fakeredis.FakeRedis()
    yield server
    server.flushall()


def play(
    client: Redis, tape: Tape
) -> Iterator[tuple[PipelinedVenue, ReferenceBook, list[tuple[int, Fields]]]]:
    """The tape in portions, each with the events that it led to."""
    venue, book = PipelinedVenue(client, tape.scripts()), tape.book()
    commands = tape.commands(book)
    while list(islice(commands, AT_ONCE)):
        before = _last(client, venue)
        venue.apply_all([heard.command for heard in book.heard], together=tape.together)
        book.heard.clear()
        yield venue, book, _events(client, venue, before)


def _last(client: Redis, venue: PipelinedVenue) -> int:
    return int(client.hget(venue.keys.book, "sequence") or 0)  # type: ignore[arg-type]


def _events(client: Redis, venue: PipelinedVenue, after: int) -> list[tuple[int, Fields]]:
    entries = client.xrange(venue.keys.events, f"({after}-0", "+")
    return [
        (int(entry_id.partition(b"-")[0]), {n.decode(): v.decode() for n, v in fields.items()})
        for entry_id, fields in entries  # type: ignore[union-attr]
    ]


@cache
def history() -> list[tuple[int, Fields]]:
    """The events of one tape on which every kind of event and order is met."""
    portions = play(fakeredis.FakeRedis(), Tape(7 * KINDS, TAPE_LENGTH, low_limits=True))
    return [event for _, _, events in portions for event in events]


@pytest.mark.parametrize("low_limits", [False, True], ids=["usual limits", "low limits"])
@pytest.mark.parametrize("seed", range(KINDS))
def test_events_redis_and_the_reference_make_the_same_text(
    client: Redis, seed: int, low_limits: bool
) -> None:
    """Also where the model is now and then put down as text and read back."""
    followed = kept = BookState.empty(SYMBOL, Rules())
    for venue, book, events in play(client, Tape(seed, TAPE_LENGTH, low_limits)):
        for sequence, fields in events:
            followed.apply(sequence, fields)
            if kept is not followed:
                kept.apply(sequence, fields)
        assert list(followed.lines()) == list(book_lines(book, SYMBOL))
        assert followed.digest() == kept.digest() == book_digest(book, SYMBOL)
        assert followed.waiting == book.reached()
        if events:
            client.hset(venue.keys.book, "time", str(followed.time_us))
            assert list(read_book(client, SYMBOL).lines()) == list(followed.lines())
            client.hset(venue.keys.book, "time", str(book.now_us))
        kept = BookState.from_lines(followed.lines())
        assert same_inside(kept, followed)


@pytest.mark.parametrize("low_limits", [False, True], ids=["usual limits", "low limits"])
def test_every_key_of_a_book_is_what_the_layout_says(client: Redis, low_limits: bool) -> None:
    """But for orders that are over, and a range that outlasts the stops that waited."""
    state = BookState.empty(SYMBOL, Rules())
    for venue, book, events in play(client, Tape(2 * KINDS, TAPE_LENGTH, low_limits)):
        for sequence, fields in events:
            state.apply(sequence, fields)
        ours = laid_out(state) | {"time": str(book.now_us)}
        assert in_redis(client, venue, with_range=state.waiting is not None) == ours


def laid_out(state: BookState) -> dict[str, object]:
    """The book's hash field by field, and every other key by its name."""
    found: dict[str, object] = dict(settings_of(state))
    sets: dict[str, dict[str, int]] = {name: {} for name in SETS}
    ids: dict[str, str] = {}
    for number, text in state.orders.items():
        found[field_of(number)] = text
        standing = standing_of(parse_record(number, text))
        sets[standing.key][standing.member] = standing.score
        sets["owners"][standing.owner] = 0
        if standing.client_order_id:
            ids[standing.client_order_id] = field_of(number)
        if standing.expires_us is not None:
            sets["expiries"][field_of(number)] = standing.expires_us
    return found | sets | {"timers": state.timers, "client_order_ids": ids}


def in_redis(client: Redis, venue: PipelinedVenue, *, with_range: bool) -> dict[str, object]:
    """The same as it lies there."""
    left_out = (
        set(PROCESS_FIELDS) if with_range else {*PROCESS_FIELDS, "trigger_low", "trigger_high"}
    )
    found: dict[str, object] = {
        name: text
        for name, text in venue.state().items()
        if name not in left_out
        and not (name.isdigit() and not parse_record(int(name), text).is_open)
    }
    for name in (*SETS, "timers"):
        members = client.zrange(getattr(venue.keys, name), 0, -1, withscores=True)
        found[name] = {member.decode(): int(score) for member, score in members}  # type: ignore[union-attr]
    ids = client.hgetall(venue.keys.client_order_ids)
    return found | {
        "client_order_ids": {own.decode(): number.decode() for own, number in ids.items()}  # type: ignore[union-attr]
    }


def same_inside(one: BookState, other: BookState) -> bool:
    """Also what the text does not show but is kept for the next events."""
    names = ("orders", "levels", "open_counts", "client_order_ids", "timers", "killed", "pending")
    return all(getattr(one, name) == getattr(other, name) for name in names) and (
        one.next_triggered() == other.next_triggered()
    )


def test_a_text_read_back_takes_only_what_is_a_book() -> None:
    lines = list(_state_with_orders().lines())
    assert lines[0] == FORMAT
    for position, line in enumerate(lines):
        without = lines[:position] + lines[position + 1 :]
        if not line.startswith(("last", "killed", "timer", *_ORDERS)):
            with pytest.raises(Inconsistent):
                BookState.from_lines(without)
        with pytest.raises(Inconsistent):
            BookState.from_lines([*lines, "note something"])
    for order in (line for line in lines if line.startswith(_ORDERS)):
        with pytest.raises(Inconsistent):
            BookState.from_lines([*lines, order])


def test_the_digest_is_that_of_the_lines_joined_by_newlines() -> None:
    state = BookState.empty(SYMBOL, Rules())
    text = (
        "crossbook-book 1\ninstrument BTC-USD\nsequence 0\ntime 0\n"
        "rules status=open maker_fee_bps=0 taker_fee_bps=0"
    )
    assert "\n".join(state.lines()) == text
    assert state.digest() == digest_of(text.split("\n"))
    assert digest_of([text]) == state.digest()


_ORDERS = ("bid", "ask", "buy_stop", "sell_stop", "waiting_")


def _state_with_orders() -> BookState:
    """The state of the history at its fullest."""
    state = BookState.empty(SYMBOL, Rules())
    fullest = BookState.from_lines(state.lines())
    for sequence, fields in history():
        state.apply(sequence, fields)
        if len(state.orders) > len(fullest.orders):
            fullest = BookState.from_lines(state.lines())
    return fullest


def test_an_event_comes_once_and_in_its_turn() -> None:
    state = BookState.empty(SYMBOL, Rules())
    events = history()
    for sequence, fields in events[:50]:
        for wrong in (sequence - 1, sequence + 1):
            with pytest.raises(Inconsistent, match=f"event {wrong}: it comes after"):
                state.apply(wrong, fields)
        state.apply(sequence, fields)


@pytest.mark.parametrize("field", ["type", "time", "orders", "fills", "levels"])
def test_an_event_without_a_field_is_refused(field: str) -> None:
    sequence, fields = history()[0]
    with pytest.raises(Inconsistent, match="event 1: unreadable"):
        BookState.empty(SYMBOL, Rules()).apply(sequence, _without(fields, field))


def _without(fields: Fields, name: str) -> Fields:
    return {key: text for key, text in fields.items() if key != name}


def test_no_number_of_an_event_can_be_altered_unnoticed() -> None:
    """But for what nobody else knows: what a new order, or one that is amended, asks for, when
    something happened that changes no order, and which of a command's refills an iceberg's place
    is. The state stays as it was.
    """
    rng = random.Random(1)
    state = BookState.empty(SYMBOL, Rules())
    altered_fields = Counter[str]()
    for sequence, fields in history():
        before = list(state.lines())
        for field in ("time", "orders", "fills", "levels"):
            altered = _altered(rng, field, fields)
            altered_fields[field] += altered is not None
            if altered is not None and _is_taken(state, sequence, altered):
                pytest.fail(f"event {sequence}: {fields[field]} as {altered[field]}")
        assert list(state.lines()) == before
        state.apply(sequence, fields)
    assert min(altered_fields.values()) > 100


def _is_taken(state: BookState, sequence: int, fields: Fields) -> bool:
    try:
        state.apply(sequence, fields)
    except Inconsistent:
        return False
    return True


def _altered(rng: random.Random, field: str, fields: Fields) -> Fields | None:
    """One number of a field a little higher; None where there is none that others know."""
    text, known = fields[field], 0
    if field == "orders" and fields["type"] in ("place", "amend"):
        known = len(text.partition("\n")[0])
    if field == "time" and not fields["orders"]:
        return None
    numbers = [match.span() for match in re.compile(r"(?<![.0-9])[0-9]+").finditer(text, known)]
    if not numbers:
        return None
    start, end = rng.choice(numbers)
    number = f"{int(text[start:end]) + 1:0{end - start}d}"
    return fields | {field: text[:start] + number + text[end:]}
