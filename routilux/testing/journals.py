"""Tests of journals: numbers, refusals, snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import StaleWriterError, StoreError
from ..store.base import FactStore, fits
from .parts import StoreTests, begin, head_in, head_of, refused


class _Torn(Sequence[bytes]):
    """Entries of which the third cannot be had."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, place: Any) -> Any:
        if place == 2:
            raise RuntimeError("torn")
        return b"torn"


class JournalTests(StoreTests):
    """Tests of append, read and put_snapshot."""

    def test_a_store_has_the_methods_of_one(self) -> None:
        with self.opened() as store:
            assert fits(store, FactStore)

    def test_entries_are_read_in_the_order_in_which_they_were_appended(self) -> None:
        with self.opened() as store:
            begin(store, "job", b"1", b"2")
            store.append("job", 2, [b"3"], 0)
            store.append("job", 3, (b"4", b"5"), 0)
            assert store.read("job") == (0, None, [b"1", b"2", b"3", b"4", b"5"])

    def test_entries_may_be_any_bytes(self) -> None:
        entries = [b"", b"\0", bytes(range(256)), b"'; DROP TABLE jobs; --", b"long" * 250_000]
        with self.opened() as store:
            begin(store, "job", *entries)
            for after, entry in enumerate(entries, len(entries)):
                store.append("job", after, [entry], 0)
            assert store.read("job") == (0, None, entries * 2)

    def test_ids_may_be_any_text(self) -> None:
        with self.opened() as store:
            ids = ["", "job", "Job", "job ", "a'b\"c", "h\u00e9\u4e2d\U0001f600", "%", "x" * 500]
            for job_id in ids:
                begin(store, job_id, job_id.encode())
                store.append(job_id, 1, [b"2"], 0)
            assert [store.read(job_id)[2] for job_id in ids] == [[job_id.encode(), b"2"] for job_id in ids]
            assert [head.job_id for head in store.heads()] == sorted(ids)

    def test_jobs_do_not_mix(self) -> None:
        with self.opened() as store:
            for place in range(3):
                for job_id in "abc":
                    if place == 0:
                        begin(store, job_id, job_id.encode())
                    else:
                        store.append(job_id, place, [job_id.encode()], 0)
            assert [store.read(job_id) for job_id in "abc"] == [
                (0, None, [letter] * 3) for letter in (b"a", b"b", b"c")
            ]

    def test_what_was_read_is_the_readers(self) -> None:
        with self.opened() as store:
            begin(store)
            store.read("job")[2].append(b"mine")
            assert store.read("job")[2] == [b"begun"]

    def test_a_job_begins_with_its_head_and_an_entry(self) -> None:
        with self.opened() as store:
            refused(StoreError, store.append, "job", 0, [b"1"], 0)
            refused(StoreError, store.append, "job", 0, [], 0, head_of("job"))
            refused(StoreError, store.append, "job", 0, [b"1"], 0, head_of("other"))
            assert store.heads() == []
            head = begin(store, owner="me", epoch=3, deaths=2)
            assert store.heads() == [head]
            store.append("job", 1, [b"2"], 3)

    def test_a_job_begins_only_once(self) -> None:
        with self.opened() as store:
            begin(store)
            refused(StaleWriterError, store.append, "job", 0, [b"again"], 0, head_of("job", status="other"))
            refused(StaleWriterError, store.append, "job", 0, [b"again"], 0)
            assert store.read("job")[2] == [b"begun"]
            assert head_in(store).status == "running"

    def test_j7_a_writer_with_another_epoch_is_refused(self) -> None:
        with self.opened() as store:
            begin(store, epoch=5)
            for epoch in (0, 4, 6):
                refused(StaleWriterError, store.append, "job", 1, [b"late"], epoch)
                refused(StaleWriterError, store.append, "job", 1, [b"late", b"later"], epoch)
                refused(StaleWriterError, store.append, "job", 1, [b"late"], epoch, head_of("job", status="other"))
                refused(StaleWriterError, store.append, "job", 1, [], epoch)
                refused(StaleWriterError, store.put_snapshot, "job", 1, b"late", epoch)
            refused(StaleWriterError, store.append, "new", 0, [b"1"], 0, head_of("new", epoch=1))
            assert store.read("job") == (0, None, [b"begun"])
            assert store.heads() == [head_of("job", epoch=5)]

    def test_j7_a_writer_with_another_last_entry_is_refused(self) -> None:
        with self.opened() as store:
            begin(store, "job", b"1", b"2")
            for after in (0, 1, 3, 100, -1):
                refused(StaleWriterError, store.append, "job", after, [b"late"], 0)
                refused(StaleWriterError, store.append, "job", after, [b"late", b"later"], 0)
                refused(StaleWriterError, store.append, "job", after, [b"late"], 0, head_of("job", status="other"))
            store.put_snapshot("job", 2, b"snapshot", 0)
            for after in (0, 1, 3):
                refused(StaleWriterError, store.append, "job", after, [b"late"], 0)
            assert store.read("job") == (2, b"snapshot", [])
            assert head_in(store).status == "running"

    def test_a_writer_to_no_job_is_refused(self) -> None:
        with self.opened() as store:
            refused(StaleWriterError, store.append, "job", 1, [b"2"], 0)
            refused(StaleWriterError, store.append, "job", 1, [b"2", b"3"], 0, head_of("job"))
            refused(StaleWriterError, store.put_snapshot, "job", 1, b"snapshot", 0)
            assert store.heads() == []

    def test_an_append_that_fails_in_the_middle_leaves_nothing(self) -> None:
        with self.opened() as store:
            begin(store)
            refused(RuntimeError, store.append, "job", 1, _Torn(), 0, head_of("job", status="other"))
            refused(RuntimeError, store.append, "new", 0, _Torn(), 0, head_of("new"))
            assert store.read("job") == (0, None, [b"begun"])
            assert store.heads() == [head_of("job")]
            store.append("job", 1, [b"2"], 0)

    def test_a_head_changes_but_for_owner_epoch_and_deaths(self) -> None:
        with self.opened() as store:
            begin(store, owner="me", epoch=3, deaths=1)
            changed = head_of("job", flow_id="other", status="waiting", created=1.5, updated=2.5)
            store.append("job", 1, [b"2"], 3, changed._replace(owner="you", epoch=9, deaths=9))
            assert head_in(store) == changed._replace(owner="me", epoch=3, deaths=1)
            refused(StoreError, store.append, "job", 2, [b"3"], 3, head_of("other"))
            assert store.read("job")[2] == [b"begun", b"2"]

    def test_a_head_changes_without_entries(self) -> None:
        with self.opened() as store:
            begin(store)
            store.append("job", 1, [], 0, head_of("job", status="paused"))
            assert head_in(store).status == "paused"
            assert store.read("job") == (0, None, [b"begun"])
            store.append("job", 1, [], 0)
            store.append("job", 1, [b"2"], 0)

    def test_a_snapshot_stands_for_the_entries_up_to_its_number(self) -> None:
        with self.opened() as store:
            begin(store, "job", b"1", b"2", b"3")
            store.put_snapshot("job", 2, b"two", 0)
            assert store.read("job") == (2, b"two", [b"3"])
            store.append("job", 3, [b"4"], 0)
            store.put_snapshot("job", 4, b"", 0)
            assert store.read("job") == (4, b"", [])
            store.append("job", 4, [b"5", b"6"], 0)
            store.put_snapshot("job", 4, b"four", 0)
            assert store.read("job") == (4, b"four", [b"5", b"6"])

    def test_a_snapshot_stands_for_entries_that_there_are(self) -> None:
        with self.opened() as store:
            begin(store, "job", b"1", b"2", b"3")
            refused(StoreError, store.put_snapshot, "job", 4, b"snapshot", 0)
            refused(StoreError, store.put_snapshot, "job", 0, b"snapshot", 0)
            store.put_snapshot("job", 2, b"two", 0)
            refused(StoreError, store.put_snapshot, "job", 1, b"one", 0)
            assert store.read("job") == (2, b"two", [b"3"])

    def test_no_job_cannot_be_read(self) -> None:
        with self.opened() as store:
            error = refused(StoreError, store.read, "nowhere")
            assert not isinstance(error, StaleWriterError)
            assert "nowhere" in str(error)
