"""dbos: durable workflows of steps; here in SQLite, where it commits each step before the next one.

In the journal mode that it chooses, SQLite takes twice as long. The file is put into WAL mode before dbos opens it,
which it leaves as it is, and which is the mode of all others here.
"""

from __future__ import annotations

import atexit
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from dbos import DBOS
from timing import importing, timed

launched = False


@DBOS.step()
def add_one(value: int) -> int:
    return value + 1


@DBOS.workflow()
def steps(count: int) -> int:
    value = 0
    for _ in range(count):
        value = add_one(value)
    return value


def launch() -> None:
    """Open the database, once for all the work of this process."""
    global launched
    if launched:
        return
    launched = True
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, "jobs.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    DBOS(config={"name": "benchmark", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"})
    DBOS.launch()
    atexit.register(folder.cleanup)
    atexit.register(DBOS.destroy)
    steps(1)


def durable(size: int, synchronous: str) -> tuple[float, int] | None:
    if synchronous != "FULL":
        return None
    launch()
    return timed(lambda: steps(size))


def durable_steps(size: int, synchronous: str) -> tuple[float, int] | None:
    return durable(size, synchronous)


def durable_jobs(size: int, jobs: int, synchronous: str) -> tuple[float, int] | None:
    if synchronous != "FULL":
        return None
    launch()

    def run() -> int:
        handles = [DBOS.start_workflow(steps, size) for _ in range(jobs)]
        return sum(handle.get_result() for handle in handles)

    return timed(run)


def imports(size: int) -> tuple[float, int]:
    return importing("from dbos import DBOS", size)
