"""What a job's record looks like to the people who read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.copying import copy_payload
from ..core.history import Entry, Totals
from ..core.job_record import JobRecord
from ..core.records import ErrorRecord, Logged, Sent
from ..errors import ExecutionError
from .clock import utc


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """One activation that ended: one handler run for one delivery, all its attempts together.

    ``event_name`` and ``data`` are those of the last event that it emitted; when it emitted none, they are its slot
    and the payload that arrived there. ``timestamp`` is when its first attempt started, in UTC; ``duration`` the
    seconds that its handler ran in all attempts together. ``status`` is completed, failed, skipped or cancelled;
    ``emitted`` counts its emissions.
    """

    routine_id: str
    slot: str
    event_name: str
    data: dict[str, Any]
    timestamp: datetime
    duration: float
    status: str
    error: ErrorRecord | None
    attempt: int
    emitted: int


@dataclass(frozen=True, slots=True)
class Output:
    """Something that a handler sent out of the flow with ``send_output``."""

    job_id: str
    routine_id: str
    output_type: str
    data: dict[str, Any]
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class OpenInput:
    """An external slot that a job waits for. ``deadline`` is when it closes by itself, in UTC, if it does."""

    routine_id: str
    slot: str
    deadline: datetime | None

    def __str__(self) -> str:
        until = "" if self.deadline is None else f" until {self.deadline:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.routine_id}.{self.slot}{until}"


@dataclass(frozen=True, slots=True)
class Performance:
    """Timings of one routine, in seconds, over all its activations that ended, those dropped from the history too.

    ``p50`` and ``p99`` are quantiles of the duration, ``wait_p50`` and ``wait_p99`` of the time that deliveries
    waited in the mailbox; these four come from a histogram and are within 5 %, the others are exact. Durations are
    wall-clock time, so with several workers they include waiting for the interpreter lock.
    """

    count: int
    errors: int
    emitted: int
    total: float
    mean: float
    min: float
    max: float
    p50: float
    p99: float
    wait_p50: float
    wait_p99: float


def open_inputs(record: JobRecord) -> list[OpenInput]:
    """Return the external slots of a job that are open."""
    slots, epoch = record.plan.slots, record.epoch
    return [
        OpenInput(slots[index].routine_id, slots[index].name, None if due is None else utc(due + epoch))
        for index, due in record.inputs.items()
    ]


def execution_records(entries: Iterable[tuple[Any, ...]], epoch: int) -> list[ExecutionRecord]:
    """Return history entries as records, by start time; ``epoch`` turns their times into UTC."""
    found = []
    for entry in sorted(entries, key=lambda entry: entry[4]):
        routine_id, slot, event, data, started, duration, _, status, error, attempt, emitted = Entry(*entry)
        when = utc(started + epoch)
        record = ExecutionRecord(
            routine_id, slot, event, copy_payload(data), when, duration / 1e9, status, error, attempt, emitted
        )
        found.append(record)
    return found


def output(sent: Sent, job_id: str, epoch: int) -> Output:
    """Return what was sent, for reading."""
    return Output(job_id, sent.routine_id, sent.output_type, copy_payload(sent.data), utc(sent.at + epoch))


def log_entry(logged: Logged, epoch: int) -> dict[str, Any]:
    """Return an entry of the shared log, for reading: with a ``timestamp`` after its own keys unless it has one."""
    entry = copy_payload(logged.entry)
    entry.setdefault("timestamp", utc(logged.at + epoch).isoformat())
    return entry


def performance(totals: Totals) -> Performance:
    """Return totals in seconds, with quantiles. A quantile never leaves the range from least to most."""

    def within(value: int) -> float:
        return min(max(value, totals.least), totals.most) / 1e9

    return Performance(
        count=totals.count,
        errors=totals.errors,
        emitted=totals.emitted,
        total=totals.total / 1e9,
        mean=totals.total / totals.count / 1e9 if totals.count else 0.0,
        min=totals.least / 1e9,
        max=totals.most / 1e9,
        p50=within(totals.durations.quantile(0.5)),
        p99=within(totals.durations.quantile(0.99)),
        wait_p50=totals.waits.quantile(0.5) / 1e9,
        wait_p99=totals.waits.quantile(0.99) / 1e9,
    )


def recorded_failure(record: JobRecord) -> ExecutionError:
    """Return an error that tells what failed a job, of which only the record is left."""
    where = f"flow {record.plan.flow_id!r}: job {record.job_id!r} failed before it was loaded"
    failure = record.failure
    return ExecutionError(where if failure is None else f"{where}: {failure}\n\n{failure.traceback}")


def spell(seconds: float) -> str:
    """Return a duration as people write it: ``340 us``, ``1.2 ms``, ``3.4 s``, ``2 min 5 s``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def head(record: JobRecord, now: int, failure: ErrorRecord | None, pending: int, inputs: list[OpenInput]) -> list[str]:
    """Return the lines that tell what a job is, when it ran, what has failed it, and what it has still to do."""
    lines = [f"job {record.job_id} of flow {record.plan.flow_id}: {record.status}"]
    if record.started is not None:
        taken = spell(((record.finished or now) - record.started) / 1e9)
        since = f"{utc(record.started + record.epoch):%Y-%m-%d %H:%M:%S} UTC"
        lines.append(f"started {since}, " + (f"took {taken}" if record.finished else f"for {taken} now"))
    if record.reason:
        lines.append(f"reason: {record.reason}")
    if failure is not None:
        lines.append(f"failed by: {failure}")
    if pending:
        lines.append(f"pending deliveries: {pending:,}")
    if inputs:
        lines.append(f"open inputs: {', '.join(map(str, inputs))}")
    return lines


def summary(head: Iterable[str], timings: Mapping[str, Performance], title: str, errors: list[ErrorRecord]) -> str:
    """Return a text for people: the given first lines, a table of the routines, and a list of errors with its title."""
    columns = ("routine", "count", "errors", "total", "mean", "p50", "p99", "max")
    rows = [
        (
            name,
            f"{each.count:,}",
            f"{each.errors:,}",
            *map(spell, (each.total, each.mean, each.p50, each.p99, each.max)),
        )
        for name, each in timings.items()
    ]
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    lines = list(head)
    for row in (columns, *rows) if rows else ():
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells))
    if errors:
        lines.append(f"{title}: {len(errors):,}")
        lines += [f"  {error}" for error in errors[:10]]
        if len(errors) > 10:
            lines.append(f"  and {len(errors) - 10:,} more")
    return "\n".join(lines)
