"""What a job is given from outside: deliveries to its slots, and the end of its inputs, which may have a time."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..core.life import input_closed, received
from ..core.plan import SlotPlan
from ..core.records import InputClosed, Received
from ..core.status import JobStatus
from ..errors import StatusError
from .timed import Timed


class Receiving(Timed):
    """A job that can be given something from outside. For the arguments see `Job`."""

    def receive(self, slot: SlotPlan, payload: dict[str, Any], isolate: bool, message: int = 0) -> None:
        """Deliver a payload to a slot; the job goes on if it waited.

        Args:
            slot: a slot of the job's plan.
            payload: nobody else's.
            isolate: whether it holds something that a reader must copy.
            message: the number of the message that brought it, 0 without one.

        Raises StatusError when the job, or the input, takes in nothing more.
        """
        with self.lock:
            self.check_receiving(slot, message)
            self.take_in(Received(slot.index, payload, isolate, self.now(), message))
        self.tell()

    def close_input(self, slot: SlotPlan, message: int = 0) -> None:
        """Wait no longer for what comes to an external slot. Nothing happens when it is closed already."""
        with self.lock:
            if slot.index in self.record.inputs:
                self.take_in(InputClosed(slot.index, self.now(), message))
        self.tell()

    def check_receiving(self, slot: SlotPlan, message: int = 0) -> None:
        """Raise StatusError when nothing more can be delivered to a slot.

        A failed job refuses what is sent to it now, but keeps what a message brings: that may have been sent before.
        """
        record = self.record
        if message and record.status is JobStatus.FAILED:
            return
        where = f"flow {record.plan.flow_id!r}: job {record.job_id!r}"
        name = f"'{slot.routine_id}.{slot.name}'"
        if record.status.ended or record.closed:
            hint = "; resume it first" if record.status is JobStatus.FAILED else ""
            raise StatusError(f"{where} is {record.status}, and nothing more can be sent to its slot {name}{hint}")
        if slot.external and slot.index not in record.inputs:
            raise StatusError(f"{where}: the input {name} was closed, and nothing more can be sent to it")

    def take_in(self, fact: Received | InputClosed) -> None:
        """Put into the record what came, and let the job go on. The caller holds the lock, and tells afterwards."""
        record = self.record
        if isinstance(fact, Received):
            received(record, record.plan.slots[fact.slot], *fact[1:])
        else:
            input_closed(record, *fact)
            timer = self.timers.pop(_timer_of(fact.slot), None)
            if timer is not None:
                timer.cancel()
        if self.listening.everything:
            self.note(fact)
        self.note_status()
        self._go_on()

    # --- deadlines ------------------------------------------------------------------------------------------------

    def plan_all(self) -> None:
        """See `Timed.plan_all`; the deadlines of inputs, too."""
        super().plan_all()
        self.plan_inputs()

    def plan_inputs(self) -> None:
        """Have open inputs closed when it is time. The caller holds the lock."""
        for index, due in self.record.inputs.items():
            if due is not None and _timer_of(index) not in self.timers:
                try:
                    self.timers[_timer_of(index)] = self.engine.timers.at(due, partial(self._input_due, index))
                except RuntimeError as error:
                    self.fail(error)

    def _input_due(self, index: int) -> None:
        """Close an input whose deadline has come; while the job is paused or held, when it goes on."""
        with self.lock:
            self.timers.pop(_timer_of(index), None)
            goes_on = self.record.status in (JobStatus.RUNNING, JobStatus.WAITING) and not self.record.holds
        if goes_on:
            self.close_due(self.record.plan.slots[index])

    def close_due(self, slot: SlotPlan) -> None:
        """Close an input because its deadline has come. The thread of the timers calls it."""
        self.close_input(slot)


def _timer_of(slot: int) -> int:
    """Return the key of an input's timer among those of deliveries, which are positive."""
    return -1 - slot
