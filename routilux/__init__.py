"""routilux: event-driven step graphs that run in your process."""

from . import _late
from .core import version as _version

# Where each public name comes from; what type checkers see is in __init__.pyi.
__all__ = _late.fetch_late(
    __name__,
    {
        # declaring
        "core.policy": "ErrorHandler ErrorStrategy",
        "flow": "Flow",
        "graph.findings": "Finding",
        "graph.shape": "Connection",
        "routine.declaration": "Routine",
        "routine.event": "Event",
        "routine.function": "FunctionRoutine routine",
        "routine.method": "SlotMethod slot",
        "routine.resource": "Resource",
        "routine.slot": "Slot",
        # running
        "routine.scope": "ExecutionContext",
        "runtime.async_store": "AsyncEdit AsyncStore",
        "runtime.clock": "Clock",
        "runtime.context": "AsyncContext Context",
        "runtime.engine": "Engine",
        "runtime.store": "Edit Store",
        # workflows from functions
        "runtime.either_face": "WorkflowContext",
        "workflow": "Workflow WorkflowState workflow",
        # durable jobs
        "runtime.invoking": "ChildHandle Invocable",
        "runtime.step_faces": "AsyncSteps Steps",
        "store.base": "Claimed FactStore Inbox JobHead Message",
        "store.opening": "open_store",
        # looking at a job
        "core.records": "ErrorRecord",
        "core.status": "JobStatus",
        "runtime.job_state": "JobState",
        "runtime.outputs": "OutputQueue",
        "runtime.reports": "ExecutionRecord OpenInput Output Performance",
        # streaming a job
        "runtime.facts": "Fact Lagged",
        "runtime.streams": "Stream",
        # saving a job
        "store.serializer": "Serializer",
        # errors
        "errors": (
            "ConflictError ContextError DeclarationError ExecutionError GatherError HandlerTimeoutError "
            "JobTimeoutError LoadError PathError PayloadError PoisonError RecoveryError ReplayError "
            "RoutiluxError SaveError StaleWriterError StateError StatusError StepError StepExecutionError "
            "StepTimeoutError StoreError Suspend"
        ),
    },
    modules=("builtin", "errors", "signals", "testing"),
)

__version__ = _version.VERSION
