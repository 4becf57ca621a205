"""What those who stream a job are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.records import ErrorRecord
from ..routine.binding import shortened
from .reports import Output


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened in a job, as a `Stream` gives it; ``str()`` of it is a line for people.

    ``cursor`` is its number among the facts of the job that are told, from 0. ``kind`` is the name of the signal that
    tells the same, such as ``"event_emitted"``, and ``fields`` are what receivers of that signal get, by name. ``at``
    is when it was committed, in UTC.
    """

    cursor: int
    kind: str
    job_id: str
    at: datetime
    fields: Mapping[str, Any]

    @property
    def routine_id(self) -> str | None:
        """The routine that it is about; None for a fact about the job as a whole."""
        about = self.fields.get("record") or self.fields.get("output")
        found: str | None = self.fields.get("routine_id") if about is None else about.routine_id
        return found

    @property
    def output(self) -> Output | None:
        """The output of an ``"output_sent"``; None for other kinds."""
        return self.fields.get("output")

    def __str__(self) -> str:
        spelled = _SPELLED.get(self.kind)
        words = [str(self.cursor), self.kind, *([] if spelled is None else spelled(self.fields))]
        return " ".join(filter(None, words))


@dataclass(frozen=True, slots=True)
class Lagged:
    """What a `Stream` gives in place of facts that it does not have any more: ``missed`` tells how many."""

    missed: int

    def __str__(self) -> str:
        return f"{self.missed:,} facts were missed"


def _slot(fields: Mapping[str, Any]) -> str:
    return f"{fields['routine_id']}.{fields['slot']}"


def _attempt(fields: Mapping[str, Any]) -> str:
    return f"attempt {fields['attempt']}" if fields["attempt"] > 1 else ""


def _error(error: ErrorRecord) -> str:
    return f"{error.type}: {error.message}"


# What follows the kind, in words; those that are empty are left out.
_SPELLED: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "job_paused": lambda fields: [fields["reason"]],
    "job_resumed": lambda fields: ["was", fields["was"]],
    "job_completed": lambda fields: [] if fields["result"] is None else [shortened(fields["result"])],
    "job_failed": lambda fields: [] if fields["error"] is None else [str(fields["error"])],
    "job_cancelled": lambda fields: [fields["reason"]],
    "activation_started": lambda fields: [_slot(fields), _attempt(fields)],
    "activation_retried": lambda fields: [_slot(fields), _attempt(fields), _error(fields["error"])],
    "activation_failed": lambda fields: [_slot(fields), _attempt(fields), _error(fields["error"])],
    "activation_ended": lambda fields: [
        f"{fields['record'].routine_id}.{fields['record'].slot}",
        fields["record"].status,
    ],
    "event_emitted": lambda fields: [f"{fields['routine_id']}.{fields['event_name']}", shortened(fields["data"])],
    "state_changed": lambda fields: [
        fields["routine_id"] or "",
        shortened(fields["values"]),
        f"without {', '.join(fields['removed'])}" if fields["removed"] else "",
    ],
    "log_appended": lambda fields: [shortened(fields["entry"])],
    "input_received": lambda fields: [_slot(fields), shortened(fields["data"])],
    "input_closed": lambda fields: [_slot(fields)],
    "output_sent": lambda fields: [
        fields["output"].routine_id,
        fields["output"].output_type,
        shortened(fields["output"].data),
    ],
}
