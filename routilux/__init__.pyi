"""What the public names are, for type checkers; they are fetched from the same modules by the table in __init__.py."""

from . import builtin as builtin, errors as errors, signals as signals, testing as testing
from .core.policy import ErrorHandler as ErrorHandler, ErrorStrategy as ErrorStrategy
from .core.records import ErrorRecord as ErrorRecord
from .core.status import JobStatus as JobStatus
from .errors import (
    ConflictError as ConflictError,
    ContextError as ContextError,
    DeclarationError as DeclarationError,
    ExecutionError as ExecutionError,
    GatherError as GatherError,
    HandlerTimeoutError as HandlerTimeoutError,
    JobTimeoutError as JobTimeoutError,
    LoadError as LoadError,
    PathError as PathError,
    PayloadError as PayloadError,
    PoisonError as PoisonError,
    RecoveryError as RecoveryError,
    ReplayError as ReplayError,
    RoutiluxError as RoutiluxError,
    SaveError as SaveError,
    StaleWriterError as StaleWriterError,
    StateError as StateError,
    StatusError as StatusError,
    StepError as StepError,
    StepExecutionError as StepExecutionError,
    StepTimeoutError as StepTimeoutError,
    StoreError as StoreError,
    Suspend as Suspend,
)
from .flow import Flow as Flow
from .graph.findings import Finding as Finding
from .graph.shape import Connection as Connection
from .routine.declaration import Routine as Routine
from .routine.event import Event as Event
from .routine.function import FunctionRoutine as FunctionRoutine, routine as routine
from .routine.method import SlotMethod as SlotMethod, slot as slot
from .routine.resource import Resource as Resource
from .routine.scope import ExecutionContext as ExecutionContext
from .routine.slot import Slot as Slot
from .runtime.async_store import AsyncEdit as AsyncEdit, AsyncStore as AsyncStore
from .runtime.clock import Clock as Clock
from .runtime.context import AsyncContext as AsyncContext, Context as Context
from .runtime.either_face import WorkflowContext as WorkflowContext
from .runtime.engine import Engine as Engine
from .runtime.facts import Fact as Fact, Lagged as Lagged
from .runtime.invoking import ChildHandle as ChildHandle, Invocable as Invocable
from .runtime.job_state import JobState as JobState
from .runtime.outputs import OutputQueue as OutputQueue
from .runtime.reports import (
    ExecutionRecord as ExecutionRecord,
    OpenInput as OpenInput,
    Output as Output,
    Performance as Performance,
)
from .runtime.step_faces import AsyncSteps as AsyncSteps, Steps as Steps
from .runtime.store import Edit as Edit, Store as Store
from .runtime.streams import Stream as Stream
from .store.base import (
    Claimed as Claimed,
    FactStore as FactStore,
    Inbox as Inbox,
    JobHead as JobHead,
    Message as Message,
)
from .store.opening import open_store as open_store
from .store.serializer import Serializer as Serializer
from .workflow import Workflow as Workflow, WorkflowState as WorkflowState, workflow as workflow

__version__: str
