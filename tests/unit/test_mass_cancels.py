"""Mass cancels step by step: whose orders, in which order, how many, and how far when it is cut."""

import fakeredis
import pytest

from app.api import mass_cancels
from app.api.mass_cancels import MassCancel, MassCancels
from app.domain.instruments import DEFAULT_INSTRUMENTS
from app.domain.refusals import Reason
from app.domain.rules import Rules
from app.engine import halts
from app.engine.book import Books
from app.engine.commands import NewOrder, Placed, Refused
from app.engine.executor import DirectExecutor, EngineUnavailable
from app.engine.keys import INSTRUMENTS
from app.engine.reads import BookReads

SYMBOLS = sorted(instrument.symbol for instrument in DEFAULT_INSTRUMENTS[:3])
HERE = SYMBOLS[0]


class Desk:
    """Three books in a fakeredis."""

    def __init__(self) -> None:
        self.client = client = fakeredis.FakeRedis()
        client.flushall()
        self.books = Books(DirectExecutor(client), 60)
        self.reads = BookReads(client)
        self.cancels = MassCancels(self.books, self.reads)
        for instrument in DEFAULT_INSTRUMENTS[:3]:
            self.reads.announce(instrument)
            self.books.open(instrument.symbol)

    def place(self, symbol: str, client: str, side: str = "buy") -> str:
        order = NewOrder(
            side=side,
            type="limit",
            time_in_force="gtc",
            price_ticks=10 if side == "buy" else 20,
            quantity_lots=1,
            client_id=client,
        )
        placed = self.books.place(symbol, order)
        assert isinstance(placed, Placed)
        return f"{symbol}-{placed.order.number:014}"

    def cancel(
        self, client: str | None = None, symbol: str | None = None, side: str | None = None
    ) -> tuple[list[str], bool, list[str]]:
        wanted = MassCancel(client, symbol, side, Reason.CANCELLED_BY_CLIENT)
        swept = self.cancels.run(wanted)
        return swept.cancelled, swept.complete, swept.halted


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_clients_whose_names_begin_alike_are_told_apart(desk: Desk) -> None:
    names = ["a", "a!", "a}", "aa", "a 1", "b", "1", "a:"]
    placed = {name: [desk.place(HERE, name) for _ in range(2)] for name in names}
    for name in names:
        assert desk.cancel(name, HERE) == (placed[name], True, [])


def test_every_client_of_an_instrument_is_found_once(desk: Desk) -> None:
    names = ["zoe", "a", "a!", "a}", "aa", "1", "a:"]
    placed = {name: [desk.place(HERE, name) for _ in range(3)] for name in names}
    elsewhere = desk.place(SYMBOLS[1], "zoe")
    by_index = sorted(names, key=lambda name: name + "|")
    expected = [order for name in by_index for order in placed[name]]
    assert desk.cancel(symbol=HERE) == (expected, True, [])
    assert desk.cancel(symbol=HERE) == ([], True, [])
    assert desk.cancel("zoe") == ([elsewhere], True, [])


def test_orders_of_the_other_side_are_passed_over(desk: Desk) -> None:
    bought, sold = desk.place(HERE, "ann"), desk.place(HERE, "ann", "sell")
    assert desk.cancel(symbol=HERE, side="sell") == ([sold], True, [])
    assert desk.cancel("ann", side="buy") == ([bought], True, [])


def test_a_cut_one_goes_on_where_it_was_cut(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the clients and of the instruments, until all are cancelled once."""
    monkeypatch.setattr(mass_cancels, "MAX_CANCELLED_IDS", 3)
    mine = [desk.place(symbol, "ann") for symbol in SYMBOLS for _ in range(2)]
    told: list[str] = []
    complete = False
    while not complete:
        cancelled, complete, _ = desk.cancel("ann")
        told += cancelled
        assert len(cancelled) <= 4
    assert told == mine


def test_of_a_halted_instrument_not_every_client_is_looked_at(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for client in ("ann", "bob", "cyd"):
        desk.place(HERE, client)
    desk.books.set_rules(HERE, Rules(status="halted"))
    tried: list[str] = []
    mass_cancel = desk.books.mass_cancel
    monkeypatch.setattr(
        desk.books,
        "mass_cancel",
        lambda symbol, client, *more: tried.append(client) or mass_cancel(symbol, client, *more),
    )
    assert desk.cancel(symbol=HERE) == ([], True, [HERE])
    assert tried == ["ann"]


def test_a_halted_instrument_is_left_out_only_where_the_client_has_orders(desk: Desk) -> None:
    kept, other = desk.place(HERE, "ann"), desk.place(SYMBOLS[1], "ann")
    bobs = desk.place(SYMBOLS[2], "bob")
    desk.books.set_rules(HERE, Rules(status="halted"))
    assert desk.cancel("ann") == ([other], True, [HERE])
    assert desk.cancel("ann", HERE) == ([], True, [HERE])
    assert desk.cancel("bob") == ([bobs], True, [])
    desk.books.set_rules(HERE, Rules())
    assert desk.cancel("ann") == ([kept], True, [])


def test_a_book_that_went_back_in_time_keeps_no_other_from_its_cancels(desk: Desk) -> None:
    """Whoever asks for it alone hears what is wrong."""
    kept, other = desk.place(HERE, "ann"), desk.place(SYMBOLS[1], "ann")
    halts.announce(desk.client, halts.Halt(HERE, 2, "redis_behind", "Postgres is at 2"))
    assert desk.cancel("ann") == ([other], True, [HERE])
    with pytest.raises(Refused, match="book_behind"):
        desk.cancel("ann", HERE)
    halts.withdraw(desk.client, HERE)
    assert desk.cancel("ann") == ([kept], True, [])


def test_a_listing_that_cannot_be_read_keeps_no_other_from_anything(desk: Desk) -> None:
    """Somebody wrote into the hash by hand; the persister names it."""
    desk.client.hset(INSTRUMENTS, HERE, "{")
    other = desk.place(SYMBOLS[1], "ann")
    assert [instrument.symbol for instrument in desk.reads.instruments()] == SYMBOLS[1:]
    assert desk.cancel("ann") == ([other], True, [])
    with pytest.raises(EngineUnavailable, match=HERE):
        desk.reads.instrument(HERE)
