"""Saving jobs, and loading them.

A job is held still while its record is copied and written as JSON; where that is put, a file or a dict, is not the
job's concern any more. Loading makes a record of it again, under the plan of the flow, and translates its times to the
clock of this process, so that what was due at some time of day still is.
"""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from ..core.job_record import JobRecord
from ..core.plan import Plan
from ..errors import LoadError, SaveError
from ..graph.schema import StateSchema
from ..graph.sizes import check_size
from ..store import files
from ..store.documents import check_flow, document_of, record_form, record_of
from ..store.known_types import KnownTypes
from ..store.reading import Reader
from ..store.record_copying import snapshot
from ..store.serializer import Serializer, check_serializer
from ..store.shapes import Shapes
from ..store.values import Writer
from .clock import reading_of
from .holding import refuse_handler, refuse_listener, refuse_on_loop, still
from .job import Job
from .threads import SharedThreads


class Keeper(Protocol):
    """A flow, as far as saving and loading its jobs depend on it."""

    flow_id: str
    version: str | None
    history_limit: int | None
    schema: StateSchema | None
    engine: SharedThreads

    def plan(self) -> Plan:
        """Return the compiled form of the flow."""

    def known_types(self) -> KnownTypes:
        """Return the classes whose instances may be saved."""


# --- saving -----------------------------------------------------------------------------------------------------


def as_dict(job: Job, serializer: Serializer | None) -> dict[str, Any]:
    """Return a job as `JobState.to_dict` does."""
    return orjson.loads(_saved(job, serializer, "to_dict()"))  # type: ignore[no-any-return]


def save(job: Job, path: files.StrPath, serializer: Serializer | None) -> None:
    """Write a job to a file as `JobState.save` does."""
    files.write(path, files.sealed(_saved(job, serializer, "save()")))


def _saved(job: Job, serializer: Serializer | None, what: str) -> bytes:
    """Return a job as JSON; ``what`` is what the caller does, for errors."""
    subject = f"flow {job.plan.flow_id!r}: job {job.record.job_id!r}"
    check_serializer(serializer, subject)
    refuse_handler(job, what)
    if job.record.running:  # and a listener holds up one of them
        refuse_listener(job, what)
    refuse_on_loop(f"flow {job.plan.flow_id!r}: {what}")
    # Written as JSON while it is held: values that are not copied (see `core.copying`) are handlers' to change.
    with still(job):
        with job.lock:
            record = snapshot(job.record)
        writer = Writer(subject, job.flow.known_types, serializer)
        form = record_form(record, writer)
        try:
            size = len(orjson.dumps([form.get("state"), form.get("shared", {})]))
        except TypeError as error:
            raise SaveError(f"{subject} cannot be written as JSON: {error}") from error
        if size > job.flow.max_state_bytes:
            check_size(record.shared, job.flow.max_state_bytes, subject, size)
        return document_of(form, writer, job.flow.flow_id, job.flow.version)


# --- loading ----------------------------------------------------------------------------------------------------


def as_document(data: object) -> Any:
    """Return data as JSON would bring them back, which nobody else holds. Raises LoadError when they are no JSON."""
    try:
        return orjson.loads(orjson.dumps(data))
    except TypeError as error:
        raise LoadError(f"the data are no saved job: they are no JSON: {error}") from error


def load_record(flow: Keeper, document: Any, name: str, serializer: Serializer | None) -> JobRecord:
    """Return the record in a document, for a flow; ``name`` is what the document is called in errors."""
    where = f"flow {flow.flow_id!r}: {name}"
    check_serializer(serializer, where)
    files.check_format(document, name)
    form = Shapes(where).take(document, "record", dict)
    job_id = form.get("job_id")
    subject = f"flow {flow.flow_id!r}: job {job_id!r} in {name}" if isinstance(job_id, str) else where
    reader = Reader(subject, flow.known_types, serializer)
    check_flow(document, reader, flow.flow_id, flow.version)
    clock = flow.engine.clock
    record = record_of(form, flow.plan(), reader, reading_of(clock)[1], flow.history_limit)
    record.durable = getattr(flow.engine, "store", None) is not None
    if not record.durable:
        _check_whole(record, subject)
    return record


def _check_whole(record: JobRecord, subject: str) -> None:
    """Raise LoadError when a turn has points, to which only a job with a store can return."""
    resumed = [activation for mailbox in record.mailboxes for activation in mailbox.resumed]
    for activation in (*record.waiting.values(), *record.retrying.values(), *record.stopped, *resumed):
        if record.points.get(activation.id):
            raise LoadError(
                f"{subject}: the handler of '{activation.slot.routine_id}.{activation.slot.name}' was in the middle of "
                f"a durable turn, which goes on only in a job with a store; load it with a flow whose engine has one"
            )
