"""What SQLite's errors mean, and what to do about each."""

from __future__ import annotations

import sqlite3
from typing import TypeGuard

from ..errors import StoreError

FULL = "the disk or the database is full", "make room, and the same call succeeds"
LOCKED = (
    "the database is locked",
    "another program writes to it for longer than busy_timeout allows: raise that, or end it",
)
READ_ONLY = "the database is read-only", "let this process write to the file, its folder, and the files beside it"
NO_OPENING = (
    "the file cannot be opened",
    "check that its folder exists, that it is a file, and who may read and write it",
)
DAMAGED = "the database is damaged", "restore it from a copy; 'PRAGMA integrity_check' says what is wrong"
NO_DATABASE = "the file is no SQLite database", "give the path of another file, or restore it from a copy"
IO = "the file system failed", "check the disk and its connection, then do the same again"
TOO_BIG = "it is too big for SQLite", "keep large values outside the job, and only their names in it"
NO_MEMORY = "memory ran out", "free some, then do the same again"
OTHER = "SQLite refused", "this is not expected: please report it"
BUSY_OR_WORSE = (
    "the database cannot be used right now",
    "check that no other program has locked it, that the disk has room, and that this process may write to the file",
)

# SQLite's primary result codes: https://www.sqlite.org/rescode.html
BUSY = 5
MEANINGS = {
    3: READ_ONLY,
    BUSY: LOCKED,
    6: LOCKED,
    7: NO_MEMORY,
    8: READ_ONLY,
    10: IO,
    11: DAMAGED,
    13: FULL,
    14: NO_OPENING,
    15: LOCKED,
    18: TOO_BIG,
    26: NO_DATABASE,
}


def explained(store: str, doing: str, error: sqlite3.Error) -> StoreError:
    """Return the error of a store that could not do something.

    Args:
        store: what the store is called.
        doing: what it was about to do, as in "cannot <doing>".
        error: what SQLite says.
    """
    meaning, advice = _meaning(error)
    return StoreError(f"{store}: cannot {doing}: {meaning} ({error}); {advice}")


def is_busy(error: Exception) -> TypeGuard[sqlite3.OperationalError]:
    """Return whether an error says that another connection writes to the database.

    Python 3.10 has no error codes: there, it is what the error says.
    """
    if not isinstance(error, sqlite3.OperationalError):
        return False
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return str(error) == "database is locked" if code is None else code & 0xFF == BUSY


def _meaning(error: sqlite3.Error) -> tuple[str, str]:
    """Return what an error means and what to do about it.

    Python 3.10 has no error codes: there, the class of the error says less.
    """
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return MEANINGS.get(code & 0xFF, OTHER)
    if isinstance(error, sqlite3.OperationalError):
        return BUSY_OR_WORSE
    if isinstance(error, (sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.InterfaceError)):
        return OTHER
    return DAMAGED
