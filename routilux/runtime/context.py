"""What a handler knows of, and may do to, the job that it runs in."""

from __future__ import annotations

from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from ..core.job_record import Activation
from ..errors import ContextError
from ..routine.scope import ExecutionContext
from .async_store import AsyncStore
from .drafts import EditDraft
from .job_state import JobState
from .step_faces import AsyncSteps, Steps
from .store import Acting as StoreActing, Store


class Acting(StoreActing, Protocol):
    """A turn, as far as a context knows it."""

    activation: Activation | None

    def emit(self, event_name: str, params: dict[str, Any]) -> None:
        """Emit an event of the routine."""

    def state(self) -> Any:
        """Return the working copy of the state."""

    def resource(self, name: str) -> Any:
        """Return a resource of the flow."""

    def finish(self, result: Any) -> None:
        """End the job when the turn has succeeded."""

    def flush(self) -> None:
        """Commit in-place changes, and wait for room in the queue."""

    def not_acting(self, what: str) -> ContextError:
        """Return the error for an operation outside the turn."""


class ActingTask(Acting, Protocol):
    """A turn on the event loop, as far as a context knows it."""

    async def flush_async(self) -> None:
        """Commit in-place changes, and wait for room in the queue."""

    async def resource_async(self, name: str) -> Any:
        """Return a resource of the flow."""

    async def begin_edit_async(self, activation: Activation) -> EditDraft:
        """Become the only one that edits, and return the draft of the edit."""

    async def end_edit_async(self, draft: EditDraft, *, keep: bool) -> None:
        """Commit an edit, or drop it."""


State = TypeVar("State", default=Any)


class HandlerContext(ExecutionContext, Generic[State]):
    """What the contexts of plain and of coroutine handlers have in common.

    Attributes can be read from any thread at any time. Operations belong to the handler's own thread or task, and to
    the time until the handler is over; elsewhere, or later, they raise `ContextError`.
    """

    __slots__ = ("_activation", "_turn")

    def __init__(self, turn: Acting, activation: Activation) -> None:
        self._turn = turn
        self._activation = activation

    @property
    def flow(self) -> Any:
        """The `Flow` that is executed."""
        return self._turn.job.flow

    @property
    def job_state(self) -> JobState:
        """The state of the job."""
        return JobState(self._turn.job)

    @property
    def job_id(self) -> str:
        """The id of the job."""
        return self._turn.job.record.job_id

    @property
    def flow_id(self) -> str:
        """The id of the flow."""
        return self._turn.job.record.plan.flow_id

    @property
    def parent_job_id(self) -> str | None:
        """The id of the job one of whose handlers has started this one."""
        return self._turn.job.record.parent_job_id

    @property
    def routine_id(self) -> str:
        """The id of this routine in the flow."""
        return self._activation.slot.routine_id

    @property
    def slot_name(self) -> str:
        """The slot whose delivery is handled."""
        return self._activation.slot.name

    @property
    def attempt(self) -> int:
        """Which attempt of this activation it is, from 1."""
        return self._activation.attempt

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this handler any more, so that it may as well return.

        True when the job was cancelled or finished by another handler, or this handler's time was up.
        """
        record = self._turn.job.record
        return record.closed or record.running.get(self._activation.id) is not self._activation

    @property
    def session_id(self) -> str | None:
        """The session that the job was started for."""
        return self._turn.job.record.session_id

    @property
    def user_id(self) -> str | None:
        """The user that the job was started for."""
        return self._turn.job.record.user_id

    @property
    def state(self) -> State:
        """The working copy of the job's state, a model when the flow has a ``state_schema`` and else a mapping.

        What is assigned is validated and written at once; what is changed in place is when the handler returns.
        """
        self._check("state")
        state: State = self._turn.state()
        return state

    def emit(self, event_name: str, /, **params: Any) -> None:
        """Emit an event of this routine, as `Routine.emit` does."""
        self._check(f"emit({event_name!r})")
        self._turn.emit(event_name, params)

    def finish(self, result: Any = None) -> None:
        """End the job as completed, with this result, when this handler has returned.

        Deliveries that have not begun are dropped then, and so is what other handlers still do. Nothing happens when
        the handler raises after all.
        """
        self._check("finish()")
        self._turn.finish(result)

    def _check(self, what: str) -> None:
        if self._turn.activation is not self._activation:
            raise self._turn.not_acting(what)

    def __repr__(self) -> str:
        where = f"{self.routine_id}.{self.slot_name} in job {self.job_id!r}, attempt {self.attempt}"
        return f"<{type(self).__name__} of {where}>"


class Context(HandlerContext[State]):
    """The context of one running handler: the value of a parameter annotated with this class, and of
    `Routine.get_execution_context`. ``Context[Model]`` tells type checkers what ``state`` is.

    Its attributes can be read from any thread at any time. Its operations belong to the handler's own thread, and to
    the time until the handler returns; elsewhere, or later, they raise `ContextError`.
    """

    __slots__ = ()

    @property
    def store(self) -> Store:
        """The state by dotted paths, and atomic edits of it."""
        self._check("store")
        return Store(self._turn, self._activation)

    @property
    def step(self) -> Steps:
        """Steps whose outcome is recorded and never computed again, waits, and other jobs."""
        self._check("step")
        return Steps(self._turn)

    def resource(self, name: str) -> Any:
        """Return the resource that `Flow.add_resource` has added under this name; it is made if it is not yet.

        Raises:
            DeclarationError: when the flow has no resource of this name.
            ExecutionError: when the flow is shut down, or the resource is needed to build itself.
            ContextError: outside the handler's turn.
            Exception: what the factory raises.
        """
        self._check(f"resource({name!r})")
        return self._turn.resource(name)

    def flush(self) -> None:
        """Write what was changed in place in ``ctx.state``, and let the queue of the job get shorter when it is full.

        Nothing happens under RETRY and SKIP, which keep emissions back until the attempt has succeeded.

        Raises:
            StateError: inside ``edit_state()``, or when the state refuses the change.
            ContextError: outside the handler's turn.
        """
        self._check("flush()")
        self._turn.flush()


class AsyncContext(HandlerContext[State]):
    """The context of one running coroutine handler: the value of a parameter annotated with this class.

    ``AsyncContext[Model]`` tells type checkers what ``state`` is.

    It is used as a `Context` is, except that ``store``, ``step``, ``resource`` and ``flush`` are awaited. Its
    operations belong to the task that the handler runs in: in tasks that the handler makes, they raise `ContextError`.
    """

    __slots__ = ()

    _turn: ActingTask

    @property
    def store(self) -> AsyncStore:
        """The state by dotted paths, and atomic edits of it."""
        self._check("store")
        return AsyncStore(self._turn, self._activation)

    @property
    def step(self) -> AsyncSteps:
        """Steps whose outcome is recorded and never computed again, waits, and other jobs."""
        self._check("step")
        return AsyncSteps(self._turn)

    async def resource(self, name: str) -> Any:
        """Return the resource that `Flow.add_resource` has added under this name; it is made if it is not yet.

        Raises what `Context.resource` does.
        """
        self._check(f"resource({name!r})")
        return await self._turn.resource_async(name)

    async def flush(self) -> None:
        """Write what was changed in place in ``ctx.state``, and wait while the queue of the job is full.

        A coroutine handler is never held up by ``emit``, so one that emits a great deal awaits this now and then.
        Nothing happens under RETRY and SKIP, which keep emissions back until the attempt has succeeded.

        Raises:
            StateError: inside ``edit_state()``, or when the state refuses the change.
            ContextError: outside the handler's turn.
        """
        self._check("flush()")
        await self._turn.flush_async()
