"""The handle that people hold on a job: they read its record, wait for it, and write to it from inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ..core.copying import copy_payload, copy_value
from ..core.numbers import seconds
from ..core.records import ErrorRecord, Logged, Wrote
from ..core.status import JobStatus
from ..errors import ContextError, ExecutionError
from ..routine.scope import Scope, current
from . import reports
from .clock import utc
from .job import Job
from .reporting import Reporting
from .reports import OpenInput, Output
from .saving import Savable

_MISSING: Any = object()


class JobState(Savable, Reporting):
    """One job of a flow: its status, states, data, log, outputs, history and errors.

    Reading is possible from any thread, at any time, and gives copies of one moment. Writing is possible inside a
    handler of the job, where it is part of the handler's turn, and from anywhere while the job is not running.
    """

    # The job does not know its states: a cycle would leave every job to the garbage collector.
    __slots__ = ("_job", "_record")

    def __init__(self, job: Job) -> None:
        self._job = job
        self._record = job.record

    # --- what it is -------------------------------------------------------------------------------------------

    @property
    def job_id(self) -> str:
        """The id of the job."""
        return self._record.job_id

    @property
    def flow_id(self) -> str:
        """The id of its flow."""
        return self._record.plan.flow_id

    @property
    def session_id(self) -> str | None:
        """The session that it was started for."""
        return self._record.session_id

    @property
    def user_id(self) -> str | None:
        """The user that it was started for."""
        return self._record.user_id

    @property
    def parent_job_id(self) -> str | None:
        """The job one of whose handlers has started this one."""
        return self._record.parent_job_id

    @property
    def status(self) -> JobStatus:
        """Where it is in its life; compares with and prints as a plain string such as ``"completed"``."""
        return self._record.status

    @property
    def created_at(self) -> datetime:
        """When it was made, in UTC."""
        return utc(self._record.created + self._record.epoch)

    @property
    def started_at(self) -> datetime | None:
        """When it began to run, in UTC."""
        return None if self._record.started is None else utc(self._record.started + self._record.epoch)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended, in UTC."""
        return None if self._record.finished is None else utc(self._record.finished + self._record.epoch)

    @property
    def result(self) -> Any:
        """A copy of what ``ctx.finish(result)`` was given; None without one."""
        return copy_value(self._record.result)

    @property
    def error(self) -> ErrorRecord | None:
        """The first of `JobState.errors`, which the job may have survived; `JobState.failure` is what has failed it."""
        with self._job.lock:
            return self._record.errors[0] if self._record.errors else None

    @property
    def failure(self) -> ErrorRecord | None:
        """The one of `JobState.errors` that has failed the job; None unless it is failed."""
        with self._job.lock:
            return self._record.failure

    @property
    def errors(self) -> list[ErrorRecord]:
        """All errors of activations that were not retried to success, those that the job survived too."""
        with self._job.lock:
            return self._record.errors[:]

    @property
    def outputs(self) -> list[Output]:
        """What its handlers sent with ``send_output``, in order."""
        with self._job.lock:
            sent = self._record.outputs[:]
        return [reports.output(each, self.job_id, self._record.epoch) for each in sent]

    @property
    def pending_count(self) -> int:
        """How many deliveries have no end yet (queued, gathered, being handled, or waiting for a retry)."""
        with self._job.lock:
            return self._record.outstanding

    @property
    def open_inputs(self) -> list[OpenInput]:
        """The external slots that the job waits for, or will when it has nothing else to do."""
        with self._job.lock:
            return reports.open_inputs(self._record)

    # --- routine states, shared data, shared log --------------------------------------------------------------

    def get_routine_state(self, routine_id: str) -> dict[str, Any] | None:
        """Return a copy of the state of a routine, or None when it has none.

        Raises:
            ExecutionError: when the flow has no such routine.
        """
        self._check_routine(routine_id)
        scope = self._scope()
        if scope is not None:
            values = scope.routine_state(routine_id)
        else:
            with self._job.lock:
                state = self._record.routine_states.get(routine_id)
                values = None if state is None else dict(state)
        # Values in the record are replaced, never changed: they can be copied while others go on.
        return None if values is None else copy_payload(values)

    def update_routine_state(self, routine_id: str, state: Mapping[str, Any]) -> None:
        """Set the given keys of a routine's state; its other keys stay as they are.

        Raises:
            ExecutionError: when the flow has no such routine, or ``state`` is no mapping with string keys.
            ConflictError: when this activation had read a key that another one has changed since.
            ContextError: while the job runs, anywhere but in one of its handlers.
        """
        self._check_routine(routine_id)
        self._write(routine_id, _string_keys(state, f"the state of routine {routine_id!r}"))

    def get_shared_data(self, key: str, default: Any = None) -> Any:
        """Return a copy of a value of the shared data, or ``default``."""
        _check_key(key)
        scope = self._scope()
        if scope is not None:
            value = scope.read(key, _MISSING)
        else:
            with self._job.lock:
                value = self._record.shared.get(key, _MISSING)
        return default if value is _MISSING else copy_value(value)

    def update_shared_data(self, key: str, value: Any) -> None:
        """Set a key of the shared data.

        Raises:
            ConflictError: when this activation had read the key and another one has changed it since.
            ContextError: while the job runs, anywhere but in one of its handlers.
            ExecutionError: when the key is no string.
            StateError: when the key is a field of the flow's ``state_schema``, which refuses the value; and inside
                ``edit_state()``.
        """
        _check_key(key)
        self._write(None, _string_keys({key: value}, "the shared data"))

    def append_to_shared_log(self, entry: Mapping[str, Any]) -> None:
        """Append an entry, which gets a ``timestamp`` (ISO 8601, UTC) after its own keys unless it has one.

        Raises:
            ContextError: while the job runs, anywhere but in one of its handlers.
            ExecutionError: when the entry is no mapping with string keys.
        """
        entry = _string_keys(entry, "a log entry")
        scope = self._writing_scope("append_to_shared_log()")
        if scope is not None:
            scope.log(entry)
            return
        with self._job.lock:
            self._check_not_running()
            fact = Logged(entry, self._job.now())
        self._job.write_outside(fact)
        with self._job.lock:
            if self._job.listening.everything:
                self._job.note(fact)
        if self._job.listening.everything:
            self._job.tell()

    def get_shared_log(self, filter_func: Callable[[dict[str, Any]], bool] | None = None) -> list[dict[str, Any]]:
        """Return copies of the log entries, in order; only those for which ``filter_func(entry)`` is true."""
        if filter_func is not None and not callable(filter_func):
            raise ExecutionError(f"get_shared_log: filter_func must be callable, not {filter_func!r}")
        scope = self._scope()
        with self._job.lock:
            kept = self._record.log[:]
        if scope is not None:
            kept += scope.own_log()
        entries = [reports.log_entry(each, self._record.epoch) for each in kept]
        return entries if filter_func is None else [entry for entry in entries if filter_func(entry)]

    # --- waiting ----------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended, and return True; False when ``timeout`` seconds pass before.

        Without a timeout, the calling thread runs handlers of the job meanwhile. With a timeout of 0, it just looks.

        Raises:
            ContextError: inside a handler of this job.
        """
        return self._job.wait(seconds(timeout, "wait: timeout", above=False))

    def raise_for_status(self) -> None:
        """Raise what failed the job: the handler's own exception; ExecutionError when the job was cancelled.

        When the job was loaded, there is no exception any more, and it is an ExecutionError that tells what it was.
        Nothing happens when the job has completed or goes on.
        """
        if self._record.status is JobStatus.CANCELLED:
            because = f": {self._record.reason}" if self._record.reason else ""
            raise ExecutionError(f"flow {self.flow_id!r}: job {self.job_id!r} was cancelled{because}")
        if self._record.status is JobStatus.FAILED:
            raise self._job.failure or reports.recorded_failure(self._record)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobState) and other._job is self._job

    def __hash__(self) -> int:
        return hash(self._job)

    def __repr__(self) -> str:
        return f"<JobState {self.job_id!r} of flow {self.flow_id!r}: {self.status}>"

    # --- how ----------------------------------------------------------------------------------------------------

    def _scope(self) -> Scope | None:
        """Return the turn of this job that this thread takes, if it takes one."""
        scope = current.get()
        return scope if scope is not None and scope.job is self._job and scope.here() else None

    def _writing_scope(self, what: str) -> Scope | None:
        """Return the turn that a write is part of; refuse one of another thread's turn, or of a turn given up."""
        scope = current.get()
        if scope is None or scope.job is not self._job:
            return None
        scope.acting(what)
        return scope

    def _write(self, area: str | None, values: dict[str, Any]) -> None:
        scope = self._writing_scope("a write")
        if scope is not None:
            scope.write(area, values)
            return
        with self._job.lock:
            self._check_not_running()
            schema = self._record.plan.state_schema
            if area is None and schema is not None:
                where = f"flow {self.flow_id!r}: job {self.job_id!r}"
                values = schema.changed(self._record.shared, values, (), {}, where)
        self._job.write_outside(Wrote(area, values))
        with self._job.lock:
            if self._job.listening.everything:
                self._job.note(Wrote(area, values))
        if self._job.listening.everything:
            self._job.tell()

    def _check_not_running(self) -> None:
        if not self._record.at_rest:
            raise ContextError(
                f"flow {self.flow_id!r}: job {self.job_id!r} is {self.status}; while it runs, it is written to "
                f"only by its own handlers, in their own threads"
            )


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise ExecutionError(f"the shared data have string keys, not {key!r}")


def _string_keys(values: object, what: str) -> dict[str, Any]:
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise ExecutionError(f"{what} must be a mapping with string keys, not {values!r}")
    return copy_payload(values)
