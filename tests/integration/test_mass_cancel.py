"""All of a client's orders at once: DELETE /orders and the cancel-after timer."""

import pytest

from app.api.mass_cancels import MAX_CANCELLED_IDS
from tests.conftest import ListInstrument
from tests.rest import Answer, Api, Json, an_order, check_problem, codes_by_field
from tests.system import System
from tests.waiting import wait_for

STEP = 250
"""Orders that one command cancels at most."""


def place(api: Api, symbol: str, client: str, side: str = "buy", **fields: object) -> str:
    """An order far from all others; its id."""
    fields = {"price": "100" if side == "buy" else "200", "quantity": "1"} | fields
    order = api.placed(an_order(symbol, client_id=client, side=side, **fields))["order"]
    return str(order["order_id"])


def place_many(api: Api, symbol: str, client: str, count: int) -> list[str]:
    """Resting orders, sent in batches; their ids, oldest first."""
    item = an_order(symbol, op="place", client_id=client, quantity="1")
    ids: list[str] = []
    for start in range(0, count, 1_000):
        results = api.batch([item] * min(1_000, count - start))
        ids += [result["body"]["order"]["order_id"] for result in results]
    return ids


class TestMassCancel:
    """DELETE /orders?client_id=&instrument=&side=."""

    def test_of_a_client_on_an_instrument_oldest_first(self, api: Api, symbol: str) -> None:
        mine = [place(api, symbol, "ann", side) for side in ("buy", "sell", "buy")]
        mine.append(place(api, symbol, "ann", type="stop", price=None, stop_price="150"))
        other = place(api, symbol, "bob")
        assert api.cancelled_all(client_id="ann", instrument=symbol) == mine
        for each in mine:
            order = api.order(each)
            assert (order["status"], order["reason"]) == ("cancelled", "cancelled_by_client")
        assert api.order(other)["status"] == "open"
        assert api.cancelled_all(client_id="ann", instrument=symbol) == []
        depth = api.found("/orderbook", instrument=symbol)
        assert [level["quantity"] for level in depth["bids"] + depth["asks"]] == ["1"]

    def test_of_one_side(self, api: Api, symbol: str) -> None:
        bought, sold = place(api, symbol, "ann"), place(api, symbol, "ann", "sell")
        stop = place(api, symbol, "ann", type="stop", price=None, stop_price="150")
        assert api.cancelled_all(client_id="ann", instrument=symbol, side="sell") == [sold]
        assert api.cancelled_all(client_id="ann", instrument=symbol, side="buy") == [bought, stop]

    def test_of_a_client_everywhere_instrument_by_instrument(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        symbols = [list_instrument() for _ in range(3)]
        client = f"everywhere {symbols[0]}"
        mine = {symbol: [place(api, symbol, client) for _ in range(2)] for symbol in symbols[::-1]}
        expected = [order for symbol in sorted(symbols) for order in mine[symbol]]
        assert api.cancelled_all(client_id=client) == expected

    def test_of_all_clients_of_an_instrument_client_by_client(
        self, api: Api, symbol: str, list_instrument: ListInstrument
    ) -> None:
        elsewhere = place(api, list_instrument(), "ann")
        clients = ["zoe", "ann", "a", "ann 2", "anonymous"]
        placed = [(client, place(api, symbol, client)) for client in clients * 2]
        # In the order of the index that finds them: by the bytes of `<client>|`.
        by_index = sorted(clients, key=lambda name: name + "|")
        expected = [order for name in by_index for who, order in placed if who == name]
        assert api.cancelled_all(instrument=symbol) == expected
        assert api.order(elsewhere)["status"] == "open"

    @pytest.mark.slow
    def test_more_than_one_step_are_cancelled_in_steps(self, system: System, symbol: str) -> None:
        api = system.api
        ids = place_many(api, symbol, "ann", 2 * STEP + 1)
        before = system.sequences()[symbol]
        assert api.cancelled_all(client_id="ann", instrument=symbol) == ids
        assert system.sequences()[symbol] == before + 3, "one event a step"

    @pytest.mark.slow
    def test_an_answer_has_a_bound_and_says_where_there_is_more(
        self, api: Api, symbol: str
    ) -> None:
        ids = place_many(api, symbol, "ann", MAX_CANCELLED_IDS + 5)
        first = api.cancel_all(client_id="ann", instrument=symbol).json()
        assert first == {"cancelled": ids[:MAX_CANCELLED_IDS], "complete": False, "halted": []}
        assert api.cancelled_all(client_id="ann", instrument=symbol) == ids[MAX_CANCELLED_IDS:]

    def test_a_halted_instrument_keeps_its_orders_and_is_named(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        halted, other = list_instrument(), list_instrument()
        client = f"halted {halted}"
        kept, cancelled = place(api, halted, client), place(api, other, client)
        api.changed_rules(halted, status="halted")
        answer = api.cancel_all(client_id=client, instrument=halted)
        check_problem(answer, 422, "instrument_halted", "/orders")
        everywhere = api.cancel_all(client_id=client)
        assert everywhere.status == 200
        assert everywhere.json() == {"cancelled": [cancelled], "complete": True, "halted": [halted]}
        assert api.order(kept)["status"] == "open"

    @pytest.mark.parametrize(
        ("query", "wrong"),
        [
            ({}, {"client_id": "required"}),
            ({"side": "buy"}, {"client_id": "required"}),
            ({"client_id": "a|b"}, {"client_id": "invalid_text"}),
            ({"client_id": "x" * 65}, {"client_id": "invalid_text"}),
            ({"client_id": "ann", "side": "both"}, {"side": "invalid_value"}),
            ({"client_id": "ann", "status": "open"}, {"status": "unknown_field"}),
        ],
    )
    def test_a_bad_query_cancels_nothing(
        self, api: Api, symbol: str, query: dict[str, str], wrong: dict[str, str]
    ) -> None:
        order = place(api, symbol, "ann")
        answer = api.cancel_all(**query)
        problem = check_problem(answer, 400, "validation_failed", "/orders")
        assert codes_by_field(problem) == wrong
        assert api.order(order)["status"] == "open"

    def test_an_unknown_instrument_is_not_found(self, api: Api) -> None:
        answer = api.cancel_all(instrument="NO-USD")
        check_problem(answer, 404, "instrument_not_found", "/orders")


def set_timer(api: Api, symbol: str, timeout_s: object, client: str = "ann") -> Answer:
    body = {"client_id": client, "instrument": symbol, "timeout_s": timeout_s}
    return api.request("POST", "/orders/cancel-after", body)


def armed(api: Api, symbol: str, timeout_s: object) -> Json:
    answer = set_timer(api, symbol, timeout_s)
    assert answer.status == 200, answer
    return answer.json()


class TestCancelAfter:
    """POST /orders/cancel-after."""

    def test_it_cancels_all_the_clients_orders_when_it_is_due(self, api: Api, symbol: str) -> None:
        mine = [place(api, symbol, "ann"), place(api, symbol, "ann", "sell")]
        other = place(api, symbol, "bob")
        timer = armed(api, symbol, 0.5)
        assert timer == {
            "client_id": "ann",
            "instrument": symbol,
            "timeout_s": 0.5,
            "cancel_at": timer["cancel_at"],
        }
        wait_for(lambda: api.order(mine[0])["status"] == "cancelled", 10)
        for each in mine:
            order = api.order(each)
            assert (order["status"], order["reason"]) == ("cancelled", "cancel_after")
            assert order["updated_at"] >= timer["cancel_at"], "not before its time"
        assert api.order(other)["status"] == "open"

    def test_arming_again_gives_more_time_and_zero_disarms(self, api: Api, symbol: str) -> None:
        mine = place(api, symbol, "ann")
        first = armed(api, symbol, "60")
        second = armed(api, symbol, 3600)
        assert (first["timeout_s"], second["timeout_s"]) == (60, 3600)
        assert second["cancel_at"] > first["cancel_at"]
        assert armed(api, symbol, 0)["cancel_at"] is None
        assert armed(api, symbol, 0.001)["cancel_at"] is not None
        wait_for(lambda: api.order(mine)["status"] == "cancelled", 10)

    def test_a_timer_is_of_its_instrument_alone(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        here, there = list_instrument(), list_instrument()
        mine = [place(api, symbol, "ann") for symbol in (here, there)]
        armed(api, here, 0.001)
        wait_for(lambda: api.order(mine[0])["status"] == "cancelled", 10)
        assert api.order(mine[1])["status"] == "open"

    @pytest.mark.parametrize(
        ("changed", "wrong"),
        [
            ({"timeout_s": -1}, {"timeout_s": "out_of_range"}),
            ({"timeout_s": 86400.001}, {"timeout_s": "out_of_range"}),
            ({"timeout_s": 0.0001}, {"timeout_s": "out_of_range"}),
            ({"timeout_s": "86399.9999999999999999999999999999999"}, {"timeout_s": "out_of_range"}),
            ({"timeout_s": "1e-999"}, {"timeout_s": "out_of_range"}),
            ({"timeout_s": "1e999"}, {"timeout_s": "out_of_range"}),
            ({"timeout_s": "soon"}, {"timeout_s": "malformed_number"}),
            ({"timeout_s": None}, {"timeout_s": "invalid_type"}),
            ({"client_id": ""}, {"client_id": "invalid_text"}),
            ({"client_id": "a|b"}, {"client_id": "invalid_text"}),
            ({"client_id": 1}, {"client_id": "invalid_value"}),
            ({"more": 1}, {"more": "unknown_field"}),
        ],
    )
    def test_a_bad_timer_is_refused(
        self, system: System, symbol: str, changed: Json, wrong: dict[str, str]
    ) -> None:
        before = system.contents(symbol)
        body = {"client_id": "ann", "instrument": symbol, "timeout_s": 1} | changed
        answer = system.api.request("POST", "/orders/cancel-after", body)
        problem = check_problem(answer, 400, "validation_failed", "/orders/cancel-after")
        assert codes_by_field(problem) == wrong
        assert system.contents(symbol) == before

    def test_the_longest_and_an_unknown_instrument(self, api: Api, symbol: str) -> None:
        assert armed(api, symbol, 86400)["timeout_s"] == 86400
        answer = set_timer(api, "NO-USD", 1)
        check_problem(answer, 404, "instrument_not_found", "/orders/cancel-after")
