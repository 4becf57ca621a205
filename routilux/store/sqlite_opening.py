"""How a SQLite database becomes a store: its settings, its tables, and which files are refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ..errors import StoreError
from .sqlite_errors import explained

# It marks a database as one of ours: "rout" in ASCII.
APPLICATION = 0x726F7574
VERSION = 1
OLDEST_SQLITE = (3, 35)
# Pages in the log after which SQLite copies them into the database, and writes the log from its beginning again. With
# "FULL", a commit that makes the log's file longer takes half as long again as one that does not, so it is to be short;
# with "NORMAL", only the copying waits for the disk, so it is to be rare.
CHECKPOINT_PAGES = {"FULL": 250, "NORMAL": 1000}
# The size that the log's file is cut back to after a long transaction, which is not less than that of 1,000 pages.
LOG_BYTES = 4 * 1024 * 1024
# Each try waits for whoever was in the way, so that more than a few tries mean something else.
TRIES = 20

TABLES = (
    """
    CREATE TABLE jobs (
        id TEXT NOT NULL PRIMARY KEY,
        flow_id TEXT NOT NULL,
        status TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        owner TEXT,
        epoch INTEGER NOT NULL,
        deaths INTEGER NOT NULL,
        base INTEGER NOT NULL DEFAULT 0,
        claimed_at INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    "CREATE INDEX jobs_by_status ON jobs (status, flow_id)",
    "CREATE INDEX jobs_by_owner ON jobs (owner) WHERE owner IS NOT NULL",
    """
    CREATE TABLE entries (
        job TEXT NOT NULL,
        number INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (job, number)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE snapshots (job TEXT NOT NULL PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE owners (id TEXT NOT NULL PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE messages (number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX messages_by_job ON messages (job)",
)


def check_version_of_sqlite(store: str) -> None:
    """Raise StoreError when Python came with a SQLite that is too old."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(
            f"{store}: SQLite 3.35 or newer is needed, and this Python has {sqlite3.sqlite_version}; "
            "use a newer Python, or a memory store"
        )


def connected(
    path: str, store: str, synchronous: str, busy_timeout: float, besides: Sequence[str] = ()
) -> sqlite3.Connection:
    """Return a connection to a database that has our tables, and what statements make for this connection besides.

    Raises StoreError when the file cannot be opened, is no database, or is not one that this version can read.
    """
    try:
        connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise explained(store, "open the database", error) from error
    try:
        _use_write_ahead_log(connection, store)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES[synchronous]}")
        connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
        # What a snapshot has replaced is no secret: overwriting it with zeros would write every page once more.
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        _make_tables(connection, store)
        for statement in besides:
            connection.execute(statement)
    except sqlite3.Error as error:
        connection.close()
        raise explained(store, "open the database", error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection, store: str) -> None:
    """Switch the database to a write-ahead log.

    SQLite does not wait for others who are about to do the same, but it does wait to begin a transaction: that is how
    to be back when they are done.
    """
    for _ in range(TRIES):
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            break
        except sqlite3.OperationalError:
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
    else:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise StoreError(
            f"{store}: SQLite cannot keep a write-ahead log there (its journal mode stays {mode!r}); "
            "use a file on a disk of this machine"
        )


def _make_tables(connection: sqlite3.Connection, store: str) -> None:
    """Make the tables unless they are there. Who makes them has made them all, and who looks sees all or none."""
    for begin in ("BEGIN", "BEGIN IMMEDIATE"):
        connection.execute(begin)
        try:
            ready = _is_ready(connection, store)
            if not ready and begin == "BEGIN IMMEDIATE":
                for statement in TABLES:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={APPLICATION}")
                connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if ready:
            return


def _is_ready(connection: sqlite3.Connection, store: str) -> bool:
    """Return whether the tables are there; raise StoreError for a database of others, or of a newer version."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION and version == VERSION:
        return True
    if application == APPLICATION and version > VERSION:
        raise StoreError(
            f"{store}: a newer version of routilux made it (format {version}, this one reads {VERSION}); "
            "update routilux, or give the path of another file"
        )
    if application or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(f"{store}: it is another program's database; give the path of another file")
    return False
