"""Workflows: a flow of one routine, made from a function.

The function's second parameter is the payload of the job, what it returns is the job's result.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Protocol, TypeVar, overload

from pydantic import BaseModel, ConfigDict

from .core.policy import ErrorHandler
from .core.status import JobStatus
from .errors import DeclarationError, ExecutionError, JobTimeoutError
from .flow import DEFAULT_MAX_STATE_BYTES, Flow
from .routine.declaration import Routine, declaration_of
from .routine.from_function import check_parameters, handler_of
from .runtime.engine import Engine
from .runtime.job_state import JobState
from .runtime.waits import waits_outside
from .store.opening import open_store

PayloadT = TypeVar("PayloadT", contravariant=True)
ResultT = TypeVar("ResultT", covariant=True)
P = TypeVar("P")
R = TypeVar("R")
InitialState = Mapping[str, Any] | BaseModel | None

SLOT = "trigger"
ENDED_JOBS_KEPT = 1000  # in the memory of the process, for workflows without an engine
PRUNED_EVERY = 100  # jobs that begin


class WorkflowState(BaseModel):
    """A base class for the ``state_schema`` of workflows, and flows: a pydantic model whose fields have defaults."""

    model_config = ConfigDict(defer_build=True)  # most programs have none: its schema is built when it is needed


class _MemoryEngine(Engine):
    """The engine of all workflows that have no other. Their jobs are kept in memory, the last ones that ended too."""

    def __init__(self) -> None:
        super().__init__(store=open_store("memory:"))
        self._begun = 0

    def register(self, *flows: Any) -> None:
        """Make flows known. A function that is defined anew takes the place of the one that had its name."""
        for each in flows:
            self.keeping.flows[each.flow_id] = each
        self._begun += 1
        if self._begun % PRUNED_EVERY == 0:
            self.prune(keep=ENDED_JOBS_KEPT)


_memory_engine: _MemoryEngine | None = None
_memory_engine_lock = threading.Lock()


def _engine_in_memory() -> Engine:
    global _memory_engine
    with _memory_engine_lock:
        if _memory_engine is None:
            _memory_engine = _MemoryEngine()
        return _memory_engine


class _Body(Routine):
    """The routine of a workflow."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        super().__init__()
        self.define_slot(SLOT, handler=handler)


