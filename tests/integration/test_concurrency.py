"""Many clients at once, through HTTP and several workers: every unit is sold once, first come is
first served, an idempotency key is worth one order, and all answers fit one order of events.
"""

import random
import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from app.domain.orders import parse_record
from tests.audit import audit
from tests.commands import Place, limit, market
from tests.conftest import ListInstrument
from tests.flow import Crowd, Told
from tests.linear import is_accepted, sequence_of
from tests.rest import Answer, Api, Json, number_of, order_body, order_id, raw_request, volley
from tests.system import System

CLIENTS: Final = 1000
REPEATS: Final = 50
PRICE_TICKS: Final = 100
OPEN_FILES_NEEDED: Final = 4096


@pytest.fixture(autouse=True, scope="module")
def open_files() -> Iterator[None]:
    """A thousand connections are a thousand open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES_NEEDED)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def place_at_once(api: Api, symbol: str, places: Sequence[Place]) -> list[Told]:
    """All of them at the same instant; each must be accepted."""
    bodies = [order_body(symbol, place) for place in places]
    answers = volley(api.port, [raw_request("POST", "/orders", body) for body in bodies])
    refused = Counter((a.status, a.body) for a in answers if a.status != 201)
    assert not refused, f"{refused.total()} of {len(answers)}: {refused}"
    return [Told(place, answer, 0.0, 0.0, 1) for place, answer in zip(places, answers, strict=True)]


def order_of(told: Told) -> Json:
    order: Json = told.answer.json()["order"]
    return order


def statuses(answers: Sequence[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


@pytest.mark.parametrize("takers", [150, 5])
def test_a_thousand_clients_at_one_price_sell_every_unit_once_first_come_first(
    system: System, symbol: str, rng: random.Random, takers: int
) -> None:
    """Then market orders buy more than there is. `filled_quantity` adds up in the answers, in Redis
    and in Postgres; with five takers, hundreds fill in one command.
    """
    offers = [limit(f"c-{n}", "sell", PRICE_TICKS, rng.randint(1, 9)) for n in range(CLIENTS)]
    total = sum(offer.quantity_lots for offer in offers)
    each = total // takers * 11 // 10 + 1
    with system.paused("persist"):
        makers = place_at_once(system.api, symbol, offers)
        bids = [market(f"t-{n}", "buy", each) for n in range(takers)]
        told = sorted(place_at_once(system.api, symbol, bids), key=sequence_of)
        in_redis: Any = system.redis.hgetall(f"{{{symbol}}}:book")
    assert sorted(map(sequence_of, makers)) == list(range(1, CLIENTS + 1))

    trades = [trade for one in told for trade in one.answer.json()["trades"]]
    served = list(dict.fromkeys(number_of(trade["maker_order_id"]) for trade in trades))
    assert served == list(range(1, CLIENTS + 1)), "first come, first served"
    sold: Counter[int] = Counter()
    for trade in trades:
        assert trade["price"] == str(PRICE_TICKS)
        sold[number_of(trade["maker_order_id"])] += int(trade["quantity"])
    asked = {sequence_of(one): int(order_of(one)["quantity"]) for one in makers}
    assert sold == asked, "every unit once"

    for one in told:
        filled = sum(int(trade["quantity"]) for trade in one.answer.json()["trades"])
        assert int(order_of(one)["filled_quantity"]) == filled
        if filled < each:
            assert order_of(one)["reason"] == "no_liquidity"
    bought = {sequence_of(one): int(order_of(one)["filled_quantity"]) for one in told}
    assert sum(bought.values()) == total

    records = [
        parse_record(int(name), text.decode()) for name, text in in_redis.items() if name.isdigit()
    ]
    assert {record.number: record.filled_lots for record in records} == asked | bought
    audit(system, symbol, makers + told)
    rows = system.rows(
        "SELECT order_id, filled_quantity::int FROM orders WHERE instrument = %s", symbol
    )
    assert {number_of(row[0]): row[1] for row in rows} == asked | bought
    for number in rng.sample(range(1, CLIENTS + 1), 20):
        order = system.api.order(order_id(symbol, number))
        assert (order["status"], int(order["filled_quantity"])) == ("filled", asked[number])


def test_all_answers_fit_one_order_of_events(
    system: System, symbol: str, rng: random.Random
) -> None:
    """Sixteen clients trade at random over both workers. The answers, sorted by sequence, are the
    reference's to the same commands; nobody who was answered before another began comes after it;
    and each refusal was right at some moment while its client waited. `audit` says so.
    """
    crowd = Crowd(system.api, symbol, rng, size=16)
    crowd.trade(steps=60)
    assert not crowd.untold
    audit(system, symbol, crowd.outcomes)
    refused = [one for one in crowd.told if not is_accepted(one)]
    assert len({one.answer.code for one in refused}) >= 2, "there are refusals to look at"
    assert any(one.answer.is_replayed for one in crowd.told)


def test_one_of_many_cancels_at_the_same_instant_succeeds(api: Api, symbol: str) -> None:
    order = api.placed(order_body(symbol, limit("ann", "buy", PRICE_TICKS, 1)))["order"]
    answers = volley(api.port, [raw_request("DELETE", f"/orders/{order['order_id']}")] * REPEATS)
    assert statuses(answers) == {200: 1, 409: REPEATS - 1}
    assert api.found("/orderbook", instrument=symbol)["sequence"] == 2


def test_one_of_many_orders_with_one_client_order_id_is_taken(api: Api, symbol: str) -> None:
    place = replace(limit("ann", "buy", PRICE_TICKS, 1), client_order_id="x")
    request = raw_request("POST", "/orders", order_body(symbol, place))
    answers = volley(api.port, [request] * REPEATS)
    assert statuses(answers) == {201: 1, 409: REPEATS - 1}
    assert len(api.all_orders(instrument=symbol)) == 1


class TestIdempotency:
    """The same (client_id, instrument, key) again."""

    @pytest.mark.parametrize(
        "place",
        [
            limit("ann", "buy", PRICE_TICKS - 1, 5),
            limit("ann", "buy", PRICE_TICKS, 5),
            market("ann", "buy", 3),
            replace(limit("ann", "buy", PRICE_TICKS, 5), time_in_force="fok"),
        ],
        ids=["rests", "trades and rests", "fills", "fok fails"],
    )
    @pytest.mark.parametrize("where", ["header", "body"])
    def test_many_at_the_same_instant_are_one_order_with_equal_answers(
        self, api: Api, symbol: str, place: Place, where: str
    ) -> None:
        for _ in range(4):
            api.placed(order_body(symbol, limit("bob", "sell", PRICE_TICKS, 1)))
        body = order_body(symbol, place)
        headers = {"Idempotency-Key": "k"} if where == "header" else {}
        if where == "body":
            body["idempotency_key"] = "k"
        answers = volley(api.port, [raw_request("POST", "/orders", body, headers)] * REPEATS)
        assert statuses(answers) == {201: REPEATS}
        assert len({answer.body for answer in answers}) == 1
        replayed = Counter(answer.headers.get("Idempotent-Replayed") for answer in answers)
        assert replayed == {None: 1, "true": REPEATS - 1}
        assert answers[0].json()["order"]["idempotency_key"] == "k"
        assert len(api.all_orders(client_id="ann", instrument=symbol)) == 1
        assert api.found("/orderbook", instrument=symbol)["sequence"] == 5

        answer = api.place(body | {"quantity": "6", "idempotency_key": "k"})
        assert (answer.status, answer.code) == (422, "idempotency_key_reused")
        assert api.found("/orderbook", instrument=symbol)["sequence"] == 5

    def test_one_of_many_payloads_at_the_same_instant_gets_the_key(
        self, api: Api, symbol: str
    ) -> None:
        places = [limit("ann", "buy", PRICE_TICKS, n) for n in range(1, REPEATS + 1)]
        answers = volley(
            api.port,
            [
                raw_request("POST", "/orders", order_body(symbol, place), {"Idempotency-Key": "k"})
                for place in places
            ],
        )
        assert statuses(answers) == {201: 1, 422: REPEATS - 1}
        refused = {answer.code for answer in answers if answer.status == 422}
        assert refused == {"idempotency_key_reused"}
        assert len(api.all_orders(instrument=symbol)) == 1

    def test_the_key_belongs_to_its_client_and_instrument(
        self, api: Api, symbol: str, list_instrument: ListInstrument
    ) -> None:
        other = list_instrument()
        for where, client in ((symbol, "ann"), (symbol, "bob"), (other, "ann"), (other, "bob")):
            answer = api.place(order_body(where, limit(client, "buy", PRICE_TICKS, 1)), key="k")
            assert answer.status == 201
            assert not answer.is_replayed

    @pytest.mark.parametrize(
        ("field", "other"),
        [
            ("side", "sell"),
            ("quantity", "6"),
            ("price", "99"),
            ("time_in_force", "ioc"),
            ("post_only", True),
            ("client_order_id", "mine"),
        ],
    )
    def test_every_field_is_part_of_the_payload(
        self, api: Api, symbol: str, field: str, other: object
    ) -> None:
        body = order_body(symbol, limit("ann", "buy", PRICE_TICKS, 5))
        api.placed(body, key="k")
        answer = api.place(body | {field: other}, key="k")
        assert (answer.status, answer.code) == (422, "idempotency_key_reused")
        assert api.place(body, key="k").is_replayed

    def test_the_same_number_written_otherwise_is_the_same_payload(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        symbol = list_instrument("0.01", "0.01")
        body: Json = {"instrument": symbol, "side": "buy", "price": "0.10", "quantity": "2"}
        first = api.place(body, key="k")
        others = [
            body | {"price": "0.1"},
            body | {"price": 0.1, "quantity": 2},
            body | {"price": "1e-1", "quantity": "2.00"},
            body | {"type": "limit", "time_in_force": "gtc", "post_only": False},
            body | {"client_id": "anonymous", "idempotency_key": "k"},
            dict(reversed(body.items())),
        ]
        for other in others:
            answer = api.place(other, key="k")
            assert (answer.status, answer.body) == (201, first.body)
            assert answer.is_replayed

    @pytest.mark.parametrize(
        ("wrong", "status"),
        [({"post_only": True}, 422), ({"price": "0.5"}, 400), ({"client_order_id": "taken"}, 409)],
    )
    def test_a_refused_request_leaves_its_key_free(
        self, api: Api, symbol: str, wrong: Json, status: int
    ) -> None:
        taken = replace(limit("ann", "sell", PRICE_TICKS, 1), client_order_id="taken")
        api.placed(order_body(symbol, taken))
        body = order_body(symbol, limit("ann", "buy", PRICE_TICKS, 5))
        for _ in range(2):
            assert api.place(body | wrong, key="k").status == status
        answer = api.place(body, key="k")
        assert answer.status == 201
        assert not answer.is_replayed

    def test_the_first_answer_is_repeated_after_the_order_has_changed_and_left_redis(
        self, system: System, symbol: str
    ) -> None:
        """Partly filled, cancelled, written to Postgres, its event trimmed from the stream."""
        api = system.api
        api.placed(order_body(symbol, limit("bob", "sell", PRICE_TICKS, 1)))
        body = order_body(symbol, limit("ann", "buy", PRICE_TICKS, 5))
        first = api.place(body, key="k")
        assert len(first.json()["trades"]) == 1

        def check_replay() -> None:
            again = api.place(body, key="k")
            assert (again.status, again.body) == (201, first.body)
            assert again.is_replayed

        check_replay()
        api.placed(order_body(symbol, market("bob", "sell", 2)))
        check_replay()
        final = api.cancelled(first.json()["order"]["order_id"])
        check_replay()
        system.settled()
        stream = f"{{{symbol}}}:events"
        assert system.redis.xtrim(stream, minid="4-0", approximate=False) == 3
        names: Any = system.redis.hkeys(f"{{{symbol}}}:book")
        assert not any(name.isdigit() for name in names), "no order is held"
        check_replay()
        answer = api.place(body | {"quantity": "6"}, key="k")
        assert (answer.status, answer.code) == (422, "idempotency_key_reused")
        assert api.order(final["order_id"]) == final
        assert api.found("/orderbook", instrument=symbol)["sequence"] == 4
