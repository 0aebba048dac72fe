"""The account that a server runs under which refuses to run as root, and what it may reach.
Grants the least that lets it work: passing through folders, never reading them.
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.embedded.process import EmbeddedServerError

if TYPE_CHECKING:
    from pathlib import Path

log: Final = logging.getLogger(__name__)

# The first that exists is taken; the second does on every Unix.
ACCOUNTS: Final = ("postgres", "nobody")
ROOT_UID: Final = 0


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int


def account_for(folder: Path) -> Account | None:
    """None if we are not root and everything simply runs as we do. Otherwise the owner of `folder`
    when it has one but root, so that a change of accounts never strands data; else one of
    ACCOUNTS. Raises EmbeddedServerError if there is none.
    """
    if os.geteuid() != ROOT_UID:
        return None
    entries = {entry.pw_name: entry for entry in pwd.getpwall()}
    owner_uid = folder.stat().st_uid if folder.exists() else ROOT_UID
    owners = [entry for entry in entries.values() if entry.pw_uid == owner_uid != ROOT_UID]
    usual = [entries[name] for name in ACCOUNTS if name in entries]
    for entry in owners + usual:
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(f"Postgres does not run as root, and there is no user {ACCOUNTS}")


def give(folder: Path, account: Account) -> None:
    """Make `account` the owner of `folder` and all below, unless it is already."""
    if folder.stat().st_uid == account.uid:
        return
    for parent, _, files in os.walk(folder, followlinks=False):
        os.chown(parent, account.uid, account.gid)
        for name in files:
            os.chown(os.path.join(parent, name), account.uid, account.gid, follow_symlinks=False)  # noqa: PTH118


def let_through(path: Path, account: Account) -> None:
    """Let `account` reach `path` through the folders above it: a clone below /root or in a private
    temporary folder is closed to others. Adds the one x bit that is missing and nothing else, so
    nobody can list what is there.
    """
    opened = [str(folder) for folder in path.resolve().parents if _open_to(account, folder)]
    if opened:
        log.info("user %s may now pass through (chmod +x) %s", account.name, ", ".join(opened))


def let_run(folder: Path, account: Account) -> None:
    """Let everybody run the programs in `folder`, which pip under umask 077 made private."""
    let_through(folder, account)
    for parent, _, files in os.walk(folder):
        _open_to_others(parent)
        for name in files:
            _open_to_others(os.path.join(parent, name))  # noqa: PTH118  # fast for 2,000 files


def _open_to(account: Account, folder: Path) -> bool:
    mode = folder.stat().st_mode
    missing = _search_bit(folder.stat(), account) & ~mode
    if missing:
        folder.chmod(stat.S_IMODE(mode) | missing)
    return bool(missing)


def _open_to_others(path: str) -> None:
    mode = os.lstat(path).st_mode
    wanted = stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
    if wanted & ~mode and not stat.S_ISLNK(mode):
        os.chmod(path, stat.S_IMODE(mode) | wanted)  # noqa: PTH101


def _search_bit(folder: os.stat_result, account: Account) -> int:
    if folder.st_uid == account.uid:
        return stat.S_IXUSR
    return stat.S_IXGRP if folder.st_gid == account.gid else stat.S_IXOTH
