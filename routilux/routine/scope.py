"""How a routine finds the turn that it is taking.

The runtime puts the turn that a thread takes into `current`; a routine's own operations (``emit`` and the like) go
to it. These protocols say what this floor needs of the floors above.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol


class ExecutionContext(Protocol):
    """What a handler can ask about, and do to, the job that it runs in."""

    @property
    def flow(self) -> Any:
        """The flow that is executed."""

    @property
    def job_state(self) -> Any:
        """The `JobState` of the job."""

    @property
    def job_id(self) -> str:
        """The id of the job."""

    @property
    def flow_id(self) -> str:
        """The id of the flow."""

    @property
    def parent_job_id(self) -> str | None:
        """The id of the job one of whose handlers has started this one."""

    @property
    def state(self) -> Any:
        """The working copy of the job's state."""

    @property
    def store(self) -> Any:
        """The `Store` of the job: its state by dotted paths, and atomic edits."""

    @property
    def routine_id(self) -> str:
        """The id of this routine in the flow."""

    @property
    def slot_name(self) -> str:
        """The slot whose delivery is handled."""

    @property
    def attempt(self) -> int:
        """Which attempt of this activation it is, from 1."""

    @property
    def cancelled(self) -> bool:
        """Whether the job has ended without waiting for this handler, which may as well return."""

    @property
    def session_id(self) -> str | None:
        """The session that the job was started for."""

    @property
    def user_id(self) -> str | None:
        """The user that the job was started for."""

    def emit(self, event_name: str, /, **params: Any) -> None:
        """Emit an event of this routine, as `Routine.emit` does."""

    def resource(self, name: str) -> Any:
        """Return a resource that was added to the flow; in coroutine handlers, to be awaited."""

    def finish(self, result: Any = None) -> None:
        """End the job as completed, with this result, when this handler has returned."""


class Scope(Protocol):
    """A turn, as far as a routine knows it."""

    routine: Any
    job: Any
    outer: Scope | None

    def here(self) -> bool:
        """Whether this is the thread, or the task, that the handler runs in."""

    def emit(self, event_name: str, params: dict[str, Any]) -> None:
        """Emit an event of the routine."""

    def emit_deferred(self, event_name: str, params: dict[str, Any]) -> None:
        """Emit an event of the routine when the job is resumed."""

    def send_output(self, output_type: str, data: dict[str, Any]) -> None:
        """Append to the job's outputs."""

    def context(self) -> ExecutionContext:
        """Return the context of the handler that runs."""

    def acting(self, what: str) -> object:
        """Raise ContextError unless this is the handler's own thread, while the handler runs."""

    def log(self, entry: dict[str, Any]) -> None:
        """Append to the shared log."""

    def own_log(self) -> list[Any]:
        """Return what the turn has logged and not yet committed."""

    def commit_draft(self) -> None:
        """Write what the handler has changed in its working copy of the state."""

    def read(self, key: str, default: Any) -> Any:
        """Return a value of the shared data, as this handler sees them, or ``default``."""

    def routine_state(self, routine_id: str) -> dict[str, Any] | None:
        """Return the values of a routine's state, as this handler sees it; None when it has none."""

    def write(self, area: str | None, values: dict[str, Any]) -> None:
        """Set keys of a routine's state, or of the shared data for None."""


current: ContextVar[Scope | None] = ContextVar("routilux_turn", default=None)
