"""Tests of many threads at the same store."""

from __future__ import annotations

from functools import partial

from ..errors import StaleWriterError
from ..store.base import FactStore
from .parts import StoreTests, at_once, begin, succeeded

THREADS = 8


def write_entries(store: FactStore, job_id: str, count: int) -> None:
    """Append entries to a job, one and two at a time."""
    after = 1
    while after < count:
        entries = [b"%d" % number for number in range(after + 1, after + 2 + after % 2)]
        store.append(job_id, after, entries, 0)
        after += len(entries)


def race(store: FactStore, name: int, count: int) -> list[int]:
    """Append entries to the job that others append to; return the numbers of those that were not refused."""
    won = []
    for after in range(1, count):
        try:
            store.append("job", after, [b"%d" % name], 0)
        except StaleWriterError:
            continue
        won.append(after + 1)
    return won


class CrowdTests(StoreTests):
    """Tests of threads that use a store at the same time."""

    def test_many_threads_append_to_many_jobs(self) -> None:
        with self.opened() as store:
            jobs = [f"job{number}" for number in range(THREADS)]
            for job_id in jobs:
                begin(store, job_id, b"1")
            succeeded(at_once(*(partial(write_entries, store, job_id, 40) for job_id in jobs)))
            for job_id in jobs:
                number, snapshot, entries = store.read(job_id)
                assert (number, snapshot) == (0, None)
                assert entries == [b"%d" % place for place in range(1, len(entries) + 1)]
                assert len(entries) >= 40

    def test_many_threads_begin_jobs(self) -> None:
        with self.opened() as store:
            succeeded(at_once(*(partial(begin, store, f"job{number}") for number in range(THREADS))))
            assert len(store.heads()) == THREADS

    def test_j7_of_many_threads_that_begin_a_job_one_does(self) -> None:
        with self.opened() as store:
            results = at_once(*(partial(begin, store, "job", b"%d" % name) for name in range(THREADS)))
            winners = [name for name, result in enumerate(results) if not isinstance(result, Exception)]
            assert [type(result) for result in results].count(StaleWriterError) == THREADS - 1
            assert store.read("job")[2] == [b"%d" % winners[0]]

    def test_j7_of_many_threads_that_append_to_a_job_one_wins_each_number(self) -> None:
        with self.opened() as store:
            begin(store)
            won = succeeded(at_once(*(partial(race, store, name, 40) for name in range(THREADS))))
            winner = {number: name for name, numbers in enumerate(won) for number in numbers}
            assert sorted(winner) == sorted(number for numbers in won for number in numbers)
            assert sorted(winner) == list(range(2, len(winner) + 2))
            assert store.read("job")[2][1:] == [b"%d" % winner[number] for number in sorted(winner)]

    def test_j7_two_owners_who_claim_the_same_jobs_get_different_ones(self) -> None:
        jobs = [f"job{number:03}" for number in range(200)]
        with self.opened() as store:
            for job_id in jobs:
                begin(store, job_id)

            def claim_all(owner: str) -> list[str]:
                got = []
                for start in range(0, len(jobs), 10):
                    claimed = store.claim(owner, 1000.0, 0.0, jobs[start : start + 10] + jobs[:10])
                    got += [each.head.job_id for each in claimed]
                return got

            first, second = succeeded(at_once(partial(claim_all, "first"), partial(claim_all, "second")))
            assert sorted(first + second) == jobs
            owners = {head.job_id: head.owner for head in store.heads()}
            assert owners == {job_id: "first" if job_id in set(first) else "second" for job_id in jobs}

    def test_j7_a_job_that_is_taken_over_takes_no_entry_of_its_former_owner_afterwards(self) -> None:
        with self.opened() as store:
            begin(store, owner="old")

            def take_over() -> int:
                (claimed,) = store.claim("new", 1000.0, 0.0, ["job"])
                return claimed.last

            def write_on() -> int:
                after = 1
                try:
                    while after < 1000:
                        store.append("job", after, [b"old"], 0)
                        after += 1
                except StaleWriterError:
                    pass
                return after

            last, written = succeeded(at_once(take_over, write_on))
            assert last == written == len(store.read("job")[2])

    def test_a_reader_sees_batches_whole(self) -> None:
        with self.opened() as store:
            begin(store, "job", b"1", b"2", b"3")

            def write() -> None:
                for after in range(3, 90, 3):
                    store.append("job", after, [b"1", b"2", b"3"], 0)
                    if after % 9 == 0:
                        store.put_snapshot("job", after, b"%d" % after, 0)

            def read() -> list[tuple[int, bytes | None, int]]:
                seen = []
                for _ in range(40):
                    number, snapshot, entries = store.read("job")
                    seen.append((number, snapshot, len(entries)))
                return seen

            for number, snapshot, count in succeeded(at_once(write, read, read))[1]:
                assert snapshot == (b"%d" % number if number else None)
                assert count % 3 == 0
            assert store.read("job") == (81, b"81", [b"1", b"2", b"3"] * 3)

    def test_j9_messages_of_many_senders_are_all_received_once(self) -> None:
        with self.opened_inbox() as (store, inbox):
            begin(store)

            def send(name: int) -> None:
                for number in range(10):
                    inbox.send([("job", b"%d %d" % (name, number))])

            succeeded(at_once(*(partial(send, name) for name in range(THREADS))))
            bodies = [message.body for message in inbox.receive(0)]
            assert len(bodies) == len(set(bodies)) == THREADS * 10
            for name in range(THREADS):
                mine = [body for body in bodies if body.startswith(b"%d " % name)]
                assert mine == [b"%d %d" % (name, number) for number in range(10)]
