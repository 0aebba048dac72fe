"""How much the benchmarks do; the defaults fit into five minutes on two cores."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Read from the command line; each benchmark takes what concerns it."""

    rounds: int = 7
    """Interleaved rounds; the median of their ratios is reported."""
    commands: int = 3_000
    """Commands of each kind in one round."""
    resting: int = 1_000_000
    """Orders of the large book."""
    events: int = 50_000
    """Entries that the persister finds in the stream."""
    seconds: int = 10
    """Length of one run of the load generator."""
    users: int = 100
    """Virtual users of the load generator."""
