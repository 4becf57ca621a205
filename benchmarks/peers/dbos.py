"""dbos: durable workflows of steps; here in SQLite, where it commits each step before the next one.

It leaves the journal mode of SQLite as it is, which for a new file is ``DELETE``. WAL, the mode of all others here, is
faster. So it is measured twice: as it comes, and with a file that was put into WAL mode before dbos opened it.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from dbos import DBOS
from timing import importing, repeated

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
        connection.execute(f"PRAGMA journal_mode = {os.environ.get('JOURNAL_MODE', 'DELETE')}")
    DBOS(config={"name": "benchmark", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"})
    DBOS.launch()
    atexit.register(folder.cleanup)
    atexit.register(DBOS.destroy)
    steps(1)


def durable(size: int, synchronous: str) -> tuple[float, int] | None:
    if synchronous != "FULL":
        return None
    launch()
    return repeated(lambda: steps(size))


def durable_steps(size: int, synchronous: str) -> tuple[float, int] | None:
    return durable(size, synchronous)


def durable_jobs(size: int, jobs: int, synchronous: str) -> tuple[float, int] | None:
    if synchronous != "FULL":
        return None
    launch()

    def run() -> int:
        handles = [DBOS.start_workflow(steps, size) for _ in range(jobs)]
        return sum(handle.get_result() for handle in handles)

    return repeated(run)


def imports(size: int) -> tuple[float, int]:
    return importing("from dbos import DBOS", size)
