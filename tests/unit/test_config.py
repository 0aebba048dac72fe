"""Settings: every default of the contract, and one clear line for every value refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import ConfigurationError, Settings, is_loopback, usable_cores


def read(**environ: str) -> Settings:
    return Settings.from_environment(environ)


def refusal(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(**environ)
    text = str(caught.value)
    assert "\n" not in text, "one line"
    return text


def test_defaults_are_those_of_the_contract() -> None:
    settings = read()
    assert (settings.host, settings.port) == ("127.0.0.1", 3000)
    assert settings.redis_url is None
    assert settings.database_url is None
    assert settings.data_dir == Path.cwd() / "data"
    assert settings.web_concurrency == usable_cores()
    assert settings.log_level == "info"
    assert settings.auth == "off"
    assert settings.rate_limit_per_s is None
    assert settings.idempotency_ttl_s == 86_400


def test_an_empty_value_is_no_value() -> None:
    names = ["HOST", "PORT", "REDIS_URL", "DATABASE_URL", "DATA_DIR", "WEB_CONCURRENCY", "AUTH"]
    assert read(**dict.fromkeys(names, ""), LOG_LEVEL=" ") == read()


def test_every_value_is_taken() -> None:
    settings = read(
        HOST="::1",
        PORT="65535",
        REDIS_URL="unix:///tmp/redis.sock?db=0",
        DATABASE_URL="postgres://u:p@db.example:5432/crossbook",
        DATA_DIR="/var/lib/crossbook",
        WEB_CONCURRENCY="64",
        LOG_LEVEL="DEBUG",
        LOG_FORMAT="json",
        AUTH="off",
        RATE_LIMIT_PER_S="0",
        IDEMPOTENCY_TTL_S="2592000",
    )
    assert settings == Settings(
        host="::1",
        port=65_535,
        redis_url="unix:///tmp/redis.sock?db=0",
        database_url="postgres://u:p@db.example:5432/crossbook",
        data_dir=Path("/var/lib/crossbook"),
        web_concurrency=64,
        log_level="debug",
        log_format="json",
        auth="off",
        rate_limit_per_s=None,
        idempotency_ttl_s=2_592_000,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "3_000"),
        ("PORT", "-1"),
        ("PORT", "+80"),
        ("PORT", "٣"),  # int() takes it
        ("PORT", "http"),
        ("PORT", "3000.0"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "65"),
        ("IDEMPOTENCY_TTL_S", "0"),
        ("IDEMPOTENCY_TTL_S", "2592001"),
        ("LOG_LEVEL", "verbose"),
        ("LOG_FORMAT", "xml"),
        ("HOST", "localhost:3000"),
        ("HOST", "http://localhost"),
        ("HOST", "127.0.0.300"),
        ("HOST", "two words"),
        ("AUTH", "on"),
        ("AUTH", "required"),
        ("AUTH_OFF_ON_PURPOSE", "true"),
        ("AUTH_OFF_ON_PURPOSE", "maybe"),
        ("AUTH_OFF_ON_PURPOSE", "no"),
        ("AUTH_OFF_ON_PURPOSE", "YES"),
        ("RATE_LIMIT_PER_S", "10"),
        ("RATE_LIMIT_PER_S", "-1"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost:6379"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis:localhost"),
        ("REDIS_URL", "redis://localhost:port"),
        ("REDIS_URL", "redis://localhost:99999"),
        ("REDIS_URL", "unix://"),
        ("DATABASE_URL", "mysql://localhost/crossbook"),
        ("DATABASE_URL", "postgresql://"),
        ("DATABASE_URL", "postgresql://[::1/x"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(name: str, value: str) -> None:
    text = refusal(**{name: value})
    assert name in text
    assert repr(value) in text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+x://user:secret@host/db",
        "postgresql://user:secret@host:port/db",
        "user:secret@host/db",
        "mysql://host/db?password=secret",
    ],
)
def test_a_refusal_never_shows_a_password(url: str) -> None:
    assert "secret" not in refusal(DATABASE_URL=url)


def test_a_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "DATA_DIR" in refusal(DATA_DIR=str(file))


def test_a_data_dir_in_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert read(DATA_DIR="~/book").data_dir == Path("/home/somebody/book")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST"])
def test_without_auth_loopback_is_allowed(host: str) -> None:
    assert read(HOST=host).host == host
    assert read(HOST=host, AUTH_OFF_ON_PURPOSE="yes").host == host
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "trading.example", "localhost.x"])
def test_without_auth_anything_wider_needs_a_word(host: str) -> None:
    text = refusal(HOST=host)
    assert "AUTH=off" in text
    assert "AUTH_OFF_ON_PURPOSE=yes" in text
    assert "AUTH=off" in refusal(HOST=host, AUTH_OFF_ON_PURPOSE="")
    assert "AUTH_OFF_ON_PURPOSE='no'" in refusal(HOST=host, AUTH_OFF_ON_PURPOSE="no")
    assert read(HOST=host, AUTH_OFF_ON_PURPOSE="yes").host == host
