"""routilux: event-driven step graphs that run in your process."""

from .core import version
from .core.policy import ErrorHandler, ErrorStrategy
from .core.records import ErrorRecord
from .core.status import JobStatus
from .errors import (
    ConflictError,
    ContextError,
    DeclarationError,
    ExecutionError,
    HandlerTimeoutError,
    JobTimeoutError,
    LoadError,
    PathError,
    PayloadError,
    RoutiluxError,
    SaveError,
    StateError,
    StatusError,
)
from .flow import Flow
from .graph import Connection, Finding
from .routine import Event, ExecutionContext, Routine, Slot
from .runtime.clock import Clock
from .runtime.context import Context
from .runtime.engine import Engine
from .runtime.job_state import JobState
from .runtime.reports import ExecutionRecord, Output, Performance
from .runtime.store import Store
from .store.values import Serializer

__version__ = version.VERSION

__all__ = [
    # declaring
    "Connection",
    "ErrorHandler",
    "ErrorStrategy",
    "Event",
    "Finding",
    "Flow",
    "Routine",
    "Slot",
    # running
    "Clock",
    "Context",
    "Engine",
    "ExecutionContext",
    "Store",
    # looking at a job
    "ErrorRecord",
    "ExecutionRecord",
    "JobState",
    "JobStatus",
    "Output",
    "Performance",
    # saving a job
    "Serializer",
    # errors
    "ConflictError",
    "ContextError",
    "DeclarationError",
    "ExecutionError",
    "HandlerTimeoutError",
    "JobTimeoutError",
    "LoadError",
    "PathError",
    "PayloadError",
    "RoutiluxError",
    "SaveError",
    "StateError",
    "StatusError",
]
