"""The simulated traders, on the product's own batches and scripts under fakeredis: the same seed
sends the same, nothing that they send is malformed, and what they leave open has a bound.
"""

import json
import random
import statistics
from decimal import Decimal
from threading import Event

import fakeredis
import pytest

from app.api.batches import MAX_ITEMS, Batches
from app.api.markets import Markets
from app.api.outcomes import Outcomes
from app.cli import main
from app.domain.instruments import DEFAULT_INSTRUMENTS, Instrument, Market, list_instrument
from app.engine.reads import BookReads
from app.simulation import session, takers
from app.simulation.arrivals import Arrivals
from app.simulation.client import ServerAway
from app.simulation.fair_price import DISTANCE_BPS_MAX, FairPrice
from app.simulation.floor import Floor
from app.simulation.makers import LEVELS, MAKERS, Maker
from app.simulation.options import INSTRUMENTS_MAX, Options
from app.simulation.orders import Item
from app.simulation.session import BATCH_ITEMS, ROUND_S
from app.simulation.traders import OPEN_ORDERS_MAX, Traders
from tests.venue import EngineVenue

RATE_PER_S = 40.0
ROUNDS = 200
BITCOIN = DEFAULT_INSTRUMENTS[0]


class NothingElse:
    """A Postgres without orders: what Redis does not know there never was."""

    def has_order(self, *_which: object) -> bool:
        return False


class Server:
    """POST /orders/batch without HTTP, with one instrument; remembers what it was sent."""

    def __init__(self, instrument: Instrument) -> None:
        client = fakeredis.FakeRedis()
        client.flushall()
        reads = BookReads(client)
        reads.announce(instrument)
        self.venue = EngineVenue(client, symbol=instrument.symbol)
        outcomes = Outcomes(reads, NothingElse())  # type: ignore[arg-type]
        self._batches = Batches(self.venue.books, Markets(reads), outcomes)
        self.sent: list[Item] = []
        self.answers: list[Item] = []

    def batch(self, items: list[Item]) -> list[Item]:
        self.sent += items
        document = json.loads(self._batches.run(json.dumps({"items": items}).encode(), "r"))
        self.answers += document["results"]
        results: list[Item] = document["results"]
        return results

    def open_orders(self) -> int:
        return int(self.venue.client.zcard(self.venue.keys.owners))  # type: ignore[arg-type]


def named_takers(server: Server) -> list[tuple[str, str]]:
    """Name and client of each order that a taker placed."""
    placed = [item for item in server.sent if item["op"] == "place"]
    names = [(item["client_order_id"], item["client_id"]) for item in placed]
    return [(name, client) for name, client in names if "taker" in client]


def trade(seed: int, instrument: Instrument = BITCOIN, rounds: int = ROUNDS) -> Server:
    """`rounds` of one instrument's traders."""
    server = Server(instrument)
    traders = Traders(Market(instrument), RATE_PER_S, seed)
    for _ in range(rounds):
        intents = traders.advance(ROUND_S)
        if not intents:
            continue
        results = server.batch([intent.item for intent in intents])
        for intent, result in zip(intents, results, strict=True):
            traders.answered(intent, result["status"], result["body"])
        assert server.open_orders() <= traders.open_orders <= OPEN_ORDERS_MAX
        assert traders.trouble is None
    return server


@pytest.fixture(scope="module")
def traded() -> Server:
    """One run that several tests look at."""
    return trade(seed=1)


def test_the_same_seed_sends_the_same_and_another_one_does_not(traded: Server) -> None:
    again, other = trade(seed=1, rounds=80).sent, trade(seed=2, rounds=4).sent
    assert again == traded.sent[: len(again)]
    assert other != traded.sent[: len(other)]


def test_nothing_that_is_sent_is_malformed(traded: Server) -> None:
    codes = {answer["body"].get("code") for answer in traded.answers} - {None}
    # Of the market, not of the form: an amendment may come too late, a stop may be passed.
    expected = {"post_only_would_cross", "stop_would_trigger", "order_not_found", "order_not_open"}
    assert codes <= expected