class Workflow(Generic[PayloadT, ResultT]):
    """A function as a flow. Made by `workflow`.

    Its jobs are durable in the engine that it is given, or else in the first one that it is registered with
    (``engine.register(f)``); without either, they live in the memory of the process.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], names: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        given = dict(options)
        flow_id, engine, error_handler = given.pop("id"), given.pop("engine"), given.pop("error_handler")
        name = getattr(function, "__name__", None) or type(function).__name__
        flow_id = name if flow_id is None else flow_id
        if isinstance(function, Workflow):
            raise DeclarationError(f"workflow {flow_id!r}: the function is a workflow already")
        where = f"workflow {flow_id!r}"
        handler, annotation = handler_of(function, names, where)
        routine = _Body(handler)
        binding = declaration_of(routine).slots[SLOT].binding
        check_parameters(binding, where)
        self._flow = Flow(flow_id, engine=engine, **given)
        self._flow.add_routine(routine, name)
        self._flow.learn_types([] if annotation is inspect.Signature.empty else [annotation])
        if error_handler is not None:
            self._flow.set_error_handler(error_handler)
        self._engine: Engine | None = engine
        self._fixed = engine is not None
        self._entry = name
        self._parameter = binding.names[0] if binding.names else None
        self._optional = not binding.needed
        functools.update_wrapper(self, function)

    # --- running ------------------------------------------------------------------------------------------------------

    def run(
        self,
        payload: PayloadT | Mapping[str, Any] | None = None,
        *,
        initial_state: InitialState = None,
        session_id: str | None = None,
        user_id: str | None = None,
        job_id: str | None = None,
        timeout: float | None = None,
    ) -> ResultT:
        """Run the function as a job, in this thread, and return what it returns.

        Args:
            payload: its payload; a dict becomes a model when the parameter is annotated with one.
            initial_state: values of the state to begin with, as a mapping or a model.
            session_id: handed to the context, and to those of the jobs that it invokes.
            user_id: likewise.
            job_id: an id for the job; when there is a job with this id, that one is waited for.
            timeout: seconds after which the job fails with `JobTimeoutError`.

        Raises:
            Exception: what the function raised, the same object.
            PayloadError: when the payload, or the result, does not fit its annotation.
            ExecutionError: when the job was cancelled or paused, or waits for something outside; the message names it.
        """
        given = self._job(payload, initial_state, session_id, user_id, job_id)
        return self._result(self.flow.execute(self._entry, timeout=timeout, **given), timeout)

    __call__ = run

    async def arun(
        self,
        payload: PayloadT | Mapping[str, Any] | None = None,
        *,
        initial_state: InitialState = None,
        session_id: str | None = None,
        user_id: str | None = None,
        job_id: str | None = None,
        timeout: float | None = None,
    ) -> ResultT:
        """Do as `run` does, without holding up the event loop."""
        given = self._job(payload, initial_state, session_id, user_id, job_id)
        return self._result(await self.flow.aexecute(self._entry, timeout=timeout, **given), timeout)

    def start(
        self,
        payload: PayloadT | Mapping[str, Any] | None = None,
        *,
        initial_state: InitialState = None,
        session_id: str | None = None,
        user_id: str | None = None,
        job_id: str | None = None,
    ) -> JobState:
        """Start a job on worker threads, and return its state at once. See `run` for the arguments."""
        return self.flow.start(self._entry, **self._job(payload, initial_state, session_id, user_id, job_id))

    def _job(self, payload: Any, initial_state: Any, session_id: Any, user_id: Any, job_id: Any) -> dict[str, Any]:
        return {
            "entry_params": self._parameters(payload),
            "initial_state": initial_state,
            "session_id": session_id,
            "user_id": user_id,
            "job_id": job_id,
        }

    def _parameters(self, payload: Any) -> dict[str, Any]:
        if self._parameter is None:
            if payload is not None:
                raise ExecutionError(f"workflow {self._flow.flow_id!r} takes no payload: its function has only 'ctx'")
            return {}
        return {} if payload is None and self._optional else {self._parameter: payload}

    def _result(self, state: JobState, timeout: float | None) -> ResultT:
        state.raise_for_status()
        if state.status is JobStatus.COMPLETED:
            result: ResultT = state.result
            return result
        where = f"workflow {self._flow.flow_id!r}: job {state.job_id!r}"
        if state.status is JobStatus.WAITING:
            waits = waits_outside(state._job)
            raise ExecutionError(
                f"{where} waits at {' and at '.join(waits)}, and run() does not wait for what comes from outside. The "
                f"job goes on when somebody publishes it, with engine.publish(topic, payload, job_id); to wait for the "
                f"end of such a job, begin it with start(), and call wait() of the JobState which that returns"
            )
        if state.status is JobStatus.RUNNING and timeout is not None:
            raise JobTimeoutError(f"{where} runs elsewhere, and has not ended within {timeout:g} seconds")
        raise ExecutionError(f"{where} is {state.status}, and has no result; take it up again with flow.resume()")

    # --- as a flow ----------------------------------------------------------------------------------------------------

    @property
    def flow(self) -> Flow:
        """The flow, of one routine that has the name of the function."""
        if self._engine is None:
            self._use(_engine_in_memory())
        return self._flow

    @property
    def id(self) -> str:
        """The id of the flow."""
        return self._flow.flow_id

    @property
    def engine(self) -> Engine:
        """The engine that its jobs run in."""
        self.flow  # noqa: B018 - finds the engine
        assert self._engine is not None
        return self._engine

    def flow_in(self, engine: Engine) -> Flow:
        """Return the flow for an engine that it is registered with, which becomes its own unless it was given one."""
        if not self._fixed:
            self._use(engine)
        return self._flow

    def _use(self, engine: Engine) -> None:
        self._engine = self._flow.engine = engine

    def invocation(self, payload: Any, entry: str | None = None) -> tuple[Flow, str, Mapping[str, Any]]:
        """Return the flow, its routine, and the parameters that a payload becomes. There is no other ``entry``.

        Raises:
            DeclarationError: for an ``entry`` that is not the name of the function.
            ExecutionError: for a payload when the function takes none.
        """
        if entry is not None:
            self._flow.entry_slot(entry, None)
        return self._flow, self._entry, self._parameters(payload)

    def __repr__(self) -> str:
        return f"<Workflow {self._flow.flow_id!r}>"


class WorkflowMaker(Protocol):
    """Makes a workflow of a function: what ``@workflow(id=...)`` is."""

    @overload
    def __call__(self, function: Callable[[Any, P], Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...

    @overload
    def __call__(self, function: Callable[[Any, P], R], /) -> Workflow[P, R]: ...

    @overload
    def __call__(self, function: Callable[[Any], Coroutine[Any, Any, R]], /) -> Workflow[None, R]: ...

    @overload
    def __call__(self, function: Callable[[Any], R], /) -> Workflow[None, R]: ...


@overload
def workflow(function: Callable[[Any, P], Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...


@overload
def workflow(function: Callable[[Any, P], R], /) -> Workflow[P, R]: ...


@overload
def workflow(function: Callable[[Any], Coroutine[Any, Any, R]], /) -> Workflow[None, R]: ...


@overload
def workflow(function: Callable[[Any], R], /) -> Workflow[None, R]: ...


@overload
def workflow(
    *,
    id: str | None = None,
    state_schema: type[BaseModel] | None = None,
    version: str | None = None,
    engine: Engine | None = None,
    error_handler: ErrorHandler | None = None,
    max_state_bytes: int = DEFAULT_MAX_STATE_BYTES,
) -> WorkflowMaker: ...


def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    id: str | None = None,
    state_schema: type[BaseModel] | None = None,
    version: str | None = None,
    engine: Engine | None = None,
    error_handler: ErrorHandler | None = None,
    max_state_bytes: int = DEFAULT_MAX_STATE_BYTES,
) -> Any:
    """Make a `Workflow` of a function, ``def`` or ``async def f(ctx, payload: Payload) -> Result``.

    The payload is validated by pydantic when it is annotated, the result likewise; both parameter and annotations may
    be left out. What the function raises fails the job.

    Args:
        function: the function; ``@workflow`` and ``@workflow(...)`` both work.
        id: the id of the flow; by default the name of the function.
        state_schema: a pydantic model, such as a `WorkflowState`, of what ``ctx.state`` is.
        version: which version of the function this is; jobs of another one are not recovered.
        engine: whose threads and store its jobs use.
        error_handler: what happens when the function raises; by default the job fails.
        max_state_bytes: how large the state may be, as JSON.

    Raises:
        DeclarationError: when the function has other parameters, an annotation cannot be resolved or checked, or an
            option is out of range.
    """
    options = {
        "id": id,
        "state_schema": state_schema,
        "version": version,
        "engine": engine,
        "error_handler": error_handler,
        "max_state_bytes": max_state_bytes,
    }

    def make(of: Callable[..., Any]) -> Any:
        # Annotations that are text may name classes of the function in which the workflow is defined.
        caller = sys._getframe(1)
        return Workflow(of, {} if caller.f_locals is caller.f_globals else caller.f_locals, options)

    if function is None:
        return make
    caller = sys._getframe(1)
    return Workflow(function, {} if caller.f_locals is caller.f_globals else caller.f_locals, options)
