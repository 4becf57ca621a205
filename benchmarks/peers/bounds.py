"""What bare Python and bare SQLite take for the work: the least that any engine could hope for.

Each is the smallest program that does the essential part and nothing else: no errors, no state, no names.
"""

from __future__ import annotations

import itertools
import queue
import sqlite3
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
from timing import held, importing, peak, repeated, spread

FACT = b"f" * 170  # about as long as the journal entry of a small activation


class Dispatcher:
    """A queue of deliveries, a count of those that have not ended, and one tuple per activation as the history.

    With workers, threads take the deliveries; without, the thread that calls `run` does.
    """

    def __init__(self, workers: int = 0) -> None:
        self.queue: deque[tuple[str, Callable[..., Any], dict[str, Any]]] = deque()
        self.history: Any = []
        self.unfinished = 0
        self.lock = threading.Lock()
        self.idle = threading.Event()
        self.ready = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self.threads:
            thread.start()

    def emit(self, name: str, handler: Callable[..., Any], payload: dict[str, Any]) -> None:
        with self.lock:
            self.unfinished += 1
        self.queue.append((name, handler, payload))
        if self.threads:
            self.ready.release()

    def run(self) -> None:
        while not self.threads and self.queue:
            self._activate()
        self.idle.wait()
        for _ in self.threads:
            self.ready.release()

    def _work(self) -> None:
        while True:
            self.ready.acquire()
            if not self.queue:
                return
            self._activate()

    def _activate(self) -> None:
        name, handler, payload = self.queue.popleft()
        began = time.time_ns()
        handler(**payload)
        self.history.append((name, payload, began, time.time_ns() - began))
        with self.lock:
            self.unfinished -= 1
            if self.unfinished == 0:
                self.idle.set()


def calls(size: int) -> tuple[float, int]:
    """Call a handler with a keyword argument."""

    def handle(data: Any = None, **kwargs: Any) -> Any:
        return data

    def run() -> int:
        for number in range(size):
            last = handle(data=number)
        return last + 1

    return repeated(run)


def chain(size: int) -> tuple[float, int]:
    """Pass a number along so many handlers, each of which adds 1."""

    def run() -> int:
        dispatcher = Dispatcher()

        def add(left: int, data: int) -> None:
            if left > 1:
                dispatcher.emit("add", add, {"left": left - 1, "data": data + 1})

        dispatcher.emit("add", add, {"left": size, "data": 0})
        dispatcher.run()
        return dispatcher.history[-1][1]["data"] + 1

    return repeated(run)


def stream(size: int, history: str = "full", workers: int = 0) -> tuple[float, int]:
    """Pass so many numbers from a source through a transform, which adds 1, to a sink."""

    def run() -> int:
        dispatcher = Dispatcher(workers)
        if history == "bounded":
            dispatcher.history = deque(maxlen=1000)
        seen: list[int] = []

        def source(count: int) -> None:
            for number in range(count):
                dispatcher.emit("transform", transform, {"data": number})

        def transform(data: Any = None, **kwargs: Any) -> None:
            dispatcher.emit("sink", sink, {"data": data + 1})

        def sink(data: Any = None, **kwargs: Any) -> None:
            seen.append(data)

        dispatcher.emit("source", source, {"count": size})
        dispatcher.run()
        return sum(seen)

    return repeated(run)


def stream_by_workers(size: int, items: int) -> tuple[float, int]:
    """Do the same with so many threads."""
    return stream(items, workers=size)


def two_routines(size: int) -> tuple[dict[str, float], int]:
    """Run a job of two handlers, so many times, each with a dispatcher of its own."""

    def measure() -> tuple[float, int]:
        dispatcher, seen = Dispatcher(), 0

        def first() -> None:
            dispatcher.emit("second", second, {"data": 1})

        def second(data: int) -> None:
            nonlocal seen
            seen += data

        started = time.perf_counter()
        dispatcher.emit("first", first, {})
        dispatcher.run()
        return time.perf_counter() - started, seen

    return spread(measure, size)


def waits(size: int, seconds: float, workers: int) -> tuple[float, int]:
    """Sleep so many times, in a pool of threads."""
    with ThreadPoolExecutor(workers) as pool:
        return repeated(lambda: len(list(pool.map(time.sleep, [seconds] * size))))


def imports(size: int) -> tuple[float, int]:
    """Import pydantic, which checks what has a type."""
    return importing("from pydantic import BaseModel, TypeAdapter", size)


