"""That an engine owns durable jobs: its name, and its lease.

The engine is an owner in the sense of `store.base`: its name tells which process it belongs to, so that another process
on the same machine can see that it is dead. A thread renews its lease for as long as the engine is open.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from ..errors import ExecutionError, StoreError
from ..store.base import Claimed, FactStore, JobHead
from .processes import is_dead, owner_name

UNFINISHED = ("pending", "running", "waiting", "paused")
RESUMABLE = (*UNFINISHED, "failed")


class Owning:
    """The ownership of one engine. For the arguments see `Keeping`."""

    def __init__(self, engine: Any, store: FactStore, lease: float) -> None:
        self.engine = engine
        self.store = store
        self.lease = lease
        self.owner = owner_name()
        self.flows: dict[str, Any] = {}
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._renewing: threading.Thread | None = None

    def now(self) -> float:
        """Return seconds since 1970."""
        return self.engine.clock.time_ns() / 1e9  # type: ignore[no-any-return]

    def claim(self, jobs: list[str]) -> list[Claimed]:
        """Renew the lease, and own those of these jobs that nobody owns who lives."""
        self.renew_from_now_on()
        now = self.now()
        dead = set()
        if jobs:
            wanted = set(jobs)
            owners = {head.owner for head in self.store.heads(statuses=RESUMABLE) if head.job_id in wanted}
            dead = {owner for owner in owners if owner is not None and is_dead(owner)}
        return self.store.claim(self.owner, now + self.lease, now, jobs, sorted(dead))

    def renew_from_now_on(self) -> None:
        """Have a thread renew the lease."""
        with self._lock:
            if self._renewing is None:
                thread = threading.Thread(target=self._renew, name="routilux-lease", daemon=True)
                self._renewing = thread
                thread.start()

    def _renew(self) -> None:
        while not self.engine.closing.wait(self.lease / 3):
            now = self.now()
            try:
                self.store.claim(self.owner, now + self.lease, now)
            except StoreError:  # commits will tell
                pass

    def check_process(self) -> None:
        """Raise ExecutionError in a child process made by fork, which has the engine's memory and not its threads."""
        if os.getpid() != self.process:
            raise ExecutionError(
                "this engine belongs to the process that made it, and this is a child made by fork(): make a new "
                "Engine, with a store opened anew, in the child"
            )

    def head_of(self, job_id: str) -> JobHead:
        """Return what the store knows of a job at a glance. Raises ExecutionError when it is not there."""
        for head in self.store.heads(job_id=job_id):
            return head
        raise ExecutionError(f"the store has no job {job_id!r}")

    def is_final(self, job_id: str) -> bool:
        """Whether a job has ended and cannot be resumed, or is gone."""
        heads = self.store.heads(job_id=job_id)
        return not heads or heads[0].status in ("completed", "cancelled")
