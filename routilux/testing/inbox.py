"""Tests of the inbox."""

from __future__ import annotations

from ..errors import StoreError
from .parts import StoreTests, begin, refused


class InboxTests(StoreTests):
    """Tests of send, receive and discard."""

    def test_j9_messages_are_received_in_the_order_in_which_they_were_sent(self) -> None:
        with self.opened_inbox() as (store, inbox):
            begin(store, "a")
            begin(store, "b")
            assert inbox.receive(0) == []
            inbox.send([("b", b"1"), ("a", b"2")])
            inbox.send([("b", b"")])
            messages = inbox.receive(0)
            assert [message[1:] for message in messages] == [("b", b"1"), ("a", b"2"), ("b", b"")]
            numbers = [message.number for message in messages]
            assert numbers[0] > 0
            assert numbers == sorted(set(numbers))

    def test_j9_messages_are_received_from_a_number_on(self) -> None:
        with self.opened_inbox() as (store, inbox):
            begin(store)
            inbox.send([("job", b"1"), ("job", b"2"), ("job", b"3")])
            first, second, third = inbox.receive(0)
            assert inbox.receive(first.number) == [second, third]
            assert inbox.receive(third.number) == []
            inbox.send([("job", b"4")])
            assert [message.body for message in inbox.receive(third.number)] == [b"4"]

    def test_j9_a_message_stays_until_it_is_discarded(self) -> None:
        with self.opened_inbox() as (store, inbox):
            begin(store)
            inbox.send([("job", b"1"), ("job", b"2"), ("job", b"3")])
            first, second, third = inbox.receive(0)
            assert inbox.receive(0) == [first, second, third]
            inbox.discard([second.number])
            assert inbox.receive(0) == [first, third]
            inbox.discard([second.number, third.number + 100])
            inbox.discard([])
            inbox.discard([first.number, third.number])
            assert inbox.receive(0) == []

    def test_j9_numbers_grow_even_after_all_messages_were_discarded(self) -> None:
        with self.opened_inbox() as (store, inbox):
            begin(store)
            inbox.send([("job", b"1"), ("job", b"2")])
            last = inbox.receive(0)[-1].number
            inbox.discard([message.number for message in inbox.receive(0)])
            inbox.send([("job", b"3")])
            assert inbox.receive(0)[0].number > last

    def test_j9_messages_to_no_job_are_refused_and_none_of_them_kept(self) -> None:
        with self.opened_inbox() as (store, inbox):
            begin(store)
            inbox.send([])
            error = refused(StoreError, inbox.send, [("job", b"1"), ("nowhere", b"2"), ("job", b"3")])
            assert "nowhere" in str(error)
            assert inbox.receive(0) == []

    def test_j9_anybody_sends_and_nothing_else_changes(self) -> None:
        with self.opened_inbox() as (store, inbox):
            head = begin(store, owner="me", epoch=3)
            inbox.send([("job", b"1")])
            assert store.heads() == [head]
            assert store.read("job") == (0, None, [b"begun"])

    def test_j9_messages_go_with_their_jobs(self) -> None:
        with self.opened_inbox() as (store, inbox):
            begin(store, "old", status="completed")
            begin(store, "new")
            inbox.send([("old", b"1"), ("new", b"2"), ("old", b"3")])
            store.prune(["completed"], 1000.0)
            assert [message.body for message in inbox.receive(0)] == [b"2"]
            refused(StoreError, inbox.send, [("old", b"4")])
