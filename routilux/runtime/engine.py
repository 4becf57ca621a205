"""The engine: what the flows of a process share, and, with a store, where their jobs survive it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from ..core.models import BaseModel
from ..core.numbers import real, whole
from ..core.status import JobStatus
from ..errors import DeclarationError, ExecutionError, known_names
from ..store.base import FactStore, JobHead, fits
from .clock import Clock
from .invoking import Invocable
from .job_state import JobState
from .new_job import NewJob
from .threads import SharedThreads

DURABILITIES = ("sync", "async")
STATUSES = [status.value for status in JobStatus]
MOST_WORKERS = 10_000


class Engine(SharedThreads):
    """Threads and time for any number of flows, and a store for their jobs.

    Flows use the engine of the process unless they are given one: ``Flow(engine=Engine())``. It has as many worker
    threads as the largest ``max_workers`` among the flows that use them, and one more with an event loop for all
    coroutine handlers. Threads are made on demand, and end when the last of those flows is shut down or garbage
    collected.

    With a ``store``, the jobs of its flows are durable: everything that happens to them is in the store before anybody
    sees it, and another engine with the same store can go on with them when this process has died.

    Args:
        clock: where time comes from; the computer's clock by default.
        store: where jobs are kept, as `open_store` returns it; without one they live in memory.
        max_workers: the most worker threads that it has, whatever its flows ask for.
        durability: ``"sync"``: a handler's work is on the disk before what follows from it starts. ``"async"``: it is
            written soon after, by a thread of its own; a crash loses at most the last ``max_lag_records`` commits,
            and at most what was committed in the last ``max_lag_seconds``.
        max_lag_records: how many commits may wait to be written under ``"async"``, before more of them wait.
        max_lag_seconds: how long a commit may wait to be written under ``"async"``.
        lease: for how many seconds jobs belong to this engine after it was last heard of, when its process cannot be
            seen to be dead.
        store_patience: for how many seconds a store that is full or locked is asked again, before what needs it fails.
        detect_poison: whether a job that takes its process with it, twice in a row, is run alone the next time, and
            fails with `PoisonError` when it does so again.

    Raises:
        DeclarationError: for an option that is out of range, or something that is no store.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        store: FactStore | None = None,
        max_workers: int | None = None,
        durability: str = "sync",
        max_lag_records: int = 1000,
        max_lag_seconds: float = 0.05,
        lease: float = 30.0,
        store_patience: float = 10.0,
        detect_poison: bool = True,
    ) -> None:
        super().__init__(clock)
        if store is not None and not fits(store, FactStore):
            raise DeclarationError(f"Engine: store must be what open_store() returns, or like it, not {store!r}")
        if durability not in DURABILITIES:
            hint = known_names(durability, DURABILITIES, "durabilities")
            raise DeclarationError(f"Engine: unknown durability {durability!r}{hint}")
        if max_workers is not None:
            self.most_workers = whole(max_workers, "Engine: max_workers", 1, MOST_WORKERS)
        whole(max_lag_records, "Engine: max_lag_records", 1)
        real(max_lag_seconds, "Engine: max_lag_seconds", 0.0)
        real(lease, "Engine: lease", 0.0, above=True)
        real(store_patience, "Engine: store_patience", 0.0)
        self.store = store
        if store is not None:
            # Most programs have no store, and need none of this.
            from .keeping import Keeping, WriteBehind

            if durability == "async":
                store = WriteBehind(store, max_lag_records, max_lag_seconds, store_patience)
            self.keeping = Keeping(self, store, lease, store_patience, detect_poison=detect_poison)
        self._serving: Any = None
        self._leaving = self._closed = False

    # --- flows --------------------------------------------------------------------------------------------------------

    def register(self, *flows: Any) -> None:
        """Make flows, or workflows, known, so that jobs of theirs in the store can go on here.

        A flow that is made with this engine is known already. A workflow that was made without one uses this engine
        from now on.

        Raises:
            DeclarationError: when another flow with this id is known.
            ExecutionError: when the engine has no store.
        """
        keeping = self._kept("register()")
        for each in flows:
            flow = each.flow_in(self) if hasattr(each, "flow_in") else each
            known = keeping.flows.setdefault(flow.flow_id, flow)
            if known is not flow:
                raise DeclarationError(f"Engine: another flow {flow.flow_id!r} is registered already")

    def flow_of(self, flow_id: str, what: str = "") -> Any:
        """Return a flow that was registered; ``what`` is the beginning of the message when there is none with this id.

        Raises ExecutionError when there is none.
        """
        flows = self._kept("its flows").flows
        if flow_id not in flows:
            hint = known_names(flow_id, flows, "registered flows")
            raise ExecutionError(
                f"{what}no flow {flow_id!r} is registered with this engine; make it with this engine, or pass it to "
                f"engine.register() first{hint}"
            )
        return flows[flow_id]

    # --- jobs in the store --------------------------------------------------------------------------------------------

    def submit(
        self,
        flow: Invocable | str,
        payload: Any = None,
        *,
        entry: str | None = None,
        slot: str | None = None,
        job_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Mapping[str, Any] | BaseModel | None = None,
    ) -> JobState:
        """Put a job into the store, for an engine that serves it, here or in another process; return its state at once.

        Args:
            flow: a flow, a workflow, or the id of a registered flow.
            payload: the parameters of the first delivery, or the payload of a workflow.
            entry: the routine to start with, when that is not clear.
            slot: the slot that gets the first delivery.
            job_id: an id for the job; when there is a job with this id, its state is returned.
            session_id: handed to the handlers' contexts.
            user_id: handed to the handlers' contexts.
            initial_state: values of the shared data to begin with.

        Raises:
            ExecutionError: when the engine has no store or is closed, there is no such flow, or the job with this id
                began with something else.
            StoreError: when the store cannot take it.
        """
        self._kept("submit()")
        target: Any = self.flow_of(flow) if isinstance(flow, str) else flow
        found, entry_id, params = target.invocation(payload, entry)
        new = NewJob(entry_id, params, slot, job_id, session_id, user_id, initial_state)
        return JobState(found._jobs.new(new, engine=self, owned=False))

    def recover(self, *, allow_changes: bool = False) -> list[JobState]:
        """Go on with the jobs of registered flows that nobody runs, on worker threads; return their states.

        Those are jobs whose process has died, and jobs that were submitted. A job that took its last two processes
        with it runs when nothing else does; see ``detect_poison``. Until then any engine may take it, and its state is
        like that of a job which runs elsewhere.

        Args:
            allow_changes: go on also with jobs that were made by a flow that has changed since.

        Raises:
            RecoveryError: when flows have changed; nothing has been started then.
            LoadError: when a flow lacks what a job needs, or a journal is damaged; nothing has been started then.
            StoreError: when the store cannot be read.
        """
        keeping = self._kept("recover()")
        return [JobState(job) for job in keeping.recover(allow_changes=allow_changes)]

    def serve(self, stop: threading.Event | None = None) -> None:
        """Take what was submitted, what others have left, and messages to the jobs, until the engine is closed.

        Jobs run on worker threads. The store is looked at every 50 milliseconds.

        Args:
            stop: ends it, too, when it is set.
        """
        self._kept("serve()")
        with self._lock:
            if self._serving is None:
                from .serving import Serving

                self._serving = Serving(self)
        self._serving.run(stop)

    def publish(self, topic: str, payload: Any = None, job_id: str | None = None) -> int:
        """Publish an event, for which handlers wait with ``ctx.step.wait_for_event``.

        Args:
            topic: what the event is about.
            payload: what the handlers are given; it must be JSON, or of a class that the flow knows.
            job_id: the job that it is for, which keeps it when none of its handlers waits for it yet, also while it is
                failed and may be resumed; without one, it is for all that wait for it now.

        Returns:
            How many jobs it was given, or sent, to.

        Raises:
            ExecutionError: when the engine has no store, or there is no such job.
            SaveError: when the payload cannot be kept.
            StoreError: when the store cannot take it.
        """
        if not isinstance(topic, str) or not topic:
            raise ExecutionError(f"publish: a topic is a non-empty string, not {topic!r}")
        return self._kept("publish()").publish(topic, payload, job_id)  # type: ignore[no-any-return]

    def get(self, job_id: str) -> JobState:
        """Return the state of a job in the store.

        That of a job that runs in another process is as it was when it was read, and can be waited for.

        Raises:
            ExecutionError: when there is no such job, or its flow is not registered.
        """
        return JobState(self._kept("get()").get(job_id))

    def jobs(self, status: str | Iterable[str] | None = None, flow_id: str | None = None) -> list[JobHead]:
        """Return what the store knows of its jobs at a glance, oldest first.

        Args:
            status: only those with this status, or one of these.
            flow_id: only those of this flow.
        """
        keeping = self._kept("jobs()")
        statuses = None if status is None else [status] if isinstance(status, str) else list(status)
        for each in statuses or ():
            if each not in list(JobStatus):
                raise ExecutionError(f"jobs: unknown status {each!r}{known_names(each, STATUSES, 'statuses')}")
        return keeping.store.heads(flow_id=flow_id, statuses=statuses)  # type: ignore[no-any-return]

    def prune(self, *, older_than: timedelta | float = 0.0, keep: int | None = None) -> int:
        """Remove jobs that have ended from the store, and return how many.

        Args:
            older_than: those that ended longer ago than this (a timedelta, or seconds); with ``keep`` alone, none.
            keep: of the others, those that are not among the last so many.

        Raises:
            DeclarationError: for a number that is out of range.
            StoreError: when the store cannot do it.
        """
        keeping = self._kept("prune()")
        age = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        real(age, "prune: older_than", 0.0)
        if keep is not None:
            whole(keep, "prune: keep", 0)
        before = keeping.now() - age if age or keep is None else 0.0
        return keeping.store.prune(("completed", "failed", "cancelled"), before, keep)  # type: ignore[no-any-return]

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, *, timeout: float | None = None) -> None:
        """Stop running jobs here, when their handlers have returned, and close the store.

        Jobs that have not ended go on when an engine with the same store recovers them. A second call does nothing.

        Args:
            timeout: how many seconds to wait for handlers at the most; what they do afterwards is refused.

        Raises:
            ContextError: inside a handler of one of the jobs.
        """
        if self.keeping is not None and not self._leaving:
            self.keeping.check_process()
            self.keeping.refuse_inside("Engine: close()")
        with self._lock:
            if self._leaving:
                return
            self._leaving = True
        if self.keeping is not None:
            self.keeping.close(timeout)
        self._closed = True  # not before: handlers that are waited for may need the engine
        self.closing.set()
        if self._serving is not None:
            self._serving.join()
        if self.keeping is not None:
            self.keeping.store.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    # --- how ----------------------------------------------------------------------------------------------------------

    def job_here(self, job_id: str) -> Any:
        """Return a job that runs in this process, if it is known; of jobs without a store, it is not."""
        return None if self.keeping is None else self.keeping.seen_here(job_id)

    def _kept(self, what: str) -> Any:
        if self.keeping is None:
            raise ExecutionError(f"Engine: {what} needs a store: Engine(store=open_store('sqlite:///jobs.db'))")
        if self._closed:
            raise ExecutionError(f"Engine: {what}: the engine is closed")
        self.keeping.check_process()
        return self.keeping


_default: Engine | None = None
_default_lock = threading.Lock()


def default_engine() -> Engine:
    """Return the engine of this process, which is made when it is first asked for."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Engine()
        return _default
