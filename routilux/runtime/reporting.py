"""The part of a job's handle that reports how the job went: its history, timings, and a summary."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import starmap
from typing import Any, overload

from ..core.history import Totals, add_up, with_data
from ..core.job_record import JobRecord
from ..core.status import JobStatus
from ..errors import ExecutionError, known_names
from . import reports
from .job import Job
from .reports import ExecutionRecord, Performance


class Reporting:
    """The part of `JobState` that reports how the job went."""

    __slots__ = ()
    _job: Job
    _record: JobRecord

    def get_execution_history(self, routine_id: str | None = None) -> list[ExecutionRecord]:
        """Return the activations that have ended, by start time; those of one routine when it is named.

        With a ``history_limit``, the latest that fit it; `performance` counts them all.

        Raises:
            ExecutionError: when the flow has no such routine.
        """
        if routine_id is not None:
            self._check_routine(routine_id)
        with self._job.lock:
            entries, data = self._record.history.latest()
        pairs: Iterable[tuple[Any, Any]] = zip(entries, data, strict=True)
        if routine_id is not None:
            pairs = (pair for pair in pairs if pair[0][0] == routine_id)
        return reports.execution_records(starmap(with_data, pairs), self._record.epoch)

    @overload
    def performance(self) -> dict[str, Performance]: ...

    @overload
    def performance(self, routine_id: str) -> Performance: ...

    def performance(self, routine_id: str | None = None) -> dict[str, Performance] | Performance:
        """Return the timings of one routine, or of each that has run, by routine id.

        Raises:
            ExecutionError: when the flow has no such routine.
        """
        if routine_id is not None:
            self._check_routine(routine_id)
        history = self._record.history
        with self._job.lock:
            totals, entries, ever = history.uncounted()
        add_up(totals, entries)  # which may take a while, in which handlers go on
        found: dict[str, Performance] | Performance
        if routine_id is not None:
            found = reports.performance(totals.get(routine_id, Totals()))
        else:
            names = dict.fromkeys((*self._record.plan.nodes, *totals))  # the flow may have had others
            found = {name: reports.performance(totals[name]) for name in names if name in totals}
        with self._job.lock:
            history.adopt(totals, ever)
        return found

    def summary(self) -> str:
        """Return a text that tells a person how the job went: status, times, counts and timings, errors."""
        record = self._record
        with self._job.lock:
            errors, failure, pending = record.errors[:], record.failure, record.outstanding
            inputs = [] if record.status.ended else reports.open_inputs(record)
        head = reports.head(record, self._job.now(), failure, pending, inputs)
        others = [error for error in errors if error is not failure]
        which = ", which the job survived" if record.status is JobStatus.COMPLETED else ""
        title = f"errors{which}" if failure is None else "other errors"
        return reports.summary(head, self.performance(), title, others)

    def _check_routine(self, routine_id: object) -> None:
        nodes = self._record.plan.nodes
        if not isinstance(routine_id, str) or routine_id not in nodes:
            hint = known_names(routine_id, nodes, "routines")
            raise ExecutionError(f"flow {self._record.plan.flow_id!r} has no routine {routine_id!r}{hint}")
