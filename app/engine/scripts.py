"""The Lua scripts: read from `lua/`, includes resolved, known to Redis by their SHA-1.

A script names what it needs with lines `-- @include name` (`lua/lib/name.lua`); each file is put in
once, before the first that needs it. An indented line puts it into that block alone, so that a call
that does not come there does not pay for its definitions. This module knows nothing of what the
scripts do.
"""

import hashlib
import re
import sys
from pathlib import Path
from typing import NamedTuple

LUA_FOLDER = Path(__file__).resolve().parents[2] / "lua"
_INCLUDE = re.compile(r" *-- @include ([a-z_]+)\n")


class ScriptError(Exception):
    """A script or include that is missing, or includes itself."""


class Script(NamedTuple):
    """One assembled script."""

    name: str
    source: str
    sha: str


def assemble(name: str, folder: Path = LUA_FOLDER) -> str:
    """The source of `<folder>/<name>.lua` with everything that it includes.

    Raises:
        ScriptError: a file is missing or the includes form a circle.
    """
    seen: list[str] = []
    return _expand(folder / f"{name}.lua", folder, seen, ())


def _expand(path: Path, folder: Path, seen: list[str], above: tuple[Path, ...]) -> str:
    if path in above:
        raise ScriptError(f"{path.name} includes itself")
    try:
        source = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ScriptError(f"no such script: {path}") from error

    blocks = [(0, seen)]  # indentation, and what is seen there, of the blocks around a line
    out: list[str] = []
    for line in source.splitlines(keepends=True):
        indent = len(line) - len(line.lstrip(" "))
        while line.strip() and indent < blocks[-1][0]:
            blocks.pop()
        match = _INCLUDE.fullmatch(line)
        if match is None:
            out.append(line)
            continue
        if indent > blocks[-1][0]:
            blocks.append((indent, blocks[-1][1].copy()))
        name, visible = match.group(1), blocks[-1][1]
        if name not in visible:
            lib = folder / "lib" / f"{name}.lua"
            out.append(_expand(lib, folder, visible, (*above, path)))
            visible.append(name)
    return "".join(out)


def load(name: str, folder: Path = LUA_FOLDER) -> Script:
    """Assemble one script and name it as Redis will."""
    source = assemble(name, folder)
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, digest)


def script_names(folder: Path = LUA_FOLDER) -> list[str]:
    """The entry scripts of a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.lua"))


def write_assembled(target: Path) -> None:
    """Write each assembled script into `target`, for luacheck and curious readers."""
    target.mkdir(parents=True, exist_ok=True)
    for name in script_names():
        (target / f"{name}.lua").write_text(assemble(name), encoding="utf-8")


if __name__ == "__main__":
    write_assembled(Path(sys.argv[1]))
