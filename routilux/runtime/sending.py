"""From what people outside give to a job to a delivery that fits its slot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.copying import copy_payload, needs_copy
from ..core.models import validation_error
from ..core.plan import SOURCES, EventPlan, Route, SlotPlan
from ..errors import ExecutionError, PayloadError, known_names
from ..routine.binding import Misfit, check_value, shortened
from ..routine.declaration import find
from .gathered import no_key
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
    try:
        _check(job, slot, copy_payload(payload) if isolate else payload)
    except Misfit as misfit:
        raise PayloadError(f"{where}: {misfit}") from misfit.__cause__
    job.receive(slot, payload, isolate)


# --- whether it fits ------------------------------------------------------------------------------------------------


def _check(job: Job, slot: SlotPlan, payload: dict[str, Any]) -> None:
    """Raise Misfit when it can be told now that the handler will refuse a payload, or what is made with it."""
    if slot.gather is not None:
        problem = no_key(slot.gather, payload)
        if problem:
            raise Misfit(problem)
        if slot.gather.mode == SOURCES:
            _check_source(job, slot, payload)
        else:
            _check_items(slot, payload)
    elif slot.merge == "override":
        slot.binding.bind(payload)


def _check_source(job: Job, slot: SlotPlan, payload: dict[str, Any]) -> None:
    """Check one of several sources: the others deliver the rest."""
    others: set[str] = set()
    declared = True
    for event, route in _leading_to(job, slot):
        declared = declared and event.params is not None
        rename = route.rename or {}
        others.update(rename.get(name, name) for name in (rename if event.params is None else event.params))
    key = slot.gather.key if slot.gather is not None else None
    twice = next((name for name in payload if name in others and name != key), None)
    if twice is not None:
        raise Misfit(f"parameter {twice!r} is delivered by a connection; send the others")
    if declared:
        mine = dict.fromkeys(name for name in slot.binding.names if name not in others or name == key)
        for name in mine:
            if name in slot.binding.needed and name not in payload:
                raise Misfit(f"parameter {name!r} is missing{known_names(name, payload, 'parameters that were sent')}")
    for name, validator in slot.binding.validators.items():
        if name in payload:
            check_value(validator, f"parameter {name!r}", payload[name], name)


def _leading_to(job: Job, slot: SlotPlan) -> Iterator[tuple[EventPlan, Route]]:
    for node in job.plan.nodes.values():
        for event in node.events.values():
            for route in event.routes:
                if route.slot is slot:
                    yield event, route


def _check_items(slot: SlotPlan, payload: dict[str, Any]) -> None:
    """Check values that will be items of lists; how long these will be is not known."""
    key = slot.gather.key if slot.gather is not None else None
    for name, validator in slot.binding.validators.items():
        if name == key and name in payload:
            check_value(validator, f"parameter {name!r}", payload[name], name)
        elif name in payload:
            try:
                validator([payload[name]])
            except validation_error() as error:
                for problem in error.errors(include_url=False, include_context=False, include_input=False):
                    if problem["loc"][:1] == (0,):
                        raise Misfit(
                            f"parameter {name!r} = {shortened(payload[name])} is not valid: {problem['msg']}"
                        ) from error