def test_makers_and_takers_trade_with_every_kind_of_order(traded: Server) -> None:
    placed = [item for item in traded.sent if item["op"] == "place"]
    assert {item["type"] for item in placed} == {"limit", "market", "stop", "stop_limit"}
    assert {item["op"] for item in traded.sent} == {"place", "amend", "cancel"}
    assert any("display_quantity" in item for item in placed)
    assert {item.get("time_in_force") for item in placed} == {None, "ioc", "fok"}
    trades = [trade for answer in traded.answers for trade in answer["body"].get("trades", ())]
    assert len(trades) > len(placed) / 20
    accepted = [answer for answer in traded.answers if answer["status"] in (200, 201)]
    assert len(accepted) > 0.9 * len(traded.answers)


def test_the_book_is_quoted_on_both_sides_around_a_narrow_spread(traded: Server) -> None:
    depth = traded.venue.books.depth(BITCOIN.symbol, 100)
    assert min(len(depth.bids), len(depth.asks)) >= 10
    bid, ask = depth.bids[0].price_ticks, depth.asks[0].price_ticks
    assert 0 < ask - bid < 0.001 * bid
    # Where it began, give or take what a price moves in a quarter of a minute.
    assert abs(bid / 6_500_000 - 1) < 0.01


@pytest.mark.parametrize(
    ("tick", "lot", "max_price"),
    [
        ("1", "1", "2"),
        ("1", "1", "20"),
        ("0.05", "1", None),
        ("0.000000000000000001", "1000000", "0.009"),
    ],
)
def test_any_instrument_can_be_traded(tick: str, lot: str, max_price: str | None) -> None:
    """Also one whose price has no room below it, and one with all the decimals that there are."""
    most = None if max_price is None else Decimal(max_price)
    instrument = list_instrument("ODD-USD", Decimal(tick), Decimal(lot), most)
    server = trade(seed=3, instrument=instrument, rounds=80)
    codes = {answer["body"].get("code") for answer in server.answers}
    assert "validation_failed" not in codes
    assert any(answer["body"].get("trades") for answer in server.answers)


def test_a_maker_without_room_on_one_side_quotes_the_other() -> None:
    rng = random.Random(11)
    instrument = list_instrument("ODD-USD", Decimal(1), Decimal(1), Decimal(2))
    floor = Floor(Market(instrument), RATE_PER_S, rng)
    maker = Maker(floor, 0, "maker", rng)
    floor.fair.push(-500.0)  # below one tick: nobody can bid less
    sent = [maker.act() for _ in range(50)]
    assert all(sent)
    assert {intent.order.side for intents in sent for intent in intents} == {"sell"}


def test_the_oldest_patient_order_goes_when_there_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(takers, "PATIENT_ORDERS_MAX", 5)
    monkeypatch.setattr(takers, "TAKEN_BACK_SHARE", 0.0)
    server = trade(seed=10)
    cancels = [item["client_order_id"] for item in server.sent if item["op"] == "cancel"]
    taken_back = [name for name, client in named_takers(server) if name in cancels]
    left = server.open_orders() - 2 * LEVELS * MAKERS
    assert taken_back
    assert left <= 5


def test_after_an_interruption_all_is_taken_back_and_quoted_anew() -> None:
    server = Server(BITCOIN)
    traders = Traders(Market(BITCOIN), RATE_PER_S, 4)
    lost = traders.advance(ROUND_S)
    # The server did what it was asked, and its answers never arrived.
    server.batch([intent.item for intent in lost])
    assert server.open_orders() > 20
    again = traders.resume()
    for intents in (again, traders.advance(ROUND_S)):
        results = server.batch([intent.item for intent in intents])
        for intent, result in zip(intents, results, strict=True):
            traders.answered(intent, result["status"], result["body"])
    assert [intent.is_order for intent in again].count(True) == 1
    assert 20 < server.open_orders() == traders.open_orders


