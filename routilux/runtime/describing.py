"""What a job keeps of an exception."""

from __future__ import annotations

import traceback

from ..core.plan import SlotPlan
from ..core.records import ErrorRecord


def describe(error: BaseException, slot: SlotPlan | None = None, attempt: int | None = None) -> ErrorRecord:
    """Return what a job keeps of an exception."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    try:
        message = str(error)
    except Exception as unprintable:
        message = f"<its message cannot be made: {type(unprintable).__name__}>"
    kind, trace = type(error).__name__, "".join(lines)
    if slot is None:
        return ErrorRecord(kind, message, trace)
    return ErrorRecord(kind, message, trace, slot.routine_id, slot.name, attempt)