def typed_imports(size: int) -> tuple[float, int]:
    """Do that, and make what checks a number."""
    return importing("from pydantic import BaseModel, TypeAdapter; TypeAdapter(int)", size)


def save_and_load(size: int, items: int) -> tuple[float, int]:
    """Write so many records and state items as JSON to a file, and read it."""
    record = {"routine_id": "sink", "slot": "input", "event_name": "input", "timestamp": "2026-11-21T12:00:00.000000Z"}
    rest = {"duration": 1.5e-06, "status": "completed", "error": None, "attempt": 1, "emitted": 0}
    job = {
        "history": [{**record, "data": {"data": number}, **rest} for number in range(size)],
        "state": {f"key{number}": {"number": number, "name": f"item {number}"} for number in range(items)},
    }

    def there_and_back(path: Path) -> Any:
        path.write_bytes(orjson.dumps(job))
        return orjson.loads(path.read_bytes())

    with tempfile.TemporaryDirectory() as folder:
        seconds, loaded = repeated(lambda: there_and_back(Path(folder, "job.json")))
    return seconds, len(loaded["history"])


def memory(size: int) -> tuple[float, int]:
    """Keep a tuple and a payload for each of so many activations."""

    def run() -> Dispatcher:
        dispatcher = Dispatcher()

        def sink(data: Any) -> None: ...

        for _ in range(size):
            dispatcher.emit("sink", sink, {"data": None})
        dispatcher.run()
        return dispatcher

    kept, dispatcher = held(run, size)
    return kept, len(dispatcher.history)


def peak_memory(size: int) -> tuple[float, int]:
    """Pass so many numbers through, and look how large the process has become."""
    _, total = stream(size, "bounded")
    return peak(), total


def database(folder: str, synchronous: str) -> sqlite3.Connection:
    """Return a connection to a new database with one table of facts."""
    connection = sqlite3.connect(Path(folder, "facts.db"), isolation_level=None, check_same_thread=False)
    for statement in (
        "PRAGMA journal_mode = WAL",
        f"PRAGMA synchronous = {synchronous}",
        "CREATE TABLE facts (job TEXT, number INTEGER, fact BLOB, PRIMARY KEY (job, number)) WITHOUT ROWID",
    ):
        connection.execute(statement)
    return connection


def job_names() -> Iterator[str]:
    """Return names of jobs in alphabetical order."""
    return map("job {:06}".format, itertools.count())


def durable(size: int, synchronous: str) -> tuple[float, int]:
    """Commit so many rows one by one."""
    names = job_names()
    with tempfile.TemporaryDirectory() as folder:
        connection = database(folder, synchronous)

        def run() -> str:
            job = next(names)
            for number in range(size):
                connection.execute("INSERT INTO facts VALUES (?, ?, ?)", (job, number, FACT))
            return job

        seconds, job = repeated(run)
        (count,) = connection.execute("SELECT count(*) FROM facts WHERE job = ?", (job,)).fetchone()
        connection.close()
    return seconds, count


def durable_jobs(size: int, jobs: int, synchronous: str) -> tuple[float, int]:
    """Have so many threads wait for each row of theirs, and one thread commit all rows that are waited for.

    It calls SQLite for each row. One statement for all of them would be faster, but is not what is usually written.
    """
    inbox: queue.SimpleQueue[tuple[str, int, threading.Semaphore]] = queue.SimpleQueue()
    names = job_names()

    def job(name: str) -> None:
        written = threading.Semaphore(0)
        for number in range(size):
            inbox.put((name, number, written))
            written.acquire()

    def write() -> None:
        left = size * jobs
        while left:
            batch = [inbox.get()]
            while not inbox.empty():
                batch.append(inbox.get())
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO facts VALUES (?, ?, ?)", [(*row[:2], FACT) for row in batch])
            connection.execute("COMMIT")
            for _, _, written in batch:
                written.release()
            left -= len(batch)

    def run() -> list[str]:
        started = [next(names) for _ in range(jobs)]
        threads = [threading.Thread(target=job, args=(name,)) for name in started]
        threads.append(threading.Thread(target=write))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return started

    with tempfile.TemporaryDirectory() as folder:
        connection = database(folder, synchronous)
        seconds, started = repeated(run)
        (count,) = connection.execute(
            "SELECT count(*) FROM facts WHERE job BETWEEN ? AND ?", (started[0], started[-1])
        ).fetchone()
        connection.close()
    return seconds, count
