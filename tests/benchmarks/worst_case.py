"""The longest that one script holds Redis: nobody else is served meanwhile."""

from collections.abc import Sequence
from statistics import median

from redis import Redis

from tests.benchmarks.order_flow import MID_TICKS, Orders, Packer, numbers_of, open_book
from tests.benchmarks.private_redis import private_redis, script_us, send
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.tables import Bound, Table
from tests.commands import Side
from tests.reference import MAX_FILLS_PER_COMMAND

LEVELS = 1_000
LOTS = 2_000_000_000
"""20 BTC at this price: beyond 2^53, so that every product takes the long way."""
SCRIPT_MS_MAX = 50.0
"""Above it Redis's own latency monitor would report it (redis.conf)."""
SEED = 3


def run(sizes: Sizes) -> Table:
    """Each case several times: the median and the slowest."""
    cases: dict[str, list[int]] = {}
    with private_redis() as client:
        packer, orders = open_book(client, "WORST-USD"), Orders(SEED)
        for _ in range(sizes.rounds):
            for name, prices in _makers().items():
                _rest(client, packer, orders, "sell", prices)
                sweep = orders.market("buy", LOTS * MAX_FILLS_PER_COMMAND)
                cases.setdefault(name, []).append(_time_us(client, packer.place(sweep)))
        _rest(client, packer, orders, "sell", [MID_TICKS + 1 + n for n in range(LEVELS)])
        _rest(client, packer, orders, "buy", [MID_TICKS - 1 - n for n in range(LEVELS)])
        name = f"read_book, {LEVELS:,} levels of each side"
        cases[name] = [_time_us(client, packer.depth(LEVELS)) for _ in range(sizes.rounds)]
    return Table(
        "worst case: time of one script",
        ("", "median µs", "slowest µs"),
        [(name, f"{median(us):,.0f}", f"{max(us):,}") for name, us in cases.items()],
        [Bound("slowest script, ms", max(map(max, cases.values())) / 1e3, SCRIPT_MS_MAX)],
    )


def _makers() -> dict[str, list[int]]:
    """Prices of the makers that one market order sweeps, by case."""
    count = MAX_FILLS_PER_COMMAND
    return {
        f"sweep of {count:,} makers at one price": [MID_TICKS] * count,
        f"sweep of {count:,} makers at {count:,} prices": [MID_TICKS + n for n in range(count)],
    }


def _rest(
    client: "Redis", packer: Packer, orders: Orders, side: Side, prices: Sequence[int]
) -> None:
    placed = [packer.place(orders.limit(side, price, LOTS)) for price in prices]
    numbers_of(send(client, placed))


def _time_us(client: "Redis", command: bytes) -> int:
    before = script_us(client)
    (reply,) = send(client, [command])
    assert reply[0] in (b"accepted", b"read"), reply
    return script_us(client) - before
