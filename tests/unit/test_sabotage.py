"""The list of defects fits the code as it is, and reaches all of it; `make sabotage` tries them."""

from collections import Counter
from pathlib import Path

import pytest

from app.engine.scripts import ScriptError, assemble, script_names
from tests.sabotage.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
LEFT_OUT = {
    "keys": "names alone",
    "waiting": "",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_text_to_replace_is_there_once(mutation: Mutation) -> None:
    assert (ROOT / mutation.path).read_text().count(mutation.old) == 1
    assert mutation.old != mutation.new


def test_every_defect_has_a_name_of_its_own() -> None:
    assert not [name for name, count in Counter(m.name for m in MUTATIONS).items() if count > 1]
