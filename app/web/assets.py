"""The files of the trading page, read once when the process starts. Nothing is looked up on disk
for a request, so no path of a request can lead anywhere. Must not know HTTP's headers.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from app.web.chart_library import module_file

FOLDER: Final = Path(__file__).parent / "static"
CHART_NAME: Final = "lightweight-charts.mjs"
INDEX: Final = "index.html"
MAX_ASSET_BYTES: Final = 1024 * 1024
"""Of one file; a larger one does not belong to a page that is to be there at once."""
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Kinds of files that are served; others in the folder are not."""


class Asset(msgspec.Struct, frozen=True):
    """One file as it is sent; `etag` changes with its content."""

    content: bytes
    content_type: str
    etag: str


def _files() -> Iterator[tuple[str, Path]]:
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in TYPES:
            yield path.name, path
    if module_file().is_file():
        yield CHART_NAME, module_file()


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    assert len(content) <= MAX_ASSET_BYTES, path
    return Asset(content, TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:32])


def load() -> dict[str, Asset]:
    """Every file by its name; the chart library only where it was fetched."""
    return {name: _read(path) for name, path in _files()}
