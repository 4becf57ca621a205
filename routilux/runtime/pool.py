"""Worker threads that any number of jobs share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .bells import Bell, ring

Task = Callable[[], None]


class Worker(threading.Thread):
    """One thread of a pool. ``sleeps`` counts the waits for other jobs that it is inside of.

    ``bell`` is a lock that it cannot acquire until it is rung, which releases it.
    """

    def __init__(self, pool: WorkerPool, number: int) -> None:
        super().__init__(name=f"routilux-{number}", daemon=True)
        self.pool = pool
        self.bell = threading.Lock()
        self.bell.acquire()
        self.given_up = False
        self.sleeps = 0

    @property
    def excused(self) -> bool:
        """Whether another thread stands in for this one."""
        return self.given_up or self.sleeps > 0

    def run(self) -> None:
        """Serve the pool."""
        self.pool.serve(self)


class WorkerPool:
    """Threads made on demand, up to a limit that may change; they end when it falls below their number.

    Tasks start in the order in which they were submitted. An idle worker registers, and sleeps until a task rings
    for it. A worker that sleeps inside a task, or whose handler has been given up, does not count towards the limit.

    What changes the workers holds the lock. While all of them are busy, tasks come and go without it, because threads
    that meet at a lock for every task would switch for every task (see `gate`). No task is left lying: whoever submits
    one looks for idle workers afterwards, and a worker that has registered as idle looks for tasks once more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: deque[Task] = deque()
        self._idle: list[Worker] = []
        self._workers: set[Worker] = set()
        self._here = threading.local()
        self._started = 0
        self._limit = 0
        self._working = 0  # workers that count towards the limit
        self._coming = 0  # workers that were rung or made, and have not looked yet
        self._joining: list[Bell] = []  # rung when workers leave, or are to stay

    @property
    def given_up(self) -> int:
        """How many threads still run a handler that nobody waits for any more."""
        with self._lock:
            return sum(worker.given_up for worker in self._workers)

    def set_limit(self, limit: int) -> None:
        """Set how many threads may work; surplus ones end as soon as they are idle."""
        with self._lock:
            self._limit = limit
            ring(self._joining)
            self._adjust()

    def join(self) -> None:
        """Wait until all workers have ended, but for this thread and the given-up ones, as long as the limit is 0."""
        met: set[Worker] = set()
        while True:
            bell = threading.Event()
            with self._lock:
                met |= self._workers
                if self._limit or not any(map(self._is_to_end, self._workers)):
                    met -= self._workers
                    break
                self._joining.append(bell)
            bell.wait()
        for worker in met:  # they have left, and are about to end
            worker.join()

    def _is_to_end(self, worker: Worker) -> bool:
        return not worker.given_up and worker is not threading.current_thread()

    def submit(self, task: Task) -> None:
        """Run a task on some worker, after those submitted before it.

        Raises RuntimeError, and forgets the task, when there is no worker and the system gives no thread for one.
        """
        self._tasks.append(task)
        if self._idle or self._working < self._limit:
            with self._lock:
                try:
                    self._adjust()
                except RuntimeError:
                    if task not in self._tasks:  # somebody took it, who was a worker until just now
                        return
                    self._tasks.remove(task)
                    raise

    def has_tasks(self) -> bool:
        """Whether a task waits for a worker."""
        return bool(self._tasks)

    def worker_here(self) -> Worker | None:
        """Return the worker that this thread is, or stands for."""
        return getattr(self._here, "worker", None)

    def stand_for(self, worker: Worker | None) -> None:
        """Let this thread's sleeps count as those of a worker that waits for it."""
        self._here.worker = worker

    @contextmanager
    def sleeping(self) -> Iterator[None]:
        """Let another thread stand in for this one, if it is a worker, while it sleeps inside its task."""
        worker = self.worker_here()
        if worker is None:
            yield
            return
        self._sleep(worker, 1)
        try:
            yield
        finally:
            self._sleep(worker, -1)

    def give_up(self, thread: int) -> None:
        """Replace the worker with this thread identifier: it ends when the handler that it runs returns."""
        with self._lock:
            for worker in self._workers:
                if worker.ident == thread:
                    worker.given_up = True
            self._count()
            ring(self._joining)
            self._adjust()

    def serve(self, worker: Worker) -> None:
        """Run tasks until this worker is surplus. Each worker calls it on its own thread."""
        self._here.worker = worker
        self._arrive()
        while not (self._to_end(worker) and self._try_leave(worker)):
            try:
                task = self._tasks.popleft()
            except IndexError:
                if self._try_idle(worker):
                    worker.bell.acquire()
                    self._arrive()
            else:
                task()
                del task  # which may be all that keeps a job

    def _arrive(self) -> None:
        """Note that a worker that was rung or made looks now. Each worker calls it on its own thread."""
        with self._lock:
            self._coming -= 1

    def _to_end(self, worker: Worker) -> bool:
        return worker.given_up or self._working > self._limit

    def _try_leave(self, worker: Worker) -> bool:
        """Let a worker leave, unless others have, so that it is to stay; return whether it has left."""
        with self._lock:
            if not self._to_end(worker):
                return False
            self._workers.discard(worker)  # it may be unknown, if an interrupt came while it was made
            self._count()
            ring(self._joining)
            with suppress(RuntimeError):  # the system gives no thread, and who submits the next task tries again
                self._adjust()  # it may have been rung for a task
            return True

    def _try_idle(self, worker: Worker) -> bool:
        """Register a worker as idle, unless there is something for it to do; return whether it is to sleep."""
        with self._lock:
            if self._to_end(worker):
                return False
            self._idle.append(worker)
            if self._tasks:
                self._idle.pop()
                return False
            return True

    def _sleep(self, worker: Worker, change: int) -> None:
        with self._lock:
            worker.sleeps += change
            self._count()
            self._adjust()

    def _count(self) -> None:
        self._working = sum(not worker.excused for worker in self._workers)

    def _adjust(self) -> None:
        """Wake or make one worker per waiting task, and wake idle ones that must end. The caller holds the lock."""
        while self._idle and (self._coming < len(self._tasks) or self._coming < self._working - self._limit):
            worker = self._idle[-1]
            self._coming += 1  # at the same moment for an interrupt, which comes at a call
            del self._idle[-1]
            worker.bell.release()
        while self._coming < len(self._tasks) and self._working < self._limit:
            if not self._make_worker():
                return

    def _make_worker(self) -> bool:
        """Make a worker. Return False if the system gives no more threads: then those that there are do the work.

        Raises RuntimeError if there are none.
        """
        self._started += 1
        worker = Worker(self, self._started)
        self._workers.add(worker)
        self._coming += 1
        try:
            worker.start()
        except BaseException as error:
            if not worker.is_alive():  # else an interrupt came when it had begun
                self._workers.remove(worker)
                self._coming -= 1
            if not self._workers or not isinstance(error, RuntimeError):
                raise
            return False
        finally:
            self._count()  # now, so that who submits a task meanwhile does not count on a worker that does not begin
        return True
