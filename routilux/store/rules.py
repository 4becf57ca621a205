"""What all stores do alike: what they refuse, in which words, and how deaths are counted."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import StaleWriterError, StoreError
from .base import JobHead


def closed(store: str) -> StoreError:
    """Return the error of a store that was closed; ``store`` names it."""
    return StoreError(f"{store}: it was closed; open it again with open_store()")


def no_such_job(store: str, job_id: str) -> StoreError:
    """Return the error of a job that a store does not have."""
    return StoreError(f"{store}: there is no job {job_id!r}; it was never made, or pruned, or is in another store")


def missing_entries(store: str, job_id: str, expected: int) -> StoreError:
    """Return the error of a journal in which an entry, or the snapshot that stands for it, is missing."""
    return StoreError(
        f"{store}: the journal of job {job_id!r} lacks entry {expected}; the store is damaged, restore it from a copy"
    )


def stale_snapshot(store: str, job_id: str, number: int, base: int, last: int) -> StoreError:
    """Return the error of a snapshot for entries that are not there."""
    return StoreError(
        f"{store}: a snapshot of job {job_id!r} cannot stand for its entries up to {number}; "
        f"its snapshot stands for {base}, its last entry is {last}"
    )


def stale_writer(store: str, job_id: str, believed: str, found: str) -> StaleWriterError:
    """Return the error of a writer that does not know what has become of a job."""
    return StaleWriterError(
        f"{store}: job {job_id!r} is not as this process believes: it goes by {believed}, and there is {found}; "
        "another process has taken the job over (its lease ran out?): drop what is here of it, and claim it anew"
    )


def check_beginning(store: str, job_id: str, entries: Sequence[bytes], epoch: int, head: JobHead | None) -> JobHead:
    """Return the head with which a job may begin, or raise."""
    if head is None or not entries:
        lacking = "a head" if head is None else "an entry"
        raise StoreError(f"{store}: job {job_id!r} cannot begin without {lacking}; give both with after=0")
    check_head(store, job_id, head)
    if head.epoch != epoch:
        raise stale_writer(store, job_id, f"epoch {epoch}", f"epoch {head.epoch} in the head that it would begin with")
    return head


def check_head(store: str, job_id: str, head: JobHead) -> None:
    """Refuse the head of another job."""
    if head.job_id != job_id:
        raise StoreError(f"{store}: job {job_id!r} was given the head of job {head.job_id!r}")


def deaths_when_claimed(head: JobHead, has_entries: bool) -> int:
    """Return how many deaths a free job counts when it is claimed.

    ``head`` is its head until now, ``has_entries`` whether entries came since it was last claimed. A job that still has
    an owner was lost, one without was let go. One of which no handler runs has not killed its owner.
    """
    if has_entries:
        return 0
    lost = head.owner is not None and head.status not in ("waiting", "paused")
    return head.deaths + lost
