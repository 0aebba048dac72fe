"""Scripts for tests: small ones of their own, known to Redis like the product's, and the product's
with other constants, so that limits come within reach.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from app.engine.book import Scripts
from app.engine.scripts import LUA_FOLDER, Script
from tests.reference import MAX_FILLS, ReferenceBook


def script(source: str) -> Script:
    """A script from its text."""
    return Script("test", source, hashlib.sha1(source.encode()).hexdigest())


def scripts_with(constants: Mapping[str, object]) -> Scripts:
    """The product's scripts with other values of `local` constants, each of which there is once."""
    with TemporaryDirectory(prefix="crossbook-lua-") as folder:
        copy = Path(shutil.copytree(LUA_FOLDER, Path(folder) / "lua"))
        for name, value in constants.items():
            _set(copy, name, value)
        return Scripts.load(copy)


def _set(folder: Path, name: str, value: object) -> None:
    found = 0
    for path in folder.rglob("*.lua"):
        line = re.compile(rf"^local {name} = [\d, {{}}]*[\d}}]", re.MULTILINE)
        text, count = line.subn(f"local {name} = {value}", path.read_text())
        if count:
            path.write_text(text)
        found += count
    assert found == 1, f"{found} constants are named {name}"


def scripts_for(book: ReferenceBook) -> Scripts:
    """The product's scripts with the limits of a reference; one call takes all orders that it is
    given, however many makers these meet.
    """
    constants: dict[str, object] = {
        "MAX_FILLS": book.max_fills,
        "MAX_TRIGGERS": book.max_triggers,
        "MAX_CANCELS": book.max_cancels,
        "MAX_EXPIRIES": book.max_expiries,
        "MOST_MET": 10**9,
    }
    if book.max_fills < MAX_FILLS:
        constants["STEPS"] = f"{{ 0, {book.max_fills - 1} }}"
        constants["FIRST_CHUNK, MAX_CHUNK"] = "2, 4"
    return scripts_with(constants)
