"""Jobs that are started, and waited for, by a handler of another job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ..core.models import BaseModel
from ..core.records import ErrorRecord
from ..errors import ExecutionError, StepError
from ..store.unpacking import as_mapping


class Invocable(Protocol):
    """What can be submitted or invoked as a job: a `Flow`, or a `Workflow`."""

    def invocation(self, payload: Any, entry: str | None) -> tuple[Any, str, Mapping[str, Any]]:
        """Return the flow, the entry routine, and the parameters that a payload becomes."""


class Invocation(NamedTuple):
    """A job to be started."""

    flow: Any
    entry: str
    params: Mapping[str, Any]
    initial_state: Mapping[str, Any] | BaseModel | None

    def begin(self, parent: Any, job_id: str) -> None:
        """Start the job, unless it was started before. Raises what refuses it."""
        parent.begin_child(self, job_id)


def invocation_of(target: Any, payload: Any, initial_state: Any, entry: str | None) -> Invocation:
    """Return what is to be started. Raises StepError for what is no flow and no workflow."""
    if isinstance(target, type) or not hasattr(target, "invocation"):
        raise StepError(f"only a Flow or a workflow can be invoked, not {target!r}")
    flow, entry_id, params = target.invocation(payload, entry)
    return Invocation(flow, entry_id, params, initial_state)


class ChildHandle:
    """A job that a handler has started and does not wait for.

    Attributes:
        job_id: its id.
        flow_id: the flow that it executes.
    """

    __slots__ = ("_engine", "flow_id", "job_id")

    def __init__(self, job_id: str, flow_id: str, engine: Any) -> None:
        self.job_id = job_id
        self.flow_id = flow_id
        self._engine = engine

    def job_state(self) -> Any:
        """Return its `JobState`. Raises ExecutionError when the job is not there any more."""
        return self._engine.get(self.job_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChildHandle) and other.job_id == self.job_id

    def __hash__(self) -> int:
        return hash(self.job_id)

    def __repr__(self) -> str:
        return f"<ChildHandle of job {self.job_id!r} of flow {self.flow_id!r}>"


def answer_of(job: Any) -> dict[str, Any]:
    """Return how a job has ended, as it is kept for the one that waits for it."""
    record = job.record
    error = record.failure
    kept = None if error is None else [error.type, error.message, error.traceback]
    return {
        "status": str(record.status),
        "reason": record.reason,
        "error": kept,
        "result": job.encode(record.result, "the result"),
    }


def result_of(invocation: Invocation, job_id: str, answer: Mapping[str, Any], *, durable: bool) -> Any:
    """Return the result of a job that has completed; ``durable``: it is kept as JSON.

    Raises ExecutionError, with its error as cause, for a job that has not.
    """
    if answer["status"] == "completed":
        result = answer["result"]
        if durable:
            from ..store.reading import Reader

            flow = invocation.flow
            values = Reader(f"flow {flow.flow_id!r}", flow.known_types, None)
            result = values.value(result, f"the result of job {job_id!r}")
        return as_mapping(result)
    if answer["status"] == "cancelled":
        because = f": {answer['reason']}" if answer["reason"] else ""
        raise ExecutionError(f"was cancelled{because}")
    kind, message, trace = answer["error"] or ("Error", "", "")
    raise ExecutionError(f"failed: {kind}: {message}") from Recorded(ErrorRecord(kind, message, trace))


class Recorded(Exception):
    """Stands for an exception of which only the record is left."""

    def __init__(self, error: ErrorRecord) -> None:
        super().__init__(str(error))
        self.error = error
