"""What a new job begins with: its record, its first payload, and its shared data.

``where`` is what errors begin with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ..core.copying import copy_payload, needs_copy
from ..core.history import History
from ..core.job_record import JobRecord
from ..core.machine import wrote
from ..core.models import BaseModel
from ..core.plan import Plan
from ..errors import ExecutionError
from ..graph.schema import StateSchema, plain
from ..store.known_types import KnownTypes
from .arguments import job_id_of, new_id, payload_of, text_of
from .clock import reading_of
from .threads import SharedThreads


class Startable(Protocol):
    """A flow, as far as its jobs depend on it."""

    flow_id: str
    version: str | None
    history_limit: int | None
    schema: StateSchema | None
    engine: SharedThreads
    execution_strategy: str
    max_workers: int
    max_pending: int
    copy_payloads: bool
    max_state_bytes: int

    def plan(self) -> Plan:
        """Return the compiled form of the flow."""

    def known_types(self) -> KnownTypes:
        """Return the classes whose instances may be saved."""

    def entry_slot(self, entry_id: Any, slot: str | None) -> str:
        """Return the slot that an execution from a routine starts with."""


class NewJob(NamedTuple):
    """The arguments for a new job, as `Flow.execute` describes them; None stands for its default."""

    entry_id: str
    entry_params: Mapping[str, Any] | None = None
    slot: str | None = None
    job_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    initial_state: Mapping[str, Any] | BaseModel | None = None


def first_payload(flow: Startable, new: NewJob, where: str) -> tuple[dict[str, Any], bool]:
    """Return the payload that the first handler is called with, and whether a reader must copy what it holds."""
    params = payload_of(new.entry_params, where)
    isolate = flow.copy_payloads and needs_copy(params)
    try:
        return (copy_payload(params) if isolate else params), isolate
    except RecursionError as error:
        raise ExecutionError(f"{where}: entry_params are nested too deeply to be copied") from error


def new_record(flow: Startable, new: NewJob, engine: SharedThreads, parent_job_id: str | None, where: str) -> JobRecord:
    """Return the record of a job that has not started."""
    created, epoch = reading_of(engine.clock)
    return JobRecord(
        plan=flow.plan(),
        job_id=new_id() if new.job_id is None else job_id_of(new.job_id, where),
        epoch=epoch,
        created=created,
        session_id=text_of(new.session_id, "session_id", where),
        user_id=text_of(new.user_id, "user_id", where),
        parent_job_id=parent_job_id,
        durable=engine.keeping is not None,
        history=History(flow.history_limit),
    )


def begin_state(flow: Startable, record: JobRecord, given: Mapping[str, Any] | BaseModel | None, where: str) -> None:
    """Put the initial state over what an earlier job has handed down, and check it."""
    if flow.schema is not None:
        handed = {name: value for name, value in record.shared.items() if name in flow.schema.fields}
        wrote(record, None, flow.schema.initial(given, handed, where))
    elif given is not None:
        wrote(record, None, copy_payload(plain(given, where)))
    if record.shared:
        from ..graph.sizes import check_size

        check_size(record.shared, flow.max_state_bytes, where)
