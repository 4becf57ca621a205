"""What each method of the SQLite store does inside its transaction.

Whoever writes gets a cursor, and raises StoreError, if at all, before anything was written: see SharedWriter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any

from .base import Claimed, JobHead, Message
from .rules import check_beginning, check_head, deaths_when_claimed, no_such_job, stale_snapshot, stale_writer

HEAD = "id, flow_id, status, created, updated, owner, epoch, deaths"
# The last entry is looked up where it is, so that an append writes to one table only.
LAST = "coalesce((SELECT max(number) FROM entries WHERE job = id), base)"
FIND = f"SELECT epoch, {LAST} FROM jobs WHERE id = ?"
FIND_TO_CLAIM = f"SELECT {LAST}, claimed_at, {HEAD} FROM jobs WHERE id = ?"
# The number is NULL, which the table refuses, unless these are the epoch and the last entry of the job.
ENTRY_IF_CURRENT = f"(?, (SELECT ? + 1 FROM jobs WHERE id = ? AND epoch = ? AND {LAST} = ?), ?)"
ADD_ENTRY = "INSERT INTO entries VALUES (?, ?, ?)"
ADD_JOB = f"INSERT INTO jobs ({HEAD}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
CHANGE_HEAD = "UPDATE jobs SET flow_id = ?, status = ?, created = ?, updated = ? WHERE id = ?"
# Every status that there is, each looked up as the next after the last: with it, a search by flow alone can use the
# index by status and flow. It needs none of its own, which every job that begins or ends would change.
ANY_STATUS = """
    WITH RECURSIVE found (status) AS (
        SELECT min(status) FROM jobs
        UNION ALL SELECT (SELECT min(status) FROM jobs WHERE status > found.status) FROM found WHERE status IS NOT NULL
    )
    SELECT status FROM found
