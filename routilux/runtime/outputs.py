"""Who gets what handlers send out of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..core.records import Sent
from ..errors import DeclarationError
from . import reports
from .reports import Output


class OutputQueue(Protocol):
    """What `Flow.add_output_handler` can put outputs into: a ``queue.Queue``, or whatever else has its ``put``."""

    def put(self, item: Output, /) -> Any:
        """Take in an output."""


OutputHandler = Callable[[Any, Sent], None]  # gets the job, and what was sent


def output_handler(given: Callable[[Output], Any] | OutputQueue, where: str) -> OutputHandler:
    """Return what gives outputs to a callable, or puts them into a queue.

    Raises DeclarationError for anything that is neither.
    """
    put = getattr(given, "put", None)
    receive = put if callable(put) else given
    if not callable(receive):
        raise DeclarationError(f"{where}: an output handler must be callable, or a queue with put(), not {given!r}")

    def handle(job: Any, sent: Sent) -> None:
        record = job.record
        try:
            receive(reports.output(sent, record.job_id, record.epoch))
        except Exception:
            from .logs import log_failure

            log_failure(f"flow {job.plan.flow_id!r}: output handler {given!r}")

    return handle
