"""What a full book costs: placing and cancelling in it against a small one, each call by itself,
and Redis's memory for each order that rests.
"""

from statistics import median

from tests.benchmarks.order_flow import Orders
from tests.benchmarks.private_redis import Cost, make_alone, private_redis, used_memory_bytes
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.standing_book import StandingBook
from tests.benchmarks.tables import Bound, Table

SMALL_BOOK = 1_000
COMMANDS = 1_000
"""Of each kind in one round: the small book must not grow much by them."""
ROUNDS_FACTOR = 3
"""Short rounds, so more of them."""
COST_RATIO_MAX = 1.5
BYTES_MAX = {"with UUID keys": 600.0, "without keys": 400.0}
"""The aim is 400 with the idempotency record, too. A UUID stands in the record's field and in the
order, 36 characters each; what else there is, lua/README.md says.
"""
SEED = 2

Round = dict[str, Cost]


def run(sizes: Sizes) -> Table:
    """A row of figures for orders with an idempotency key, one for orders without."""
    rows, bounds = [], []
    for name, with_keys in (("with UUID keys", True), ("without keys", False)):
        with private_redis() as client:
            orders = Orders(SEED, with_keys=with_keys)
            small = StandingBook(client, "SMALL-USD", orders, SMALL_BOOK, make_alone)
            before = used_memory_bytes(client)
            orders = Orders(SEED, with_keys=with_keys)
            large = StandingBook(client, "LARGE-USD", orders, sizes.resting, make_alone)
            bytes_per_order = (used_memory_bytes(client) - before) / large.order_count()
            rounds = [_round(small, large) for _ in range(sizes.rounds * ROUNDS_FACTOR)]
        row, broken_or_held = _judge(name, rounds, bytes_per_order)
        rows.append(row)
        bounds += broken_or_held
    return Table(
        f"scaling: {sizes.resting:,} resting orders against {SMALL_BOOK:,}, Redis CPU per command",
        ("", "place µs", "cancel µs", "place ratio", "cancel ratio", "bytes an order"),
        rows,
        bounds,
    )


def _round(small: StandingBook, large: StandingBook) -> Round:
    return {
        "place small": small.place_resting(COMMANDS),
        "place large": large.place_resting(COMMANDS),
        "cancel small": small.cancel(COMMANDS),
        "cancel large": large.cancel(COMMANDS),
    }


def _judge(
    name: str, rounds: list[Round], bytes_per_order: float
) -> tuple[tuple[str, ...], list[Bound]]:
    ratios = {
        kind: median(r[f"{kind} large"].cpu_us / r[f"{kind} small"].cpu_us for r in rounds)
        for kind in ("place", "cancel")
    }
    figures = [median(r[f"{kind} large"].cpu_us for r in rounds) for kind in ratios]
    row = (name, *(f"{figure:.1f}" for figure in figures), *(f"{r:.2f}" for r in ratios.values()))
    bounds = [
        Bound(f"{kind} {name}, ratio", ratio, COST_RATIO_MAX) for kind, ratio in ratios.items()
    ]
    bounds.append(Bound(f"bytes of an order {name}", bytes_per_order, BYTES_MAX[name]))
    return (*row, f"{bytes_per_order:.0f}"), bounds
