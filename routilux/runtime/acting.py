"""Whether a handler may still act."""

from __future__ import annotations

from _thread import get_ident
from typing import Any

from ..core.job_record import Activation
from ..core.plan import SlotPlan
from ..errors import ContextError
from .job import Job


class ActingTurn:
    """The activation that a thread runs now, and the check that it may act.

    It may while its handler runs, in the handler's own thread, and while the record says that exactly this attempt is
    running. So a handler whose time was up, or whose job has failed meanwhile, is refused whatever it still tries,
    without anybody having to stop its thread.
    """

    __slots__ = ("activation", "job", "now", "record", "routine", "thread")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.record = job.record
        self.now = job.now
        self.thread = get_ident()
        self.activation: Activation | None = None
        self.routine: Any = None

    def here(self) -> bool:
        """Whether this is the thread, or the task, that the handler runs in."""
        return get_ident() == self.thread

    def acting(self, what: str) -> Activation:
        """Return the activation that runs; raise ContextError elsewhere or later."""
        activation = self.activation
        if activation is None or not self.here():
            raise self.not_acting(what)
        return activation

    def check(self, activation: Activation) -> None:
        """Raise ContextError when the activation may not act any more. The caller holds the lock."""
        if self.record.running.get(activation.id) is not activation:
            raise self.too_late(activation)

    def where(self, slot: SlotPlan) -> str:
        """Return the flow, routine and slot as they stand in error messages."""
        return f"flow {self.job.plan.flow_id!r}, routine {slot.routine_id!r}, slot {slot.name!r}"

    def not_acting(self, what: str) -> ContextError:
        """Return the error for an operation outside the turn."""
        return ContextError(
            f"flow {self.job.plan.flow_id!r}: {what} belongs to a handler's own thread, while that handler runs; "
            f"this is another thread, or the handler is over"
        )

    def too_late(self, activation: Activation) -> ContextError:
        """Return the error for an operation of an attempt that is over for its job."""
        return ContextError(
            f"{self.where(activation.slot)}: attempt {activation.attempt} is over for its job, because its time was "
            f"up; what the handler still does is refused"
        )
