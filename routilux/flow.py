"""The object that people hold: a graph, and the verbs that run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from .core.models import BaseModel
from .core.numbers import seconds
from .errors import DeclarationError
from .graph.description import Classes, build
from .graph.schema import StateSchema
from .graph.wiring import Graph
from .runtime.arguments import check_options, new_id, payload_of
from .runtime.dispatcher import leave, rest, run_to_rest, wait_for_rest
from .runtime.engine import Engine, default_engine
from .runtime.holding import refuse_inside, refuse_on_loop
from .runtime.job_state import JobState
from .runtime.jobs import Jobs, call_first
from .runtime.new_job import NewJob
from .runtime.outputs import OutputHandler, OutputQueue, output_handler
from .runtime.reports import Output
from .runtime.resources import Resources
from .runtime.steering import Steerable
from .runtime.streaming import Streamable
from .runtime.threads import SharedThreads, on_event_loop
from .store.serializer import Serializer

DESCRIBED_OPTIONS = ("version", "execution_strategy", "max_workers", "max_pending", "history_limit", "copy_payloads")
DEFAULT_MAX_WORKERS = min(32, (os.cpu_count() or 1) + 4)
DEFAULT_MAX_PENDING = 10_000
DEFAULT_MAX_STATE_BYTES = 2**20


class Flow(Steerable, Streamable, Graph):
    """Routines wired into a graph, which can be executed any number of times, also at the same time.

    Args:
        flow_id: the name of the flow; by default one that no other has.
        version: which version of the flow this is, in any form; kept with its jobs. A job that was saved by another
            version is not loaded, and a durable one not recovered.
        execution_strategy: ``"sequential"`` runs the handlers of a job one at a time, in the thread that calls
            `execute` unless there is a time limit; ``"concurrent"`` runs up to ``max_workers`` of them at a time, on
            that thread and on worker threads.
        max_workers: how many handlers of one job run at a time under ``"concurrent"``, and how many worker threads
            the flow asks its engine for; by default four more than there are CPUs, 32 at most.
        max_pending: how many deliveries a job may have queued before handlers that emit more have to help with, or
            wait for, those that are queued. A soft bound on memory; 10,000 by default.
        history_limit: how many activations a job's history keeps; None keeps all. Counts and timings stay exact.
        copy_payloads: whether containers and models in a payload are copied when it is emitted and when it is
            handled. Without, all who get the payload share them.
        state_schema: a pydantic model of the shared data that handlers see as ``ctx.state``; its fields are validated
            at every write. Give all of them defaults.
        max_state_bytes: how large the shared data may be when a job starts or is saved, as JSON; in a durable job, also
            at every commit. 1 MiB by default.
        engine: whose threads it uses; those that all flows of the process share by default. With an engine that has a
            store, its jobs are durable.

    Raises:
        DeclarationError: for an option that is out of range.
    """

    def __init__(
        self,
        flow_id: str | None = None,
        *,
        version: str | None = None,
        execution_strategy: str = "sequential",
        max_workers: int = DEFAULT_MAX_WORKERS,
        max_pending: int = DEFAULT_MAX_PENDING,
        history_limit: int | None = None,
        copy_payloads: bool = True,
        state_schema: type[BaseModel] | None = None,
        max_state_bytes: int = DEFAULT_MAX_STATE_BYTES,
        engine: Engine | None = None,
    ) -> None:
        super().__init__(new_id() if flow_id is None else flow_id)
        where = f"flow {self.flow_id!r}"
        options = {
            "version": version,
            "execution_strategy": execution_strategy,
            "max_workers": max_workers,
            "max_pending": max_pending,
            "history_limit": history_limit,
            "copy_payloads": copy_payloads,
            "max_state_bytes": max_state_bytes,
        }
        check_options(where, options)
        self.version = version
        self.execution_strategy = execution_strategy
        self.max_workers = max_workers
        self.max_pending = max_pending
        self.history_limit = history_limit
        self.copy_payloads = copy_payloads
        self.max_state_bytes = max_state_bytes
        if state_schema is not None:
            from .runtime.typed_faces import typed_face

            self.schema = StateSchema(state_schema, where)
            self.schema.face = typed_face(self.schema)
        if engine is not None and not isinstance(engine, Engine):
            raise DeclarationError(f"{where}: engine must be an Engine, not {engine!r}")
        self.engine: SharedThreads = engine if engine is not None else default_engine()
        self.output_handlers: list[OutputHandler] = []
        self.resources = Resources(self, self._factories)
        self._jobs = Jobs(self)
        if self.engine.keeping is not None:
            self.engine.register(self)

    # --- running ------------------------------------------------------------------------------------------------

    def execute(
        self,
        entry_id: str,
        entry_params: Mapping[str, Any] | None = None,
        *,
        slot: str | None = None,
        timeout: float | None = None,
        job_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Mapping[str, Any] | BaseModel | None = None,
        job_state: JobState | None = None,
    ) -> JobState:
        """Run a job from a routine until it has ended or is paused, and return its state, failed or not.

        The calling thread runs handlers of the job, unless there is a timeout.

        Args:
            entry_id: the routine to start with.
            entry_params: the payload of its first delivery.
            slot: the slot that gets it; by default ``"trigger"``, else the routine's only slot.
            timeout: seconds after which the job fails with `JobTimeoutError`, handlers that still run being given up.
            job_id: an id for the job, which no running job of this flow has; by default one that no other has, and
                that begins with the time.
            session_id: handed to the handlers' contexts.
            user_id: handed to the handlers' contexts.
            initial_state: values of the shared data to begin with; with a ``state_schema``, of its fields.
            job_state: an earlier job of this flow. One that has ended gives the new job a copy of its shared data and
                routine states, and stays as it is; a paused or waiting one goes on, and is what is returned.

        Raises:
            StatusError: when ``job_state`` runs, or is to go on and an argument for a new job is given as well.
            DeclarationError: for an unknown routine or slot, an entry routine of which it is unclear where to start,
                or an option out of range.
            ExecutionError: when the flow is shut down, or a running job has this id.
            KeyboardInterrupt, SystemExit: when a handler raised it, after the job was recorded as failed.
        """
        limit = seconds(timeout, f"flow {self.flow_id!r}: timeout")
        refuse_on_loop(f"flow {self.flow_id!r}: execute()")
        new = NewJob(entry_id, entry_params, slot, job_id, session_id, user_id, initial_state)
        job = self._jobs.begin(new, job_state)
        run_to_rest(job, limit)
        return JobState(job)

    async def aexecute(
        self,
        entry_id: str,
        entry_params: Mapping[str, Any] | None = None,
        *,
        slot: str | None = None,
        timeout: float | None = None,
        job_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Mapping[str, Any] | BaseModel | None = None,
        job_state: JobState | None = None,
    ) -> JobState:
        """Do as `execute` does, without holding up the event loop: ``job_state = await flow.aexecute("source")``.

        Plain handlers run on worker threads, coroutine handlers on the engine's own event loop. When the task that
        awaits it is cancelled, so is the job.
        """
        limit = seconds(timeout, f"flow {self.flow_id!r}: timeout")
        new = NewJob(entry_id, entry_params, slot, job_id, session_id, user_id, initial_state)
        with on_event_loop():
            job = self._jobs.begin(new, job_state)
        await rest(job, limit)
        return JobState(job)

    def start(
        self,
        entry_id: str,
        entry_params: Mapping[str, Any] | None = None,
        *,
        slot: str | None = None,
        job_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Mapping[str, Any] | BaseModel | None = None,
    ) -> JobState:
        """Start a job on worker threads and return its state at once. See `execute` for the arguments and errors."""
        job = self._jobs.new(NewJob(entry_id, entry_params, slot, job_id, session_id, user_id, initial_state))
        call_first(job)
        return JobState(job)

    def shutdown(self, *, cancel: bool = False) -> None:
        """Wait for the running jobs to end, close the resources, the last one built first, and let go of the threads.

        A job in a store that waits is not waited for: it goes on when an engine recovers it. One in memory is waited
        for as long as it goes on by itself, as when a coroutine waits for a time; when it waits for something from
        outside, it stays as it is, and can be saved. Who waits for such a job gets an ExecutionError. Coroutines that
        wait inside a paused or failed job are cancelled.
        No job can be started afterwards. With ``cancel``, the jobs are cancelled first, those that wait too, so that
        only handlers that run are waited for. A second call does nothing.

        Raises:
            ContextError: inside a handler of one of the jobs.
            ExecutionError: when closing a resource has raised; the others are closed all the same.
        """
        refuse_on_loop(f"flow {self.flow_id!r}: shutdown()")
        for job in self._jobs.running():
            refuse_inside(job, "shutdown()")
        if cancel:  # while jobs that sleep can still be woken for it
            jobs = self._jobs.running()  # first: one that falls asleep meanwhile is woken, or here already
            if self.engine.keeping is not None:
                jobs += self.engine.keeping.wake_all(self)
            for job in jobs:
                job.cancel_unless_ended("the flow was shut down")
        self._jobs.shut_down()
        for job in self._jobs.running():
            if cancel:
                job.cancel_unless_ended("the flow was shut down")
            if job.record.durable:
                leave(job)
            else:
                wait_for_rest(job, None)
                while not self._jobs.let_rest(job):
                    wait_for_rest(job, None)
        for job in self._jobs.left():
            self._jobs.let_rest(job)
        try:
            self.resources.close()
        finally:
            if self.engine.keeping is not None:
                self.engine.keeping.leave(self)
            self.engine.release(self)

    def __enter__(self) -> Flow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(cancel=error is not None)

    def add_output_handler(self, handler: Callable[[Output], Any] | OutputQueue) -> None:
        """Give every `Output` that handlers send to a callable, or put it into a queue, as soon as it is recorded.

        It is called by the thread of the handler that has sent it, and holds that handler up until it returns; for
        coroutine handlers, by a worker thread. What it raises is logged, and harms nobody.

        Raises:
            DeclarationError: when it is no callable and has no ``put``, or when a job of this flow is running.
        """
        made = output_handler(handler, f"flow {self.flow_id!r}")
        self.changing("add an output handler")
        self.output_handlers.append(made)

    # --- as part of something larger ----------------------------------------------------------------------------

    def invocation(self, payload: Any, entry: str | None = None) -> tuple[Flow, str, Mapping[str, Any]]:
        """Return this flow, the routine that a job of it starts with, and the parameters of its first delivery.

        Args:
            payload: the parameters, a mapping with string keys, or None.
            entry: the routine; by default the only one with a slot ``"trigger"``, else the only one there is.

        Raises:
            DeclarationError: when it is unclear where to start.
        """
        where = f"flow {self.flow_id!r}"
        if entry is None:
            found = [name for name, each in self.plan().nodes.items() if "trigger" in each.slots] or list(self.routines)
            if len(found) != 1:
                raise DeclarationError(f"{where}: name the routine to start with: entry=...; there are {found}")
            entry = found[0]
        return self, entry, payload_of(payload, where)

    # --- saved jobs ---------------------------------------------------------------------------------------------

    def load(self, path: str | os.PathLike[str], serializer: Serializer | None = None) -> JobState:
        """Return the job of this flow that `JobState.save` has written to a file. See `JobState.from_dict`.

        Raises:
            LoadError: when the file is no saved job, is damaged, or does not fit the flow.
            OSError: when the file cannot be read, FileNotFoundError when there is none.
        """
        from .store import files

        return self._jobs.restored(files.read(path), f"file {os.fspath(path)!r}", serializer)

    def restore(self, data: Mapping[str, Any], serializer: Serializer | None = None) -> JobState:
        """Return the job of this flow that `JobState.to_dict` has described: what `JobState.from_dict` does."""
        from .runtime.job_documents import as_document

        return self._jobs.restored(as_document(data), "the dict", serializer)

    # --- as data ------------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], registry: Classes, *, exceptions: Classes = ()) -> Flow:
        """Return the flow that `to_dict` has described.

        Args:
            data: the description.
            registry: the routine classes that it may use: a list, or a mapping from the names of classes. Each routine
                is made by calling its class without arguments, then configured.
            exceptions: exception classes that its error handlers retry, beside the builtin ones: a list, or a mapping
                from their names.

        Raises:
            DeclarationError: when the data is malformed, or does not fit the classes; it says what and where.
        """
        return build(cls, DESCRIBED_OPTIONS, data, registry, exceptions)

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in DESCRIBED_OPTIONS}

    # --- how ----------------------------------------------------------------------------------------------------

    def changing(self, what: str) -> None:
        """Refuse a change of the declaration while a job runs."""
        running = self._jobs.running()
        if running:
            jobs = f"{len(running)} jobs run" if len(running) > 1 else f"job {running[0].record.job_id!r} runs"
            raise DeclarationError(
                f"flow {self.flow_id!r}: cannot {what} while {jobs}; declare everything before the first job starts, "
                f"or wait for the jobs to end"
            )
        super().changing(what)
