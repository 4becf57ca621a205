"""What the tests of stores have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier, Thread
from typing import Any, TypeVar
from unittest import SkipTest

from ..store.base import FactStore, Inbox, JobHead, fits

E = TypeVar("E", bound=Exception)
LONG = 60.0


class StoreTests:
    """Tests of a store; see StoreConformance."""

    def make_store(self) -> FactStore:
        """Return a new store with nothing in it."""
        raise NotImplementedError("implement make_store(): return a new store with nothing in it")

    def reopen(self, store: FactStore) -> FactStore | None:
        """Return another store on what is in this one, which was closed; None for stores that live in memory only."""
        return None

    @contextmanager
    def opened(self) -> Iterator[FactStore]:
        """Have a new store, which is closed at the end."""
        store = self.make_store()
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def opened_inbox(self) -> Iterator[tuple[FactStore, Inbox]]:
        """Have a new store that is an inbox, twice, or skip the test."""
        with self.opened() as store:
            if not fits(store, Inbox):
                raise SkipTest("this store has no inbox")
            inbox: Any = store
            yield store, inbox

    @contextmanager
    def reopened(self, store: FactStore) -> Iterator[FactStore]:
        """Close a store and have it anew, or skip the test."""
        store.close()
        again = self.reopen(store)
        if again is None:
            raise SkipTest("this store does not outlive its object")
        try:
            yield again
        finally:
            again.close()


def head_of(job_id: str, **others: Any) -> JobHead:
    """Return the head of a running job, but for what is given."""
    return JobHead(job_id, "flow", "running", 100.0, 100.0)._replace(**others)


def begin(store: FactStore, job_id: str = "job", *entries: bytes, **others: Any) -> JobHead:
    """Make a job with some entries, one unless given, and return its head."""
    head = head_of(job_id, **others)
    store.append(job_id, 0, entries or (b"begun",), head.epoch, head)
    return head


def head_in(store: FactStore, job_id: str = "job") -> JobHead:
    """Return the head of a job that is there."""
    (head,) = store.heads(job_id=job_id)
    return head


def refused(kind: type[E], call: Callable[..., object], *arguments: Any, **others: Any) -> E:
    """Call something that must raise a kind of error, which is returned."""
    try:
        call(*arguments, **others)
    except kind as error:
        return error
    raise AssertionError(f"{call!r} did not raise {kind.__name__}")


def at_once(*calls: Callable[[], object]) -> list[Any]:
    """Make calls at the same time, each in a thread of its own; return their results, or what they have raised."""
    barrier = Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(place: int, call: Callable[[], object]) -> None:
        barrier.wait(LONG)
        try:
            results[place] = call()
        except Exception as error:
            results[place] = error

    threads = [Thread(target=run, args=item, daemon=True) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive(), "a call does not return"
    return results


def succeeded(results: list[Any]) -> list[Any]:
    """Return results, none of which may be an error."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
