"""Saving jobs, and loading them.

A job is held still while its record is copied and written as JSON; where that is put, a file or a dict, is not the
job's concern any more. Loading makes a record of it again, under the plan of the flow, and translates its times to the
clock of this process, so that what was due at some time of day still is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import orjson

from ..core.job_record import JobRecord
from ..core.plan import Plan
from ..errors import DeclarationError, LoadError, SaveError
from ..graph.schema import StateSchema, check_size
from ..store import files
from ..store.documents import check_flow, document_of, record_form, record_of
from ..store.files import StrPath
from ..store.known_types import KnownTypes
from ..store.reading import Reader
from ..store.record_writing import snapshot
from ..store.shapes import Shapes
from ..store.values import Serializer, Writer
from .clock import reading_of
from .holding import refuse_handler, refuse_listener, refuse_on_loop, still
from .job import Job
from .threads import SharedThreads

S = TypeVar("S", bound="Savable")


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


class Savable:
    """The part of `JobState` that saves and loads."""

    __slots__ = ()
    _job: Job

    def to_dict(self, serializer: Serializer | None = None) -> dict[str, Any]:
        """Return the job as a dict that can be kept as JSON, and from which `from_dict` makes it again.

        A job that runs is held still for a moment: handlers that run are waited for, and no more start until its record
        has been copied; it is a paused one when it is loaded. Kept are its identity, status, states, shared data, log,
        outputs, errors, result, history with timings, and all that is still to be done.

        Values come back as they were: JSON values, tuples, sets, bytes, deques, dates and times, ``Decimal``, ``UUID``
        and paths, and instances of enums, dataclasses, named tuples and pydantic models that the annotations of
        handlers or the ``state_schema`` mention, or ``Flow.register_types`` has named. What two values shared, each has
        for its own then. A model is dumped by pydantic if its class brings serializers of its own. Private attributes
        of models, and attributes of dataclasses that are no fields, are not kept.

        Args:
            serializer: turns values of other classes into such that can be saved; it is needed again to load them.

        Raises:
            SaveError: for a value that cannot be saved; it says where that is. Also in a job without a store, while a
                handler waits.
            StateError: when the shared data have outgrown the flow's ``max_state_bytes``.
            DeclarationError: when two classes that are saved have the same qualified name.
            ContextError: inside a handler of this job.
        """
        return orjson.loads(saved(self._job, serializer, "to_dict()"))  # type: ignore[no-any-return]

    def save(self, path: StrPath, serializer: Serializer | None = None) -> None:
        """Save the job to a file, which `load` reads. See `to_dict` for what is kept, and for further errors.

        The file is replaced as a whole when all is written: whoever reads it, or is interrupted, finds the old one or
        the new one.

        Args:
            path: the file; its folder must exist.
            serializer: see `to_dict`.

        Raises:
            OSError: when the file cannot be written.
        """
        files.write(path, files.sealed(saved(self._job, serializer, "save()")))

    @classmethod
    def from_dict(cls: type[S], data: Mapping[str, Any], flow: Any, serializer: Serializer | None = None) -> S:
        """Return the job that `to_dict` has described, as a job of ``flow``.

        A job that was paused, or saved while it ran, is paused and goes on with ``flow.resume(job_state)``; a failed
        one can be taken up in the same way; one that has ended can be read, and be the ``job_state`` of the next.

        Raises:
            LoadError: when the data are no saved job, or do not fit the flow, its version or its classes.
            DeclarationError: when two classes that are needed have the same qualified name.
        """
        return _flow(flow).restore(data, serializer)  # type: ignore[no-any-return]

    @classmethod
    def load(cls: type[S], path: StrPath, flow: Any, serializer: Serializer | None = None) -> S:
        """Return the job that `save` has written to a file, as a job of ``flow``. See `from_dict`.

        Raises:
            LoadError: also when the file is damaged.
            OSError: when the file cannot be read, FileNotFoundError when there is none.
        """
        return _flow(flow).load(path, serializer)  # type: ignore[no-any-return]


def _flow(flow: Any) -> Any:
    if isinstance(flow, type) or not hasattr(flow, "restore"):
        raise LoadError(f"a job is loaded for a Flow, not for {flow!r}")
    return flow


def check_serializer(serializer: object, where: str) -> None:
    """Raise DeclarationError unless it is None or has the methods of a `Serializer`."""
    if serializer is not None and (isinstance(serializer, type) or not isinstance(serializer, Serializer)):
        raise DeclarationError(
            f"{where}: a serializer has the methods serialize(value) and deserialize(data), unlike {serializer!r}"
        )


# --- saving -----------------------------------------------------------------------------------------------------


def saved(job: Job, serializer: Serializer | None, what: str) -> bytes:
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
            size = len(orjson.dumps([form["state"], form["shared"]]))
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
        if record.points.get(activation.delivery.id):
            raise LoadError(
                f"{subject}: the handler of '{activation.slot.routine_id}.{activation.slot.name}' was in the middle of "
                f"a durable turn, which goes on only in a job with a store; load it with a flow whose engine has one"
            )
