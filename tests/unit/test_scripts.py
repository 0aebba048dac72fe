"""The loader of the scripts, and what Python and Lua must agree on without being told twice."""

import re
from pathlib import Path

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.orders import NUMBER_DIGITS, OPEN, RECORD_FIELDS
from app.domain.refusals import Reason, Refusal
from app.engine import scripts
from app.engine.book import Scripts
from app.engine.keys import BookKeys, book_keys, symbol_of
from tests import reference
from tests.venue import EngineVenue

ENTRIES = scripts.script_names()
SOURCES = {path: path.read_text() for path in scripts.LUA_FOLDER.rglob("*.lua")}


def write(folder: Path, **files: str) -> Path:
    (folder / "lib").mkdir()
    for name, text in files.items():
        place = folder if name.startswith("entry") else folder / "lib"
        (place / f"{name}.lua").write_text(text)
    return folder


def test_an_include_is_put_in_once_and_before_its_first_user(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        entry="-- @include b\n-- @include a\nreturn 1\n",
        a="local a\n",
        b="-- @include a\nlocal b\n",
    )
    assert scripts.assemble("entry", folder) == "local a\nlocal b\nreturn 1\n"


def test_includes_in_a_circle_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, entry="-- @include a\n", a="-- @include b\n", b="-- @include a\n")
    with pytest.raises(scripts.ScriptError, match="includes itself"):
        scripts.assemble("entry", folder)


def test_a_missing_include_is_named(tmp_path: Path) -> None:
    with pytest.raises(scripts.ScriptError, match=r"nowhere\.lua"):
        scripts.assemble("entry", write(tmp_path, entry="-- @include nowhere\n"))


def test_the_engine_has_every_script_and_no_other() -> None:
    assert sorted(Scripts._fields) == ENTRIES


@pytest.mark.parametrize("name", ENTRIES)
def test_redis_knows_a_script_by_the_sha_that_we_use(name: str) -> None:
    script = scripts.load(name)
    assert fakeredis.FakeRedis().script_load(script.source) == script.sha


@pytest.mark.parametrize("name", ENTRIES)
def test_a_script_says_what_it_is_before_it_does_anything(name: str) -> None:
    header = SOURCES[scripts.LUA_FOLDER / f"{name}.lua"].split("\n\n")[0]
    for part in ("Guarantee:", "KEYS ", "ARGV ", "Returns ", "Refuses "):
        assert f"-- {part}" in header


def test_the_refusals_are_those_of_the_lua() -> None:
    """One enum in Python holds exactly the codes that scripts can return."""
    in_lua = {
        code for text in SOURCES.values() for code in re.findall(r"'refused', '([a-z_]+)'", text)
    }
    assert in_lua == {refusal.value for refusal in Refusal}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_header_lists_every_refusal_of_its_script(name: str) -> None:
    """In the order of the checks, which the tapes hold against the reference (CMD-3)."""
    entry = SOURCES[scripts.LUA_FOLDER / f"{name}.lua"]
    header = entry.split("\n\n-- @include")[0].partition("Refuses")[2]
    listed = {code for code in re.findall(r"[a-z_]+", header) if code in set(Refusal)}
    body = scripts.assemble(name)
    checked = set(re.findall(r"'refused', '([a-z_]+)'", body))
    assert listed == checked - NEVER_ANSWERED.get(name, set())


NEVER_ANSWERED = {
    "sweep_book": {"level_quantity_overflow"},  # becomes the reason of a triggered stop
}


def test_the_reasons_are_those_of_the_lua() -> None:
    """The scripts end orders for these reasons, and take the others as arguments."""
    told = {
        word
        for text in SOURCES.values()
        for words in re.findall(r"'(?:cancelled|expired)',([^\n]*)", text)
        for word in re.findall(r"'([a-z_]+)'", words)
    }
    given = {Reason.CANCELLED_BY_CLIENT, Reason.CANCELLED_ON_DISCONNECT, Reason.KILL_SWITCH}
    assert told == set(Reason) - given


def test_the_record_has_the_fields_that_python_reads() -> None:
    venue = EngineVenue(fakeredis.FakeRedis())
    from tests.commands import limit  # noqa: PLC0415

    venue.apply(limit("alice", "buy", 10, 5))
    record = venue.client.hget(venue.keys.orders, "1".zfill(NUMBER_DIGITS))
    assert isinstance(record, bytes)
    assert record.count(b"|") + 1 == len(RECORD_FIELDS)


@pytest.mark.parametrize("name", ["MAX_FILLS", "MAX_TRIGGERS", "MAX_CANCELS", "MAX_EXPIRIES"])
def test_the_usual_limits_are_those_of_the_rules(name: str) -> None:
    """In RULES.md, the Lua and the reference: tapes play with limits of their own."""
    rules = (scripts.LUA_FOLDER / "RULES.md").read_text()
    written = re.findall(rf"`{name}` \((\d+)\)", rules)
    in_lua = re.findall(rf"^local {name} = (\d+)", "\n".join(SOURCES.values()), re.MULTILINE)
    assert [*written, *in_lua] == [str(getattr(reference, name))] * 2


def test_open_states_are_those_of_the_lua() -> None:
    (states,) = re.findall(r"local OPEN = {(.*)}", scripts.assemble("lib/record"))
    assert set(re.findall(r"(\w+) = true", states)) == OPEN


def test_every_key_of_a_book_is_in_its_slot_and_distinct() -> None:
    keys = book_keys("BTC-USD")
    assert all(key.startswith("{BTC-USD}:") for key in keys)
    assert len(set(keys)) == len(BookKeys._fields)
    assert {symbol_of(key) for key in keys} == {"BTC-USD"}


def test_a_key_is_called_what_it_holds() -> None:
    """Scripts know keys by their position alone; whoever looks with redis-cli, by their names."""
    named = book_keys("BTC-USD")._asdict()
    named |= {"idempotency:0": named.pop("idempotency_0")}
    named |= {"idempotency:1": named.pop("idempotency_1")}
    assert named == {name: "{BTC-USD}:" + name for name in named}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_key_that_a_script_touches_is_in_keys(path: Path) -> None:
    """No script builds a key's name: calls take a name of lib/keys.lua, or KEYS itself."""
    names = "|".join(re.findall(r"[A-Z][A-Z_]+", SOURCES[scripts.LUA_FOLDER / "lib/keys.lua"]))
    allowed = rf"({names}|key|buys and |\w+\.key|\w+\.stops|generation_key\()"
    for command, first in re.findall(r"\bcall\('([A-Z]+)'(?:, ([^,)]+))?", SOURCES[path]):
        if command != "TIME":
            assert re.match(allowed, first), f"{command} {first}"


NOTIONAL = (
    scripts.assemble("lib/notional") + "return add_product(ARGV[1], ARGV[2] + 0, ARGV[3] + 0)"
)
BELOW_LIMIT = st.integers(1, 2**53 - 1)


@given(total=st.integers(0, 10**34), price=BELOW_LIMIT, quantity=BELOW_LIMIT)
def test_price_times_quantity_is_exact(total: int, price: int, quantity: int) -> None:
    """Also where the product has 32 digits; Lua's own would have lost sixteen of them."""
    answer = fakeredis.FakeRedis().eval(NOTIONAL, 0, total, price, quantity)
    assert int(answer) == total + price * quantity  # type: ignore[arg-type]
    assert answer == str(total + price * quantity).encode()
