"""routilux: event-driven step graphs that run in your process."""

import typing as _typing

from . import _late
from .core import version as _version

if _typing.TYPE_CHECKING:  # what the table below says, for those who read the code and do not run it
    from .core.policy import ErrorHandler, ErrorStrategy
    from .core.records import ErrorRecord
    from .core.status import JobStatus
    from .errors import (
        ConflictError,
        ContextError,
        DeclarationError,
        ExecutionError,
        GatherError,
        HandlerTimeoutError,
        JobTimeoutError,
        LoadError,
        PathError,
        PayloadError,
        PoisonError,
        RecoveryError,
        ReplayError,
        RoutiluxError,
        SaveError,
        StaleWriterError,
        StateError,
        StatusError,
        StepError,
        StepExecutionError,
        StepTimeoutError,
        StoreError,
        Suspend,
    )
    from .flow import Flow
    from .graph.findings import Finding
    from .graph.shape import Connection
    from .routine.declaration import Routine
    from .routine.event import Event
    from .routine.function import FunctionRoutine, routine
    from .routine.method import SlotMethod, slot
    from .routine.resource import Resource
    from .routine.scope import ExecutionContext
    from .routine.slot import Slot
    from .runtime.async_store import AsyncEdit, AsyncStore
    from .runtime.clock import Clock
    from .runtime.context import AsyncContext, Context
    from .runtime.either_face import WorkflowContext
    from .runtime.engine import Engine
    from .runtime.facts import Fact, Lagged
    from .runtime.invoking import ChildHandle, Invocable
    from .runtime.job_state import JobState
    from .runtime.outputs import OutputQueue
    from .runtime.reports import ExecutionRecord, OpenInput, Output, Performance
    from .runtime.step_faces import AsyncSteps, Steps
    from .runtime.store import Edit, Store
    from .runtime.streams import Stream
    from .store.base import Claimed, FactStore, Inbox, JobHead, Message
    from .store.opening import open_store
    from .store.serializer import Serializer
    from .workflow import Workflow, WorkflowState, workflow

_late.fetch_late(
    __name__,
    {
        "core.policy": "ErrorHandler ErrorStrategy",
        "core.records": "ErrorRecord",
        "core.status": "JobStatus",
        "errors": (
            "ConflictError ContextError DeclarationError ExecutionError GatherError HandlerTimeoutError "
            "JobTimeoutError LoadError PathError PayloadError PoisonError RecoveryError ReplayError RoutiluxError "
            "SaveError StaleWriterError StateError StatusError StepError StepExecutionError StepTimeoutError "
            "StoreError Suspend"
        ),
        "flow": "Flow",
        "graph.findings": "Finding",
        "graph.shape": "Connection",
        "routine.declaration": "Routine",
        "routine.event": "Event",
        "routine.function": "FunctionRoutine routine",
        "routine.method": "SlotMethod slot",
        "routine.resource": "Resource",
        "routine.scope": "ExecutionContext",
        "routine.slot": "Slot",
        "runtime.async_store": "AsyncEdit AsyncStore",
        "runtime.clock": "Clock",
        "runtime.context": "AsyncContext Context",
        "runtime.either_face": "WorkflowContext",
        "runtime.engine": "Engine",
        "runtime.facts": "Fact Lagged",
        "runtime.invoking": "ChildHandle Invocable",
        "runtime.job_state": "JobState",
        "runtime.outputs": "OutputQueue",
        "runtime.reports": "ExecutionRecord OpenInput Output Performance",
        "runtime.step_faces": "AsyncSteps Steps",
        "runtime.store": "Edit Store",
        "runtime.streams": "Stream",
        "store.base": "Claimed FactStore Inbox JobHead Message",
        "store.opening": "open_store",
        "store.serializer": "Serializer",
        "workflow": "Workflow WorkflowState workflow",
    },
    modules=("builtin", "errors", "signals", "testing"),
)

__version__ = _version.VERSION

__all__ = [
    # declaring
    "Connection",
    "ErrorHandler",
    "ErrorStrategy",
    "Event",
    "Finding",
    "Flow",
    "FunctionRoutine",
    "Resource",
    "Routine",
    "Slot",
    "SlotMethod",
    "routine",
    "slot",
    # running
    "AsyncContext",
    "AsyncEdit",
    "AsyncStore",
    "Clock",
    "Context",
    "Edit",
    "Engine",
    "ExecutionContext",
    "Store",
    # workflows from functions
    "Workflow",
    "WorkflowContext",
    "WorkflowState",
    "workflow",
    # durable jobs
    "AsyncSteps",
    "ChildHandle",
    "Claimed",
    "FactStore",
    "Inbox",
    "Invocable",
    "JobHead",
    "Message",
    "Steps",
    "open_store",
    # looking at a job
    "ErrorRecord",
    "ExecutionRecord",
    "JobState",
    "JobStatus",
    "OpenInput",
    "Output",
    "OutputQueue",
    "Performance",
    # streaming a job
    "Fact",
    "Lagged",
    "Stream",
    # saving a job
    "Serializer",
    # errors
    "ConflictError",
    "ContextError",
    "DeclarationError",
    "ExecutionError",
    "GatherError",
    "HandlerTimeoutError",
    "JobTimeoutError",
    "LoadError",
    "PathError",
    "PayloadError",
    "PoisonError",
    "RecoveryError",
    "ReplayError",
    "RoutiluxError",
    "SaveError",
    "StaleWriterError",
    "StateError",
    "StatusError",
    "StepError",
    "StepExecutionError",
    "StepTimeoutError",
    "StoreError",
    "Suspend",
]
