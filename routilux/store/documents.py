"""Jobs as JSON documents: the record, and what it takes to read it again.

A saved job and a snapshot of a durable job are such documents. A snapshot has the shape of the flow with it, by which
facts name slots, and by which it can be told whether the facts still fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel

from ..core.job_record import JobRecord
from ..core.plan import Plan, SlotPlan
from ..core.version import VERSION
from ..errors import LoadError, SaveError, StateError
from . import files
from .reading import Reader
from .record_reading import RecordReader
from .record_writing import RecordWriter
from .shapes import Shapes
from .turn_forms import PartReader
from .values import Writer

# --- writing ------------------------------------------------------------------------------------------------------


def record_form(record: JobRecord, values: Writer) -> dict[str, Any]:
    """Return the JSON form of a record, which must be a `record_copying.snapshot`.

    Raises SaveError when something in it has none.
    """
    return RecordWriter(record, values, _state(record)).write()


def _state(record: JobRecord) -> BaseModel | None:
    schema = record.plan.state_schema
    return None if schema is None else schema.instance(schema.fields_of(record.shared))


def document_of(
    form: dict[str, Any],
    values: Writer,
    flow_id: str,
    version: str | None,
    shape: dict[str, Any] | None = None,
    origin: str | None = None,
) -> bytes:
    """Return a document: the form of a record, with the flow that it is for.

    Raises SaveError when it cannot be written as JSON.
    """
    document = {
        "format": files.FORMAT,
        "routilux": VERSION,
        "flow_id": values.text(flow_id),
        "flow_version": values.text(version),
        "record": form,
    }
    if shape is not None:
        document["shape"] = values.value(shape, "the shape of the flow")
        document["origin"] = origin
    try:
        return orjson.dumps(document)
    except TypeError as error:
        raise SaveError(f"{values.subject} cannot be written as JSON: {error}") from error


def snapshot_document(
    record: JobRecord, values: Writer, version: str | None, shape: dict[str, Any], origin: str
) -> bytes:
    """Return a durable job's record as a document that stands for all of its facts up to now.

    Args:
        record: a `record_copying.snapshot` of the record, made while nobody changed it; handlers may run meanwhile.
        values: writes the values in it.
        version: the flow's.
        shape: the structure of the flow, as `graph.compatibility.shape_of` returns it.
        origin: what tells two jobs apart that began with something else.

    Raises:
        SaveError: when something in the record has no JSON form; it says where that is.
    """
    return document_of(record_form(record, values), values, record.plan.flow_id, version, shape, origin)


# --- reading ------------------------------------------------------------------------------------------------------


class Recovered(NamedTuple):
    """What a snapshot says.

    Attributes:
        record: the job's record as it was; what ran runs, see `core.commits.unfinished`.
        slots: the slots of the flow, as it is, in the order in which the facts after the snapshot count them; the names
            of those that it lacks.
    """

    record: JobRecord
    slots: list[SlotPlan | str]


def read_snapshot(body: bytes, values: Reader) -> dict[str, Any]:
    """Return a snapshot as a document, whose ``"shape"`` can be compared before it is `recovered`.

    Raises LoadError when it is no snapshot, or in a format that is not known.
    """
    shapes = Shapes(values.subject)
    try:
        document = orjson.loads(body)
    except ValueError as error:
        raise shapes.problem(f"the snapshot is truncated or damaged: it is no JSON: {error}") from error
    files.check_format(document, f"{values.subject}: the snapshot")
    shapes.take(document, "record", dict)
    shapes.take(document, "origin", str)
    document["shape"] = values.value(shapes.take(document, "shape", dict), "the shape of the flow")
    return document  # type: ignore[no-any-return]


def recovered(
    document: dict[str, Any],
    plan: Plan,
    values: Reader,
    version: str | None,
    epoch: int,
    history_limit: int | None,
) -> Recovered:
    """Return the record in a snapshot, into which the facts after it can be folded.

    Args:
        document: what `read_snapshot` returned; it becomes the record's own.
        plan: the flow as it is.
        values: reads the values in it.
        version: the flow's.
        epoch: what the clock of this process shows less than UTC, in nanoseconds.
        history_limit: how many activations the history keeps.

    Raises:
        LoadError: when the snapshot does not fit the flow, its version or its classes, or is malformed.
    """
    check_flow(document, values, plan.flow_id, version)
    slots = _slots_of(document["shape"], plan, PartReader(values, epoch))
    return Recovered(record_of(document["record"], plan, values, epoch, history_limit, recovered=True), slots)


def check_flow(document: Mapping[str, Any], values: Reader, flow_id: str, version: str | None) -> None:
    """Raise LoadError unless a document is for this flow in this version."""
    found_id, found_version = (values.value(document.get(key), key) for key in ("flow_id", "flow_version"))
    if found_id != flow_id:
        raise LoadError(f"{values.subject} belongs to another flow, {found_id!r}; load it with that one")
    if found_version != version:
        raise LoadError(
            f"{values.subject} was saved by version {found_version!r} of the flow, and this is version {version!r}; "
            f"load it with a flow of that version, or let it end there"
        )


def record_of(
    form: dict[str, Any],
    plan: Plan,
    values: Reader,
    epoch: int,
    history_limit: int | None,
    recovered: bool = False,
) -> JobRecord:
    """Return a record with this JSON form, typed state included; see `RecordReader`."""
    record = RecordReader(form, plan, values, epoch, history_limit, recovered).read()
    record.shared.update(_state_of(form, plan.state_schema, values, record.shared))
    return record


def _state_of(form: dict[str, Any], schema: Any, values: Reader, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the typed state, if the flow has one."""
    data = form.get("state")
    if data is not None:
        Shapes(values.subject).check(data, "'state'", dict)
    if schema is None:
        if data is not None:
            raise LoadError(f"{values.subject} has a typed state, and the flow no state_schema")
        return {}
    if data is not None:
        state = values.state(schema.model, data, "the state")
        return {name: state.__dict__[name] for name in schema.model.model_fields}
    try:
        given = {name: value for name, value in shared.items() if name in schema.fields}
        return schema.initial(given, {}, values.subject)  # type: ignore[no-any-return]
    except StateError as error:
        raise LoadError(f"{values.subject} was saved without a state_schema: {error}") from error


def _slots_of(shape: Any, plan: Plan, parts: PartReader) -> list[SlotPlan | str]:
    """Return the slots in the order in which a shape has them, and the names of those that are gone."""
    shapes = parts.shapes
    found: list[SlotPlan | str] = []
    for row in shapes.take(shapes.check(shape, "the shape of the flow", dict), "slots", list):
        routine_id, name, *_ = parts.row(row, 4, "a slot in the shape of the flow")
        node = plan.nodes.get(parts.text(routine_id, "a routine id"))
        name = parts.text(name, "the name of a slot")
        gone = node is None or name not in node.slots
        found.append(f"{routine_id}.{name}" if node is None or gone else node.slots[name])
    return found
