"""A job that another process runs, or nobody yet, as somebody here sees it."""

from __future__ import annotations

import time
from typing import Any

from ..core.plan import SlotPlan
from ..core.records import Logged, Wrote
from ..core.status import JobStatus, check_change
from ..errors import ExecutionError
from ..store.values import Writer
from .job import Job

EVERY = 0.05  # seconds between two looks at the store


class ForeignJob(Job):
    """A job in the store that does not run here. What is asked of it is sent to the engine that serves it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.elsewhere = self._wait_elsewhere
        self.record.open = False

    @property
    def at_rest(self) -> bool:
        """Whether the job has ended, as far as is known here."""
        return self.record.status.ended

    def _wait_elsewhere(self, timeout: float | None) -> None:
        """Wait until the job has ended, for ``timeout`` seconds at the most."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.record.status.ended and not self.engine.keeping.refresh(self):
            left = EVERY if end is None else min(EVERY, end - time.monotonic())
            if left <= 0 or self.engine.closing.wait(left):
                return

    def _send(self, then: JobStatus, **what: Any) -> None:
        """Ask whoever runs the job for a change. Raises StatusError when it has ended and cannot change so."""
        if self.engine.keeping.refresh(self):
            check_change(f"flow {self.plan.flow_id!r}: job {self.record.job_id!r}", self.record.status, then)
        self.engine.keeping.tell(self.record.job_id, **what)

    def pause(self, reason: str) -> None:
        """Have whoever runs the job pause it."""
        live = self._here()
        if live is not None:
            live.pause(reason)
        else:
            self._send(JobStatus.PAUSED, do="pause", reason=reason)

    def resume(self) -> None:
        """Have whoever runs the job resume it."""
        self._send(JobStatus.RUNNING, do="resume")

    def cancel(self, reason: str) -> None:
        """Have whoever runs the job cancel it."""
        live = self._here()
        if live is not None:
            live.cancel(reason)
        else:
            self._send(JobStatus.CANCELLED, do="cancel", reason=reason)

    def cancel_unless_ended(self, reason: str) -> None:
        """Leave the job alone: it is another process's to cancel when that ends."""

    def _here(self) -> Any:
        """Return the job that runs here by now, after it was given what was sent to it before; None when none does."""
        live = self.engine.keeping.find(self.record.job_id)
        if live is not None:
            self.engine.keeping.attend(live)
        return live

    def receive(self, slot: SlotPlan, payload: dict[str, Any], isolate: bool, message: int = 0) -> None:
        """Have whoever runs the job take in a delivery."""
        keeping, live = self.engine.keeping, self._here()
        if live is not None:
            live.receive(slot, payload, isolate)
            return
        keeping.refresh(self)
        self.check_receiving(slot)
        form = self.encode(payload, f"what is sent to '{slot.routine_id}.{slot.name}'")
        keeping.tell(self.record.job_id, do="send", routine=slot.routine_id, slot=slot.name, form=form)

    def close_input(self, slot: SlotPlan, message: int = 0) -> None:
        """Have whoever runs the job close an input."""
        keeping, live = self.engine.keeping, self._here()
        if live is not None:
            live.close_input(slot)
        elif not keeping.refresh(self):
            keeping.tell(self.record.job_id, do="close_input", routine=slot.routine_id, slot=slot.name)

    def check_receiving(self, slot: SlotPlan, message: int = 0) -> None:
        """Raise StatusError when the job has ended; which inputs are open, whoever runs it knows."""
        if self.record.status.ended:
            super().check_receiving(slot)

    def expire(self, timeout: float) -> None:
        """Wait no longer; the job goes on."""

    def call(self) -> None:
        """Have nobody come: no handler of it runs here."""

    def encode(self, value: Any, what: str) -> Any:
        """Return the JSON form of a value, as the process that runs the job does."""
        return Writer(f"flow {self.plan.flow_id!r}: job {self.record.job_id!r}", self.flow.known_types, None).value(
            value, what
        )

    def write_outside(self, fact: Wrote | Logged) -> None:
        """Refuse a write: another process owns the job."""
        raise ExecutionError(
            f"flow {self.plan.flow_id!r}: job {self.record.job_id!r} does not run in this process and cannot be "
            f"written to here"
        )
