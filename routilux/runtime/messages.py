"""What messages ask of a job, and doing it."""

from __future__ import annotations

from typing import Any

import orjson

from ..core.copying import needs_copy
from ..core.status import JobStatus
from ..errors import StatusError
from ..store.base import Message
from .durable_job import DurableJob
from .job_state import JobState


def message(**parts: Any) -> bytes:
    """Return the body of a message to a job."""
    return orjson.dumps(parts)


def do_what_it_asks(job: DurableJob, asked: Message, keeping: Any) -> None:
    """Do what a message asks of a job, once.

    Raises StatusError, or another ExecutionError, when that cannot be done, StoreError when it cannot be kept.
    """
    if asked.number <= job.record.inbox:
        return
    what = _asked_for(asked)
    do = what["do"]
    if do == "publish":
        job.publish(what["topic"], what["form"], keep=what["keep"], message=asked.number)
        return
    if do in ("send", "close_input"):
        _give(job, what, asked.number)
        return
    if do == "answer":
        keeping.answer(job, what["job"], what["answer"])
    elif do == "cancel":
        job.cancel_unless_ended(what["reason"])
    elif do == "pause":
        job.pause(what["reason"])
    elif do == "resume" and job.record.status in (JobStatus.PAUSED, JobStatus.FAILED):
        if job.record.job_id not in keeping.resuming:
            job.flow.resume(JobState(job))
    elif do not in ("run", "resume"):
        raise StatusError(f"nobody knows how to {do!r}")
    if do != "run" and not job.record.status.ended:
        job.noted(asked.number)


def _asked_for(asked: Message) -> dict[str, Any]:
    try:
        what: dict[str, Any] = orjson.loads(asked.body)
        if type(what["do"]) is str:
            return what
    except (ValueError, KeyError, TypeError):
        pass
    raise StatusError(f"it is no message of routilux: {asked.body[:100]!r}")


def _give(job: DurableJob, what: dict[str, Any], number: int) -> None:
    """Give a job what came for one of its slots, or close that."""
    node = job.plan.nodes.get(what["routine"])
    slot = None if node is None else node.slots.get(what["slot"])
    if slot is None:
        raise StatusError(f"the flow has no slot '{what['routine']}.{what['slot']}'")
    if what["do"] == "close_input":
        job.close_input(slot, number)
        return
    payload = job.decode(what["form"], f"what is sent to '{slot.routine_id}.{slot.name}'")
    job.receive(slot, payload, job.plan.copy_payloads and needs_copy(payload), number)
