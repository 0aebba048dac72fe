"""The chart library's way here: exactly the pinned package, within limits, or nothing at all."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from app.web import chart_library
from app.web.chart_library import LICENCE, MODULE, NotFetched, fetch, registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Sent = dict[str, bytes]


def package(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sha512(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """What a registry of the test's own sends, by path; it is the one that is asked."""
    answers: Sent = {}

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_port}/mirror/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield answers
    server.shutdown()
    server.server_close()


PATH = f"/mirror/lightweight-charts/-/lightweight-charts-{chart_library.VERSION}.tgz"
GOOD = package(**{MODULE: b"export {}", LICENCE: b"Apache"})


def pin(monkeypatch: pytest.MonkeyPatch, tarball: bytes) -> None:
    monkeypatch.setattr(chart_library, "SHA512", sha512(tarball))


def test_the_pinned_package_is_kept_with_its_licence_and_asked_for_once(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, GOOD)
    sent[PATH] = GOOD
    target = tmp_path / "share" / "chart.mjs"
    fetch(target)
    assert target.read_bytes() == b"export {}"
    assert target.with_suffix(".LICENSE").read_bytes() == b"Apache"
    sent.clear()
    fetch(target)
    assert sorted(path.name for path in target.parent.iterdir()) == ["chart.LICENSE", "chart.mjs"]


def test_another_package_is_not_kept(sent: Sent, tmp_path: Path) -> None:
    sent[PATH] = GOOD
    with pytest.raises(NotFetched, match="another hash than the pinned one"):
        fetch(tmp_path / "chart.mjs")
    assert list(tmp_path.iterdir()) == []


def test_a_package_without_the_file_or_with_one_too_large_is_not_kept(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(chart_library.MAX_FILE_BYTES + 1)
    for files in ({LICENCE: b"Apache"}, {LICENCE: b"Apache", MODULE: large}):
        sent[PATH] = package(**files)
        pin(monkeypatch, sent[PATH])
        with pytest.raises(NotFetched, match="no usable package/dist"):
            fetch(tmp_path / "chart.mjs")
        assert not (tmp_path / "chart.mjs").exists()


def test_a_registry_that_has_it_not_or_sends_without_end_is_given_up(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFetched, match="does not answer"):
        fetch(tmp_path / "chart.mjs")
    monkeypatch.setattr(chart_library, "MAX_TARBALL_BYTES", 100_000)
    sent[PATH] = bytes(200_000)
    with pytest.raises(NotFetched, match="too large"):
        fetch(tmp_path / "chart.mjs")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "file:///etc")
    with pytest.raises(NotFetched, match="not the address"):
        fetch(tmp_path / "chart.mjs")


def test_without_a_setting_the_public_registry_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in chart_library.REGISTRY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert registry() == "https://registry.npmjs.org"
    monkeypatch.setenv("npm_config_registry", "https://npm.example/")
    assert registry() == "https://npm.example"


def test_the_pin_is_a_sha512() -> None:
    assert len(base64.b64decode(chart_library.SHA512, validate=True)) == 64
