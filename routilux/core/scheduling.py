"""Which mailboxes take turns next. This is scheduling within a process: none of it is a fact of the job."""

from __future__ import annotations

from .job_record import JobRecord
from .status import JobStatus


def list_waiting(record: JobRecord) -> None:
    """List every mailbox in which something waits, as often as it may be handled at a time."""
    for mailbox in record.mailboxes:
        listed = sum(each is mailbox for each in mailbox.listing)
        while listed < len(mailbox.queue) + len(mailbox.resumed) and mailbox.tickets < mailbox.limit:
            mailbox.tickets += 1
            listed += 1
            mailbox.listing.append(mailbox)


def hold(record: JobRecord, holds: int) -> None:
    """Note how many hold the job now: above 0, no handler starts; at 0, they do again if the job runs."""
    record.holds = holds
    record.open = not holds and record.status is JobStatus.RUNNING
    if record.open:
        list_waiting(record)
