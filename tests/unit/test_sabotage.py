"""The list of defects fits the code as it is, and reaches all of it; `make sabotage` tries them."""

from collections import Counter
from pathlib import Path

import pytest

from tests.sabotage.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
NAMES_ALONE = {"keys", "new"}
"""Files that say what is called how; nothing in them works if one is wrong."""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_text_to_replace_is_there_once(mutation: Mutation) -> None:
    assert (ROOT / mutation.path).read_text().count(mutation.old) == 1
    assert mutation.old != mutation.new


def test_every_defect_has_a_name_of_its_own() -> None:
    assert not [name for name, count in Counter(m.name for m in MUTATIONS).items() if count > 1]


def test_every_file_of_the_lua_has_a_defect() -> None:
    tried = {Path(mutation.path).stem for mutation in MUTATIONS if mutation.path.endswith(".lua")}
    assert {path.stem for path in (ROOT / "lua").rglob("*.lua")} - tried == NAMES_ALONE
