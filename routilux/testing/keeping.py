"""Tests of closing a store and of opening it again."""

from __future__ import annotations

from typing import Any

from ..errors import StaleWriterError, StoreError
from ..store.base import Inbox, fits
from .parts import StoreTests, begin, head_in, head_of, refused


class KeepingTests(StoreTests):
    """Tests of close, and of what is there afterwards."""

    def test_a_closed_store_says_so(self) -> None:
        with self.opened() as store:
            begin(store)
            store.close()
            store.close()
            for error in (
                refused(StoreError, store.append, "job", 1, [b"2"], 0),
                refused(StoreError, store.append, "job", 1, [b"2", b"3"], 0, head_of("job")),
                refused(StoreError, store.read, "job"),
                refused(StoreError, store.put_snapshot, "job", 1, b"snapshot", 0),
                refused(StoreError, store.heads),
                refused(StoreError, store.claim, "me", 1000.0, 0.0, ["job"]),
                refused(StoreError, store.let_go, "me"),
                refused(StoreError, store.prune, ["running"], 1000.0),
            ):
                assert not isinstance(error, StaleWriterError)
            if fits(store, Inbox):
                inbox: Any = store
                refused(StoreError, inbox.send, [("job", b"1")])
                refused(StoreError, inbox.receive, 0)
                refused(StoreError, inbox.discard, [1])

    def test_j1_journals_are_there_again(self) -> None:
        with self.opened() as store:
            begin(store, "a", b"1", b"2")
            begin(store, "b", b"1", b"2", b"3")
            store.put_snapshot("b", 2, b"two", 0)
            heads = store.heads()
            with self.reopened(store) as again:
                assert again.heads() == heads
                assert again.read("a") == (0, None, [b"1", b"2"])
                assert again.read("b") == (2, b"two", [b"3"])
                again.append("a", 2, [b"3"], 0)
                again.append("b", 3, [b"4"], 0)
                refused(StaleWriterError, again.append, "b", 3, [b"late"], 0)

    def test_j7_owners_leases_and_deaths_are_there_again(self) -> None:
        with self.opened() as store:
            begin(store)
            store.claim("a", 1000.0, 0.0, ["job"])
            store.claim("b", 1000.0, 0.0, ["job"], dead=["a"])
            with self.reopened(store) as again:
                assert head_in(again) == head_of("job", owner="b", epoch=2, deaths=1)
                assert again.claim("c", 3000.0, 500.0, ["job"]) == []
                refused(StaleWriterError, again.append, "job", 1, [b"late"], 1)
                (claimed,) = again.claim("c", 3000.0, 2000.0, ["job"])
                assert claimed == (head_of("job", owner="c", epoch=3, deaths=2), 1)

    def test_j9_messages_and_their_numbers_are_there_again(self) -> None:
        with self.opened_inbox() as (store, inbox):
            begin(store)
            inbox.send([("job", b"1"), ("job", b"2")])
            first, second = inbox.receive(0)
            inbox.discard([second.number])
            with self.reopened(store) as again:
                assert fits(again, Inbox)
                inbox_again: Any = again
                assert inbox_again.receive(0) == [first]
                inbox_again.send([("job", b"3")])
                assert inbox_again.receive(first.number)[0].number > second.number
