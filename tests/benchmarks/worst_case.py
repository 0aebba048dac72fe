"""The longest that one script holds Redis: nobody else is served meanwhile. Each case is the most
that a limit of the scripts allows, with quantities whose products pass 2^53 and take the long way.
"""

from collections.abc import Callable, Sequence
from statistics import median

from redis import Redis

from app.engine.executor import Call
from app.engine.keys import book_keys
from tests.benchmarks.order_flow import MID_TICKS, Caller, Changed, Orders, numbers_of, open_book
from tests.benchmarks.private_redis import make, private_redis, script_us
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.tables import Bound, Table
from tests.commands import Side
from tests.reference import MAX_CANCELS, MAX_FILLS, MAX_TRIGGERS

LEVELS = 500
LOTS = 2_000_000_000
"""20 BTC at this price: beyond 2^53."""
CASCADE_STOPS = 1_000
MASS_CANCEL_ORDERS = 10_000
SCRIPT_MS_MAX = 5.0
SEED = 3


class Bench:
    """A book on which a case is prepared, and the time of its scripts."""

    def __init__(self, client: "Redis", symbol: str) -> None:
        self.client = client
        self.symbol = symbol
        self.caller: Caller = open_book(client, symbol)
        self.orders = Orders(SEED)

    def rest(self, side: Side, prices: Sequence[int], **changes: Changed) -> None:
        """One order at each of `prices`."""
        orders = [self.orders.limit(side, price, LOTS, **changes) for price in prices]
        numbers_of(make(self.client, [self.caller.place(order) for order in orders]))

    def stop(self, count: int, lots: int = LOTS) -> None:
        """Buy stops at the mid, all of which one trade there triggers."""
        orders = [self.orders.stop("buy", MID_TICKS, lots) for _ in range(count)]
        numbers_of(make(self.client, [self.caller.place(order) for order in orders]))

    def sweep_of(self, lots: int) -> Call:
        """A market order that buys so much."""
        return self.caller.place(self.orders.market("buy", lots))

    def time_us(self, call: Call) -> int:
        """How long the script of `call` runs."""
        before = script_us(self.client)
        (answer,) = make(self.client, [call])
        assert answer[0] in (b"accepted", b"read", b"cancelled", b"swept"), answer
        return script_us(self.client) - before


def run(sizes: Sizes) -> Table:
    """Each case several times: the median and the slowest."""
    cases: dict[str, list[int]] = {}
    with private_redis() as client:
        for index, (name, case) in enumerate(CASES.items()):
            for again in range(sizes.rounds):
                bench = Bench(client, f"W{index}R{again}-USD")
                cases.setdefault(name, []).extend(case(bench))
                client.delete(*book_keys(bench.symbol))
    return Table(
        "worst case: time of one script",
        ("", "median µs", "slowest µs"),
        [(name, f"{median(us):,.0f}", f"{max(us):,}") for name, us in cases.items()],
        [
            Bound(f"{name}, median ms", median(us) / 1e3, SCRIPT_MS_MAX)
            for name, us in cases.items()
        ],
    )


def _one_price(bench: Bench) -> list[int]:
    bench.rest("sell", [MID_TICKS] * MAX_FILLS)
    return [bench.time_us(bench.sweep_of(LOTS * MAX_FILLS))]


def _many_prices(bench: Bench) -> list[int]:
    bench.rest("sell", [MID_TICKS + n for n in range(MAX_FILLS)])
    return [bench.time_us(bench.sweep_of(LOTS * MAX_FILLS))]


def _refills(bench: Bench) -> list[int]:
    bench.rest("sell", [MID_TICKS], display_lots=LOTS // MAX_FILLS)
    return [bench.time_us(bench.sweep_of(LOTS))]


def _cascade(bench: Bench) -> list[int]:
    """As many makers and stops as one call may carry out."""
    bench.rest("sell", [MID_TICKS] * (MAX_FILLS + CASCADE_STOPS))
    bench.stop(CASCADE_STOPS)
    return [bench.time_us(bench.sweep_of(LOTS * (MAX_FILLS - MAX_TRIGGERS)))]


def _cascade_goes_on(bench: Bench) -> list[int]:
    _cascade(bench)
    return [bench.time_us(bench.caller.sweep()) for _ in range(CASCADE_STOPS // MAX_TRIGGERS)]


def _waiting(bench: Bench) -> list[int]:
    """Stops that do not fit into what is left of a call: matched in vain, they wait."""
    bench.rest("sell", [MID_TICKS] * 2 * MAX_FILLS)
    bench.stop(1, LOTS * MAX_FILLS)
    return [bench.time_us(bench.sweep_of(LOTS * MAX_FILLS // 2))]


def _mass_cancel(bench: Bench) -> list[int]:
    count = MASS_CANCEL_ORDERS
    bench.rest("sell", [MID_TICKS + n for n in range(count)], client_id="maker")
    step = bench.caller.mass_cancel("maker")
    return [bench.time_us(step) for _ in range(count // MAX_CANCELS)]


def _depth(bench: Bench) -> list[int]:
    bench.rest("sell", [MID_TICKS + 1 + n for n in range(LEVELS)])
    bench.rest("buy", [MID_TICKS - 1 - n for n in range(LEVELS)])
    return [bench.time_us(bench.caller.depth(LEVELS))]


CASES: dict[str, Callable[[Bench], list[int]]] = {
    f"sweep of {MAX_FILLS} makers at one price": _one_price,
    f"sweep of {MAX_FILLS} makers at {MAX_FILLS} prices": _many_prices,
    f"an iceberg's {MAX_FILLS} refills": _refills,
    f"sweep of {MAX_FILLS - MAX_TRIGGERS} makers and {MAX_TRIGGERS} stops": _cascade,
    f"cascade of {CASCADE_STOPS:,} stops, {MAX_TRIGGERS} a step": _cascade_goes_on,
    "a stop that does not fit after a sweep of half of the makers": _waiting,
    f"mass cancel of {MASS_CANCEL_ORDERS:,} orders, {MAX_CANCELS} a step": _mass_cancel,
    f"read_book, {LEVELS} levels of each side": _depth,
}
