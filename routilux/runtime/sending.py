"""From what people outside give to a job to a delivery that fits its slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.copying import copy_payload, needs_copy
from ..core.plan import SOURCES, SlotPlan
from ..errors import ExecutionError, PayloadError, known_names
from ..routine.binding import Misfit
from ..routine.declaration import find
from .job import Job


def slot_of(job: Job, routine_id: Any, slot: Any) -> SlotPlan:
    """Return a slot of a job. Raises DeclarationError when there is none of this name."""
    where = f"flow {job.plan.flow_id!r}"
    node = find(job.plan.nodes, routine_id, "routine", where)
    found: SlotPlan = find(node.slots, slot, "slot", f"{where}: routine {routine_id!r}")
    return found


def input_of(job: Job, routine_id: Any, slot: Any) -> SlotPlan:
    """Return an external slot of a job.

    Raises DeclarationError when there is no slot of this name, ExecutionError when the slot is not external.
    """
    found = slot_of(job, routine_id, slot)
    if not found.external and found.index not in job.record.inputs:
        names = [f"{each.routine_id}.{each.name}" for each in job.plan.inputs]
        name = f"{routine_id}.{slot}"
        raise ExecutionError(
            f"flow {job.plan.flow_id!r}: slot {name!r} is not external, and so is never open"
            f"{known_names(name, names, 'external slots')}"
        )
    return found


def send(job: Job, slot: SlotPlan, params: Mapping[str, Any]) -> None:
    """Deliver parameters to a slot of a job.

    Raises:
        PayloadError: when they do not fit the handler; the job knows nothing of it then.
        StatusError: when the job, or the input, takes in nothing more.
        ExecutionError: when they cannot be copied, or the slot takes in nothing from outside.
    """
    where = f"flow {job.plan.flow_id!r}, routine {slot.routine_id!r}, slot {slot.name!r}"
    if slot.gather is not None and slot.gather.mode == SOURCES and not slot.external:
        raise ExecutionError(
            f"{where}: the slot takes one delivery of each connection, and what is sent is none of these; declare it "
            f"with external=True, and what is sent counts as one more source"
        )
    isolate = job.plan.copy_payloads and needs_copy(params)
    try:
        payload = copy_payload(params) if isolate else dict(params)
    except RecursionError as error:
        raise ExecutionError(f"{where}: what is sent is nested too deeply to be copied") from error
    if slot.gather is None and slot.merge == "override":  # else the handler gets something that is made of it
        try:
            slot.binding.bind(copy_payload(payload) if isolate else payload)
        except Misfit as misfit:
            raise PayloadError(f"{where}: {misfit}") from misfit.__cause__
    job.receive(slot, payload, isolate)
