"""A store that writes soon: what ``durability="async"`` puts between the jobs and their store.

What is appended waits in a queue, in order, and a thread writes it. Nobody else writes to the jobs of this engine, so
that what waits would be accepted by the store but for its owner having changed, which is noticed when it is written.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..errors import StoreError
from ..store.base import Claimed, FactStore, JobHead
from .patience import patiently


class _Append(NamedTuple):
    job_id: str
    after: int
    entries: tuple[bytes, ...]
    epoch: int
    head: JobHead | None


class WriteBehind:
    """Appends to a store later, in order.

    Args:
        store: the store.
        most: how many appends may wait.
        lag: how many seconds one may wait.
        patience: for how many seconds the store is asked again when it cannot do what it is asked for.
    """

    def __init__(self, store: FactStore, most: int, lag: float, patience: float = 0.0) -> None:
        self.store = store
        self._most = most
        self._lag = lag
        self._patience = patience
        self._appended = self._written = 0  # how many appends there have been, and how many were written
        self._waiting: deque[_Append] = deque()
        self._changed = threading.Condition()
        self._writing = 0
        self._urgent = 0
        self._closing = False
        self._errors: dict[str, StoreError] = {}
        self._thread: threading.Thread | None = None

    def append(
        self, job_id: str, after: int, entries: Sequence[bytes], epoch: int, head: JobHead | None = None
    ) -> None:
        """Append soon; a new job at once. Raises what made an earlier append to this job fail."""
        with self._changed:
            if self._closing:
                raise StoreError(f"{type(self.store).__name__} is closed")
            if job_id in self._errors:
                raise self._errors[job_id]
        if after == 0:
            self._drain()  # whoever begins it has committed that, and a crash is not to leave the one without the other
            self._append(_Append(job_id, after, tuple(entries), epoch, head))
            return
        with self._changed:
            while len(self._waiting) + self._writing >= self._most and not self._closing:
                self._changed.wait()
            self._appended += 1
            self._waiting.append(_Append(job_id, after, tuple(entries), epoch, head))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="routilux-writer", daemon=True)
                self._thread.start()
            elif len(self._waiting) == 1 or len(self._waiting) >= self._most // 2:
                self._changed.notify_all()

    def flush(self, job_id: str | None = None) -> None:
        """Wait until what was appended so far is written. Raises what made that fail, for one job or for any."""
        with self._changed:
            self._urgent += 1
            self._changed.notify_all()
            last = self._appended
            try:
                while self._written < last:
                    self._changed.wait()
            finally:
                self._urgent -= 1
            for job, error in self._errors.items():
                if job_id in (None, job):
                    raise error

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                if not (self._urgent or self._closing) and len(self._waiting) < self._most // 2:
                    self._changed.wait(self._lag / 2)
                batch = list(self._waiting)
                self._waiting.clear()
                self._writing = len(batch)
            for each in _joined(batch):
                try:
                    if each.job_id not in self._errors:
                        self._append(each)
                except StoreError as error:
                    self._errors[each.job_id] = error
            with self._changed:
                self._written += self._writing
                self._writing = 0
                self._changed.notify_all()

    def _append(self, what: _Append) -> None:
        """Append to the store; while it cannot do that, ask it again."""

        def stopped(pause: float) -> bool:
            if self._closing:
                return True
            time.sleep(pause)
            return False

        patiently(lambda: self.store.append(*what), self._patience, stopped)

    # --- the rest, after what waits ----------------------------------------------------------------------------------

    def read(self, job_id: str) -> tuple[int, bytes | None, list[bytes]]:
        """See `FactStore.read`."""
        self.flush(job_id)
        return self.store.read(job_id)

    def put_snapshot(self, job_id: str, number: int, snapshot: bytes, epoch: int) -> None:
        """See `FactStore.put_snapshot`."""
        self.flush(job_id)
        self.store.put_snapshot(job_id, number, snapshot, epoch)

    def heads(
        self, *, job_id: str | None = None, flow_id: str | None = None, statuses: Iterable[str] | None = None
    ) -> list[JobHead]:
        """See `FactStore.heads`."""
        self._drain()
        return self.store.heads(job_id=job_id, flow_id=flow_id, statuses=statuses)

    def claim(
        self, owner: str, until: float, now: float, jobs: Sequence[str] = (), dead: Sequence[str] = ()
    ) -> list[Claimed]:
        """See `FactStore.claim`."""
        claimed = self.store.claim(owner, until, now, jobs, dead)
        with self._changed:
            for each in claimed:
                self._errors.pop(each.head.job_id, None)
        return claimed

    def let_go(self, owner: str, jobs: Sequence[str] | None = None) -> None:
        """See `FactStore.let_go`."""
        self._drain()
        self.store.let_go(owner, jobs)

    def prune(self, statuses: Iterable[str], before: float, keep: int | None = None) -> int:
        """See `FactStore.prune`."""
        self._drain()
        return self.store.prune(statuses, before, keep)

    def close(self) -> None:
        """Write what waits, and close the store."""
        self._drain()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self.store.close()

    def _drain(self) -> None:
        try:
            self.flush()
        except StoreError:  # whoever appended hears of it
            pass


def _joined(appends: Iterable[_Append]) -> list[_Append]:
    """Return appends with those that follow one another in one journal made one."""
    joined: list[_Append] = []
    for each in appends:
        last = joined[-1] if joined else None
        if last is not None and (last.job_id, last.epoch) == (each.job_id, each.epoch):
            joined[-1] = last._replace(entries=last.entries + each.entries, head=each.head or last.head)
        else:
            joined.append(each)
    return joined
