"""What each client holds, at what cost, and what was gained, by REST and in the table: always what
the trades make it.
"""

import random
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

import pytest

from tests import sql_truth
from tests.conftest import ListInstrument
from tests.flow import Crowd
from tests.rest import Api, Json, check_problem, codes_by_field
from tests.system import System

TICK, LOT, NOTIONAL = Decimal("0.01"), Decimal("0.001"), Decimal("0.00001")
TRADERS: Final = 6
STEPS: Final = 60
"""Of each trader."""


def trade(api: Api, symbol: str, buyer: str, seller: str, price: str, quantity: str) -> None:
    body = {"instrument": symbol, "price": price, "quantity": quantity}
    api.placed(body | {"client_id": seller, "side": "sell"})
    api.placed(body | {"client_id": buyer, "side": "buy"})


def position(system: System, symbol: str, client: str) -> Json:
    """What it is once all is written down."""
    system.settled()
    (found,) = system.api.found("/positions", client_id=client, instrument=symbol)["positions"]
    document: Json = found
    return document


def test_a_position_is_told_with_every_field(
    system: System, list_instrument: ListInstrument
) -> None:
    """Average cost: enlarged, reduced, turned over; each by exact figures."""
    symbol = list_instrument(str(TICK), str(LOT), maker_fee_bps="-1", taker_fee_bps="2.5")
    trade(system.api, symbol, "ann", "bob", "100.00", "1")
    trade(system.api, symbol, "ann", "bob", "100.01", "2")
    ann = {"client_id": "ann", "instrument": symbol}
    assert position(system, symbol, "ann") == ann | {
        "quantity": "3.000",
        "average_cost": "100.01",  # 100.00666…
        "realised_pnl": "0.00000",
        "fees": "0.075005",
        "bought_quantity": "3.000",
        "sold_quantity": "0.000",
        "trades": 2,
        "sequence": 4,
    }
    trade(system.api, symbol, "bob", "ann", "110.00", "1")
    assert position(system, symbol, "ann") == ann | {
        "quantity": "2.000",
        "average_cost": "100.01",
        "realised_pnl": "9.99333",  # 110 - 300.02 / 3, of which a third of a unit stays
        "fees": "0.064005",
        "bought_quantity": "3.000",
        "sold_quantity": "1.000",
        "trades": 3,
        "sequence": 6,
    }
    trade(system.api, symbol, "bob", "ann", "90.00", "5")
    assert position(system, symbol, "ann") == ann | {
        "quantity": "-3.000",
        "average_cost": "90.00",
        "realised_pnl": "-10.02000",  # 110 + 180 - 300.02
        "fees": "0.019005",
        "bought_quantity": "3.000",
        "sold_quantity": "6.000",
        "trades": 4,
        "sequence": 8,
    }
    trade(system.api, symbol, "ann", "bob", "80.00", "3")
    flat = position(system, symbol, "ann")
    assert (flat["quantity"], flat["average_cost"]) == ("0.000", None)
    assert flat["realised_pnl"] == "19.98000", "all of it is in money now"
    assert position(system, symbol, "bob")["realised_pnl"] == "-19.98000"


def test_a_trade_with_oneself_gains_nothing(system: System, symbol: str) -> None:
    trade(system.api, symbol, "eve", "bob", "100", "4")
    before = position(system, symbol, "eve")
    trade(system.api, symbol, "eve", "eve", "900", "3")
    after = position(system, symbol, "eve")
    same = {"quantity", "average_cost", "realised_pnl", "fees", "client_id", "instrument"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert (after["bought_quantity"], after["sold_quantity"], after["trades"]) == ("7", "3", 3)


def test_positions_are_of_one_client_in_all_instruments(
    system: System, list_instrument: ListInstrument
) -> None:
    symbols = [list_instrument() for _ in range(3)]
    for symbol in symbols[:2]:
        trade(system.api, symbol, "uma", "bob", "100", "1")
    system.settled()
    found = system.api.found("/positions", client_id="uma")["positions"]
    assert [(one["instrument"], one["client_id"]) for one in found] == [
        (symbol, "uma") for symbol in sorted(symbols[:2])
    ]
    assert system.api.found("/positions", client_id="uma", instrument=symbols[2]) == {
        "positions": []
    }
    assert system.api.found("/positions", client_id="nobody") == {"positions": []}


@pytest.mark.parametrize(
    ("query", "errors"),
    [
        ({}, {"client_id": "required"}),
        ({"client_id": ""}, {"client_id": "invalid_value"}),
        ({"client_id": "ann", "side": "buy"}, {"side": "unknown_field"}),
    ],
)
def test_what_is_asked_wrongly_is_named(api: Api, query: Json, errors: dict[str, str]) -> None:
    problem = check_problem(api.get("/positions", **query), 400, "validation_failed", "/positions")
    assert codes_by_field(problem) == errors


def test_an_unknown_instrument_is_not_found(api: Api) -> None:
    answer = api.get("/positions", client_id="ann", instrument="NIL-USD")
    check_problem(answer, 404, "instrument_not_found", "/positions")


def test_positions_and_candles_equal_plain_sql_over_the_trades(
    system: System, rng: random.Random
) -> None:
    """However the persister's batches were cut; and each answer is what the row is."""
    symbol = system.list_instrument(maker_fee_bps="-0.3", taker_fee_bps="1.7")
    Crowd(system.api, symbol, rng, TRADERS).trade(STEPS)
    system.api.changed_rules(symbol, status="halted")
    system.settled()
    with system.postgres() as connection:
        sql_truth.check(connection, symbol)
        truth = [row for row in sql_truth.positions(connection) if row[1] == symbol]
    assert len(truth) > 1
    for client, _, quantity, fees, bought, sold, *_, trades, cost, realised in truth:
        found = position(system, symbol, client)
        average = (cost / quantity).quantize(Decimal(1), ROUND_HALF_EVEN) if quantity else None
        assert found["average_cost"] == (None if average is None else str(average))
        amounts = ("quantity", "fees", "bought_quantity", "sold_quantity", "realised_pnl")
        assert [Decimal(found[name]) for name in amounts] == [
            *(quantity, fees, bought, sold, realised)
        ]
        assert found["trades"] == trades
