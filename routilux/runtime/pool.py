"""Worker threads that any number of jobs share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Task = Callable[[], None]


class _Worker(threading.Thread):
    def __init__(self, pool: WorkerPool, number: int) -> None:
        super().__init__(name=f"routilux-{number}", daemon=True)
        self.pool = pool
        self.bell = threading.Event()
        self.given_up = False

    def run(self) -> None:
        self.pool.serve(self)


class WorkerPool:
    """Threads made on demand, up to a limit that may change; they end when it falls below their number.

    Tasks start in the order in which they were submitted. An idle worker registers, and sleeps until a task rings
    for it. A worker that is blocked, or whose handler has been given up, does not count towards the limit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: deque[Task] = deque()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._excused = 0
        self._started = 0
        self._limit = 0

    @property
    def given_up(self) -> int:
        """How many threads still run a handler that nobody waits for any more."""
        with self._lock:
            return sum(worker.given_up for worker in self._workers)

    def set_limit(self, limit: int) -> None:
        """Set how many threads may work; surplus ones end as soon as they are idle."""
        with self._lock:
            self._limit = limit
            self._grow()
            if len(self._workers) > limit + self._excused:
                for worker in self._idle:
                    worker.bell.set()
                self._idle.clear()

    def join(self) -> None:
        """Wait until all workers have ended, but for this thread and the given-up ones, if the limit is 0."""
        with self._lock:
            workers = [worker for worker in self._workers if not worker.given_up] if self._limit == 0 else []
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join()

    def submit(self, task: Task) -> None:
        """Run a task on some worker, after those submitted before it."""
        with self._lock:
            self._tasks.append(task)
            self._grow()

    def has_tasks(self) -> bool:
        """Whether a task waits for a worker."""
        return bool(self._tasks)

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Let another thread stand in for this one, if it is a worker, while it blocks."""
        worker = threading.current_thread()
        if not isinstance(worker, _Worker) or worker.pool is not self:
            yield
            return
        self._excuse(1)
        try:
            yield
        finally:
            self._excuse(-1)

    def give_up(self, thread: int) -> None:
        """Replace the worker with this thread identifier: it ends when the handler that it runs returns."""
        with self._lock:
            for worker in self._workers:
                if worker.ident == thread and not worker.given_up:
                    worker.given_up = True
                    self._excused += 1
            self._grow()

    def serve(self, worker: _Worker) -> None:
        """Run tasks until this worker is surplus. Each worker calls it on its own thread."""
        while True:
            with self._lock:
                if worker.given_up or len(self._workers) > self._limit + self._excused:
                    self._excused -= worker.given_up
                    self._workers.remove(worker)
                    return
                task = self._tasks.popleft() if self._tasks else None
                if task is None:
                    worker.bell.clear()
                    self._idle.append(worker)
            if task is None:
                worker.bell.wait()
            else:
                task()

    def _excuse(self, change: int) -> None:
        with self._lock:
            self._excused += change
            self._grow()

    def _grow(self) -> None:
        """Wake or make one worker per waiting task, within the limit. The caller holds the lock."""
        wanted = len(self._tasks)
        while wanted and self._idle:
            self._idle.pop().bell.set()
            wanted -= 1
        while wanted and len(self._workers) < self._limit + self._excused:
            wanted -= 1
            self._started += 1
            worker = _Worker(self, self._started)
            self._workers.add(worker)
            try:
                worker.start()
            except RuntimeError:  # the system gives no more threads; those that there are do the work
                self._workers.remove(worker)
                if not self._workers:
                    raise
                return