"""
# A job's head and an entry of it in one statement, which is a transaction by itself, where BEGIN, COMMIT and what is
# between them are five. Only a trigger writes to two tables; these belong to a connection, not to the file.
SHORTCUTS = (
    f"CREATE TEMP VIEW beginning AS SELECT {HEAD}, NULL AS body FROM jobs",
    f"""
    CREATE TEMP TRIGGER begin INSTEAD OF INSERT ON beginning BEGIN
        INSERT INTO jobs ({HEAD}) VALUES (NEW.{HEAD.replace(", ", ", NEW.")});
        INSERT INTO entries VALUES (NEW.id, 1, NEW.body);
    END
    """,
    """
    CREATE TEMP VIEW change AS
        SELECT id, flow_id, status, created, updated, epoch, base AS last, NULL AS body FROM jobs
    """,
    f"""
    CREATE TEMP TRIGGER change_head INSTEAD OF INSERT ON change BEGIN
        INSERT INTO entries VALUES (
            NEW.id,
            (SELECT NEW.last + 1 FROM jobs WHERE id = NEW.id AND epoch = NEW.epoch AND {LAST} = NEW.last),
            NEW.body
        );
        UPDATE jobs SET flow_id = NEW.flow_id, status = NEW.status, created = NEW.created, updated = NEW.updated
            WHERE id = NEW.id;
    END
    """,
)
BEGIN_JOB = "INSERT INTO beginning VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
CHANGE_JOB = "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def entry_if_current(job_id: str, after: int, entry: bytes, epoch: int) -> tuple[object, ...]:
    """Return the values of an entry for `add_entries`."""
    return job_id, after, job_id, epoch, after, entry


@cache
def add_entries(count: int) -> str:
    """Return the statement that adds so many entries, or none when one does not follow the last one of its job."""
    return f"INSERT INTO entries VALUES {', '.join([ENTRY_IF_CURRENT] * count)}"


ADD_IF_CURRENT = add_entries(1)


def alone(
    job_id: str, after: int, entries: Sequence[bytes], epoch: int, head: JobHead | None
) -> tuple[str, tuple[object, ...]] | None:
    """Return the statement that does by itself what `append` does, and its values; None when there is none.

    It violates a constraint where `append` raises.
    """
    if len(entries) != 1:
        return None
    if head is None:
        return ADD_IF_CURRENT, entry_if_current(job_id, after, entries[0], epoch)
    if head.job_id != job_id or (not after and head.epoch != epoch):
        return None
    if after:
        return CHANGE_JOB, (*head[:5], epoch, after, entries[0])
    return BEGIN_JOB, (*head, entries[0])


def append(
    store: str,
    job_id: str,
    after: int,
    entries: Sequence[bytes],
    epoch: int,
    head: JobHead | None,
    cursor: sqlite3.Cursor,
) -> None:
    """See FactStore.append."""
    if head is None and len(entries) == 1:
        try:
            cursor.execute(ADD_IF_CURRENT, entry_if_current(job_id, after, entries[0], epoch))
            return
        except sqlite3.IntegrityError:
            pass  # why is found out below
    found = cursor.execute(FIND, (job_id,)).fetchone()
    if found is None and after == 0:
        cursor.execute(ADD_JOB, check_beginning(store, job_id, entries, epoch, head))
    elif found != (epoch, after):
        raise stale_writer(store, job_id, f"epoch {epoch} and entry {after}", _described(cursor, job_id))
    elif head is not None:
        check_head(store, job_id, head)
        cursor.execute(CHANGE_HEAD, (*head[1:5], job_id))
    if len(entries) == 1:
        cursor.execute(ADD_ENTRY, (job_id, after + 1, entries[0]))
    else:
        cursor.executemany(ADD_ENTRY, ((job_id, number, body) for number, body in enumerate(entries, after + 1)))


def put_snapshot(store: str, job_id: str, number: int, snapshot: bytes, epoch: int, cursor: sqlite3.Cursor) -> None:
    """See FactStore.put_snapshot."""
    found = cursor.execute(f"SELECT epoch, base, {LAST} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if found is None or found[0] != epoch:
        raise stale_writer(store, job_id, f"epoch {epoch}", _described(cursor, job_id))
    _, base, last = found
    if not max(base, 1) <= number <= last:
        raise stale_snapshot(store, job_id, number, base, last)
    cursor.execute("DELETE FROM entries WHERE job = ? AND number <= ?", (job_id, number))
    cursor.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (job_id, snapshot))
    cursor.execute("UPDATE jobs SET base = ? WHERE id = ?", (number, job_id))


def claim(
    owner: str, until: float, now: float, jobs: Sequence[str], dead: Sequence[str], cursor: sqlite3.Cursor
) -> list[Claimed]:
    """See FactStore.claim."""
    cursor.executemany("DELETE FROM owners WHERE id = ?", ((gone,) for gone in dead))
    cursor.execute("INSERT OR REPLACE INTO owners VALUES (?, ?)", (owner, until))
    claimed = []
    for job_id in jobs:
        row = cursor.execute(FIND_TO_CLAIM, (job_id,)).fetchone()
        if row is None:
            continue
        last, claimed_at, head = row[0], row[1], JobHead(*row[2:])
        if head.owner == owner or not _is_free(cursor, head.owner, now):
            continue
        head = head._replace(owner=owner, epoch=head.epoch + 1, deaths=deaths_when_claimed(head, last > claimed_at))
        cursor.execute(
            "UPDATE jobs SET owner = ?, epoch = ?, deaths = ?, claimed_at = ? WHERE id = ?", (*head[5:], last, job_id)
        )
        claimed.append(Claimed(head, last))
    # Processes come and go: what is left of those who own nothing any more would pile up.
    cursor.execute(
        "DELETE FROM owners WHERE until < ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE owner = owners.id)", (now,)
    )
    return claimed


def let_go(owner: str, jobs: Sequence[str] | None, cursor: sqlite3.Cursor) -> None:
    """See FactStore.let_go."""
    if jobs is None:
        cursor.execute("UPDATE jobs SET owner = NULL WHERE owner = ?", (owner,))
        cursor.execute("DELETE FROM owners WHERE id = ?", (owner,))
    else:
        cursor.executemany(
            "UPDATE jobs SET owner = NULL WHERE id = ? AND owner = ?", ((job_id, owner) for job_id in jobs)
        )


def prune(statuses: Sequence[str], before: float, keep: int | None, cursor: sqlite3.Cursor) -> int:
    """See FactStore.prune."""
    listed = f"FROM jobs WHERE status IN ({_marks(statuses)})"
    doomed = set(cursor.execute(f"SELECT id {listed} AND updated < ?", (*statuses, before)).fetchall())
    if keep is not None:
        rest = f"SELECT id {listed} ORDER BY updated DESC, id LIMIT -1 OFFSET ?"
        doomed.update(cursor.execute(rest, (*statuses, keep)).fetchall())
    for statement in (
        "DELETE FROM entries WHERE job = ?",
        "DELETE FROM snapshots WHERE job = ?",
        "DELETE FROM messages WHERE job = ?",
        "DELETE FROM jobs WHERE id = ?",
    ):
        cursor.executemany(statement, doomed)
    return len(doomed)


def send(store: str, messages: Sequence[tuple[str, bytes]], cursor: sqlite3.Cursor) -> None:
    """See Inbox.send."""
    for job_id in {job_id for job_id, _ in messages}:
        if cursor.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is None:
            raise no_such_job(store, job_id)
    cursor.executemany("INSERT INTO messages (job, body) VALUES (?, ?)", messages)


def discard(numbers: Sequence[int], cursor: sqlite3.Cursor) -> None:
    """See Inbox.discard."""
    cursor.executemany("DELETE FROM messages WHERE number = ?", ((number,) for number in numbers))


def read(store: str, job_id: str, connection: sqlite3.Connection) -> tuple[int, bytes | None, list[tuple[int, bytes]]]:
    """Return the number of a job's snapshot, the snapshot, and all entries after it with their numbers."""
    found = connection.execute("SELECT base FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if found is None:
        raise no_such_job(store, job_id)
    snapshot = connection.execute("SELECT body FROM snapshots WHERE job = ?", (job_id,)).fetchone()
    rows = connection.execute("SELECT number, body FROM entries WHERE job = ? ORDER BY number", (job_id,)).fetchall()
    return found[0], snapshot and snapshot[0], rows


def heads(
    job_id: str | None, flow_id: str | None, statuses: Sequence[str] | None, connection: sqlite3.Connection
) -> list[JobHead]:
    """See FactStore.heads."""
    conditions, values = ["1"], list[Any]()
    if job_id is not None:
        conditions.append("id = ?")
        values.append(job_id)
    if flow_id is not None:
        conditions.append("flow_id = ?")
        values.append(flow_id)
    if statuses is not None:
        conditions.append(f"status IN ({_marks(statuses)})")
        values.extend(statuses)
    elif flow_id is not None:
        conditions.append(f"status IN ({ANY_STATUS})")
    query = f"SELECT {HEAD} FROM jobs WHERE {' AND '.join(conditions)} ORDER BY created, id"
    return [JobHead(*row) for row in connection.execute(query, values)]


def receive(after: int, connection: sqlite3.Connection) -> list[Message]:
    """See Inbox.receive."""
    query = "SELECT number, job, body FROM messages WHERE number > ? ORDER BY number"
    return [Message(*row) for row in connection.execute(query, (after,))]


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _is_free(cursor: sqlite3.Cursor, owner: str | None, now: float) -> bool:
    if owner is None:
        return True
    lease = cursor.execute("SELECT until FROM owners WHERE id = ?", (owner,)).fetchone()
    return lease is None or lease[0] < now


def _described(cursor: sqlite3.Cursor, job_id: str) -> str:
    """Return what there is of a job, for an error."""
    row = cursor.execute(f"SELECT epoch, owner, {LAST} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return "no such job" if row is None else f"epoch {row[0]} of owner {row[1]!r} and entry {row[2]}"