class Interrupted:
    """A client of a server that takes the first batch and never answers it; with the next one the
    simulation is stopped.
    """

    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self.batches: list[list[Item]] = []

    def get(self, path: str, **_query: object) -> Item:
        sizes = {
            "tick_size": "0.01",
            "lot_size": "0.001",
            "max_price": "1e6",
            "max_quantity": "1e6",
        }
        listed = [{"symbol": "BTC-USD", "status": "open"} | sizes]
        return {
            "/instruments": {"instruments": listed},
            "/trades": {"trades": []},
            "/orderbook": {"bids": [], "asks": []},
        }[path]

    def delete(self, _path: str, **_query: object) -> Item:
        return {"cancelled": [], "complete": True, "halted": []}

    def batch(self, items: list[Item]) -> list[tuple[int, Item]]:
        self.batches.append(items)
        if len(self.batches) == 1:
            raise ServerAway("no answer")
        self._stop.set()
        return [(404, {"code": "order_not_found"}) for _ in items]


def test_a_session_takes_back_what_was_never_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, said = Event(), list[str]()
    client = Interrupted(stop)
    monkeypatch.setattr(session, "ApiClient", lambda _url: client)
    assert session.Session(Options(url="http://there"), stop, said.append).run()
    lost, again, *_ = client.batches
    placed = {item["client_order_id"] for item in lost if item["op"] == "place"}
    cancelled = {item["client_order_id"] for item in again if item["op"] == "cancel"}
    assert len(placed) > 20
    assert placed <= cancelled
    assert any("the server is away (no answer)" in line for line in said)


def answer_all(traders: Traders, status: int, code: str) -> None:
    for intent in traders.advance(1.0):
        traders.answered(intent, status, {"code": code})


def test_what_concerns_all_orders_of_an_instrument_is_trouble() -> None:
    for status, code, is_trouble in (
        (503, "backlog_full", True),
        (422, "instrument_halted", True),
        (422, "cancel_only", True),
        (422, "price_band", True),  # not one order: all of a second
        (422, "post_only_would_cross", False),
        (422, "risk_limit", False),
    ):
        traders = Traders(Market(BITCOIN), RATE_PER_S, 5)
        answer_all(traders, status, code)
        assert (traders.trouble == code) is is_trouble, code


def test_arrivals_come_at_the_asked_rate_and_in_clusters() -> None:
    seconds = 4_000
    arrivals = Arrivals(10.0, random.Random(6))
    counts = [len(arrivals.until(second)) for second in range(1, seconds + 1)]
    assert statistics.mean(counts) == pytest.approx(10.0, rel=0.1)
    # Independent ones (Poisson's) would have 1.
    assert statistics.variance(counts) / statistics.mean(counts) > 2.0


def test_the_moments_of_arrivals_only_grow() -> None:
    arrivals = Arrivals(50.0, random.Random(7))
    moments = [moment for step in range(1, 201) for moment in arrivals.until(step * ROUND_S)]
    assert moments == sorted(moments)
    assert moments[-1] <= 200 * ROUND_S


def test_the_fair_price_wanders_and_stays_within_bounds() -> None:
    price = FairPrice(10_000, 5.0, random.Random(8))
    walk = []
    for _ in range(20_000):
        price.step()
        walk.append(price.ticks)
    assert statistics.stdev(walk) > 20
    assert statistics.mean(walk) == pytest.approx(10_000, rel=0.03)
    price.push(10**9)
    assert price.ticks == pytest.approx(10_000 * 2.718281828 ** (DISTANCE_BPS_MAX / 10_000))


def test_a_round_fits_the_servers_batches() -> None:
    assert BATCH_ITEMS <= MAX_ITEMS


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rate", "0"],
        ["--rate", "nan"],
        ["--rate", "1e9"],
        ["--seconds", "-1"],
        ["--seed", "-1"],
        ["--seed", "one"],
        ["--url", "127.0.0.1:3000"],
        ["--url", "ftp://127.0.0.1"],
        ["--instruments", "btc"],
        ["--instruments", ",".join(f"A{n:03}-USD" for n in range(INSTRUMENTS_MAX + 1))],
    ],
)
def test_a_wrong_argument_ends_it_before_it_begins(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    assert f"argument {arguments[0]}: give " in capsys.readouterr().err
