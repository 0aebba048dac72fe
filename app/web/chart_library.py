"""Fetches TradingView's Lightweight Charts from the npm registry, once, at set-up; never at run
time, and never into the repository. What is not exactly the pinned package is not kept. Imports
nothing of ours, so that a build can run it as a lone file.

    python -m app.web.chart_library
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import os
import sys
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Final

NAME: Final = "lightweight-charts"
VERSION: Final = "5.2.1"
SHA512: Final = (
    "IVwoK1RLFiLPubaKIjNbtjWLnpPMqiABSrTay6whmNa8L1+19292VtHJ+BWyPUuLCwF0tcQlhEWd1CLB2a1nsQ=="
)
"""Of the tarball; `npm view lightweight-charts dist.integrity` says what the registry has."""
DEFAULT_REGISTRY: Final = "https://registry.npmjs.org"
REGISTRY_VARIABLES: Final = ("NPM_CONFIG_REGISTRY", "npm_config_registry")
MODULE: Final = "package/dist/lightweight-charts.standalone.production.mjs"
LICENCE: Final = "package/LICENSE"
MAX_TARBALL_BYTES: Final = 4 * 1024 * 1024
MAX_FILE_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
READ_TIMEOUT_S: Final = 15.0
DOWNLOAD_TIMEOUT_S: Final = 60.0


class NotFetched(Exception):
    """The registry does not answer, or what it sent is not the package."""


def module_file() -> Path:
    """Where the library is, if it was fetched: in the Python environment, which is made anew with
    a click and belongs to no repository.
    """
    return Path(sys.prefix) / "share" / "crossbook" / f"{NAME}-{VERSION}.mjs"


def registry() -> str:
    """The npm registry of this machine."""
    named = (os.environ.get(variable) for variable in REGISTRY_VARIABLES)
    return next(filter(None, named), DEFAULT_REGISTRY).rstrip("/")


def download(url: str) -> bytes:
    """The tarball, within its limits of size and time.

    Raises:
        NotFetched.
    """
    if not url.startswith(("https://", "http://")):
        raise NotFetched(f"not the address of a registry: {url}")
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    content = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=READ_TIMEOUT_S) as response:  # noqa: S310  # above
            while chunk := response.read(CHUNK_BYTES):
                content += chunk
                if len(content) > MAX_TARBALL_BYTES or time.monotonic() > deadline:
                    raise NotFetched(f"{url} is too large or too slow")
    except (OSError, http.client.HTTPException) as error:
        raise NotFetched(f"{url} does not answer: {error}") from error
    return bytes(content)


def check(tarball: bytes) -> None:
    """Raises NotFetched if it is not, byte by byte, what was pinned."""
    found = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != SHA512:
        raise NotFetched(f"the package has another hash than the pinned one: sha512-{found}")


def unpack(tarball: bytes, member: str) -> bytes:
    """One file of the package.

    Raises:
        NotFetched.
    """
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        try:
            file = archive.extractfile(member)
        except KeyError:
            file = None
        content = b"" if file is None else file.read(MAX_FILE_BYTES + 1)
    if not 0 < len(content) <= MAX_FILE_BYTES:
        raise NotFetched(f"the package has no usable {member}")
    return content


def store(content: bytes, target: Path) -> None:
    """Put it there in one step: half a file is never found."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(target)


def fetch(target: Path) -> None:
    """Fetch the library and its licence, unless they are there.

    Raises:
        NotFetched: nothing was kept.
    """
    if target.exists():
        return
    tarball = download(f"{registry()}/{NAME}/-/{NAME}-{VERSION}.tgz")
    check(tarball)
    store(unpack(tarball, LICENCE), target.with_suffix(".LICENSE"))
    store(unpack(tarball, MODULE), target)


if __name__ == "__main__":
    try:
        fetch(module_file())
    except NotFetched as error:
        sys.exit(f"the chart library was not fetched: {error}")
