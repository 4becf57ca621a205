"""What happens in jobs, announced by signals."""

from __future__ import annotations

from .. import signals
from .audience import Notice
from .job_state import JobState
from .kinds import fields_of, kinds_of
from .logs import log_failure


def announce(notice: Notice) -> None:
    """Send the signals for one notice."""
    flow = notice.job.flow
    for kind in kinds_of(notice):
        signal: signals.JobSignal = getattr(signals, kind)
        if not signal.receivers:
            continue
        fields = None
        for receiver in signal.receivers_for(flow):
            if fields is None:
                fields = fields_of(kind, notice)
            try:
                receiver(flow, job_state=JobState(notice.job), **fields)
            except Exception:
                log_failure(f"flow {flow.flow_id!r}: receiver {receiver!r} of a signal")
