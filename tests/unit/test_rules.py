"""Every rule of lua/RULES.md is found in the code by its id, and some test names it."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULE = re.compile(r"\b[A-Z]{3}-\d+\b")
WRITTEN = re.findall(
    r"^- \*\*([A-Z]{3}-\d+)\*\*", (ROOT / "lua/RULES.md").read_text(), re.MULTILINE
)

OF_THE_WHOLE: dict[str, str] = {}
"""Rules that no line alone keeps, and why."""


def _texts(paths: Iterable[Path]) -> str:
    return "\n".join(path.read_text() for path in paths)


CODE = set(RULE.findall(_texts([*(ROOT / "lua").rglob("*.lua"), *(ROOT / "app").rglob("*.py")])))
_TESTS = _texts(path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__))
TESTS = set(RULE.findall(_TESTS)) | {
    f"{family.upper()}-{number}"  # test_slf_1_without_prevention_they_trade
    for family, number in re.findall(r"def test_([a-z]{3})_(\d+)_", _TESTS)
}


def test_a_rule_has_one_id_and_an_id_one_rule() -> None:
    assert len(WRITTEN) > 50
    assert len(set(WRITTEN)) == len(WRITTEN)


@pytest.mark.parametrize("rule", WRITTEN)
def test_the_code_names_the_rule_where_it_keeps_it(rule: str) -> None:
    """Or OF_THE_WHOLE says why no line can."""
    assert (rule in CODE) != (rule in OF_THE_WHOLE)


@pytest.mark.parametrize("rule", WRITTEN)
def test_a_test_names_the_rule(rule: str) -> None:
    assert rule in TESTS


def test_nothing_names_a_rule_that_is_not_there() -> None:
    families = {rule[:3] for rule in WRITTEN}
    named = {rule for rule in CODE | TESTS if rule[:3] in families}
    assert named <= set(WRITTEN)
