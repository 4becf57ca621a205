"""What a job keeps of an exception."""

from __future__ import annotations

import builtins
import traceback

from ..core.plan import SlotPlan
from ..core.records import ErrorRecord
from ..errors import ExecutionError


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


def rebuilt(error: object) -> BaseException:
    """Return an exception like the one that was kept: of the same class when that is a builtin one, or itself."""
    error = getattr(error, "error", error)
    if isinstance(error, BaseException):
        return error
    assert isinstance(error, ErrorRecord)
    kind = getattr(builtins, error.type, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(error.message)
        except Exception:  # it takes other arguments
            pass
    return ExecutionError(f"{error.type}: {error.message}")
