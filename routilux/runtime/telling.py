"""Who is told what happens in a job. What is dear to import is imported when somebody is there to be told."""

from __future__ import annotations

import sys

from ..core.listening import listening
from ..core.records import Sent
from .audience import Notice


def tell(notice: Notice) -> None:
    """Tell those who stream the job, output handlers, receivers of signals and the log."""
    if notice.job.tape is not None:
        notice.job.tape.append(notice)
    if isinstance(notice.fact, Sent):
        for handler in notice.job.flow.output_handlers:
            handler(notice.job, notice.fact)
    if listening.everything:
        from .announcing import announce

        announce(notice)
    if "logging" in sys.modules:
        from .logs import log

        log(notice)
