"""Runs benchmarks and prints their tables; ends with 1 if a bound was broken."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from time import monotonic

from tests.benchmarks import engine, http_cost, persister_rate, scaling, worst_case
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.tables import Table

BENCHMARKS: dict[str, Callable[[Sizes], Table]] = {
    "engine": engine.run,
    "scaling": scaling.run,
    "worst": worst_case.run,
    "http": http_cost.run,
    "persister": persister_rate.run,
}


def main() -> int:
    """Runs what the command line names, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}")
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name}", type=int, default=size.default, metavar="N")
    chosen = vars(parser.parse_args())
    names = chosen.pop("names") or list(BENCHMARKS)
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    return _run(names, Sizes(**chosen))


def _run(names: list[str], sizes: Sizes) -> int:
    all_hold = True
    for name in names:
        started = monotonic()
        table = BENCHMARKS[name](sizes)
        sys.stdout.write(f"\n{table}  ({monotonic() - started:.0f} s)\n")
        sys.stdout.flush()
        all_hold &= all(bound.holds for bound in table.bounds)
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
