"""J1, J4: whatever happens to a journal is noticed, or leaves a part of it from its beginning."""

from __future__ import annotations

import pytest
from generated import examples
from hypothesis import given, strategies as st

from routilux import LoadError
from routilux.errors import StaleWriterError, StoreError
from routilux.store.base import JobHead
from routilux.store.journal import Journal, open_journal

HEAD = JobHead("job", "flow", "running", 1.0, 1.0)
LONG = [b'{"snapshot": 0}', b'{"kind": "flush", "delivery": 1}', b"1", b"22", b'{"kind": "end"}', b"22"]


class Kept:
    """A store of one process, as simple as can be."""

    def __init__(self):
        self.jobs = {}  # job id -> [number of the snapshot, snapshot, entries, epoch]
        self.broken = False

    def append(self, job_id, after, entries, epoch, head=None):
        if self.broken:
            raise StoreError("the disk is full")
        if after == 0 and job_id not in self.jobs:
            assert head is not None
            self.jobs[job_id] = [0, None, [], epoch]
        number, _, before, current = self.jobs[job_id]
        if (after, epoch) != (number + len(before), current):
            raise StaleWriterError(f"job {job_id!r} is another's")
        before += entries

    def read(self, job_id):
        number, snapshot, entries, _ = self.jobs[job_id]
        return number, snapshot, entries[:]

    def put_snapshot(self, job_id, number, snapshot, epoch):
        if self.broken:
            raise StoreError("the disk is full")
        job = self.jobs[job_id]
        del job[2][: number - job[0]]
        job[:2] = number, snapshot


def filled(bodies=LONG, snapshot_after=None, job_id="job"):
    store = Kept()
    journal = Journal(store, job_id, 3)
    for place, body in enumerate(bodies, 1):
        journal.append([body], HEAD if place == 1 else None)
        if place == snapshot_after:
            journal.put_snapshot(b"so far %d" % place)
    return store, journal


def opened(store, job_id="job"):
    journal, snapshot, bodies = open_journal(store, job_id, 3)
    return snapshot, bodies, journal


BODIES = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6)


@examples(100)
@given(BODIES, st.data())
def test_j1_a_journal_is_read_as_it_was_written_and_goes_on(bodies, data):
    after = data.draw(st.none() | st.integers(1, len(bodies)))
    store, journal = filled(bodies, after)
    snapshot, found, again = opened(store)
    assert snapshot == (bodies[0] if after is None else b"so far %d" % after)
    assert found == bodies[after or 1 :]
    assert (again.last, again.chain) == (journal.last, journal.chain)
    assert again.bytes_since_snapshot == journal.bytes_since_snapshot == sum(len(each) + 4 for each in found)
    again.append([b"more", b"and more"])
    assert opened(store)[1] == [*found, b"more", b"and more"]
    again.put_snapshot(b"all")
    assert again.bytes_since_snapshot == 0
    assert opened(store)[:2] == (b"all", [])


def prefixes(bodies, snapshot_after):
    """What may be read of a journal that has lost its end."""
    start = snapshot_after or 1
    first = bodies[0] if snapshot_after is None else b"so far %d" % snapshot_after
    return [(first, bodies[start:end]) for end in range(start, len(bodies) + 1)]


AFTER = pytest.mark.parametrize("after", [None, 1, 3, 6])


def check(store, after, *, whole=False):
    """A journal that was tampered with is refused by name, or is read up to some entry."""
    try:
        found = opened(store)[:2]
    except LoadError as error:
        refused = error
    else:
        assert not whole, "it is not read at all"
        assert found in prefixes(LONG, after)
        return
    assert str(refused).startswith("job 'job': ")
    assert "entr" in str(refused)


@AFTER
@examples(150)
@given(st.data())
def test_j1_any_flipped_byte_is_noticed(after, data):
    store, _ = filled(LONG, after)
    job = store.jobs["job"]
    places = ["snapshot"] * (after is not None) + [*range(len(job[2]))]
    place = data.draw(st.sampled_from(places))
    content = job[1] if place == "snapshot" else job[2][place]
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = content[at] ^ data.draw(st.integers(1, 255))
    damaged = content[:at] + bytes([flipped]) + content[at + 1 :]
    if place == "snapshot":
        job[1] = damaged
    else:
        job[2][place] = damaged
    what = "the snapshot of the entries up to" if place == "snapshot" else f"entry {(after or 0) + place + 1} of"
    with pytest.raises(LoadError, match=f"^job 'job': {what}"):
        opened(store)


@AFTER
@examples(100)
@given(st.data())
def test_j1_entries_that_are_missing_moved_repeated_or_cut_are_noticed_or_the_rest_is_a_prefix(after, data):
    store, _ = filled(LONG, after)
    job = store.jobs["job"]
    entries = job[2]
    changed = data.draw(st.permutations(entries) | st.lists(st.sampled_from(entries or [b""]), max_size=7))
    if data.draw(st.booleans()) and changed:
        place = data.draw(st.integers(0, len(changed) - 1))
        changed = [*changed]
        changed[place] = changed[place][: data.draw(st.integers(0, 8))]
    job[2] = [*changed]
    check(store, after)


@AFTER
def test_j1_an_entry_that_is_left_out_is_noticed(after):
    for place in range(len(LONG) - (after or 0) - 1):
        store, _ = filled(LONG, after)
        del store.jobs["job"][2][place]
        check(store, after, whole=True)


def test_j1_a_lost_end_leaves_what_was_written_before():
    store, _ = filled()
    del store.jobs["job"][2][3:]
    assert opened(store)[:2] == (LONG[0], LONG[1:3])


def test_j4_an_older_snapshot_and_later_entries_do_not_fit():
    old, _ = filled(LONG, 2)
    new, _ = filled(LONG, 4)
    for number in (2, 4):
        new.jobs["job"][:2] = number, old.jobs["job"][1]
        check(new, 4, whole=True)


def test_j1_the_entries_of_another_job_are_noticed():
    store, _ = filled(LONG, 2)
    other, _ = filled(LONG, 2, "other")
    store.jobs["job"][1] = other.jobs["other"][1]
    check(store, 2, whole=True)
    store, other = filled()[0], filled(job_id="other")[0]
    store.jobs["job"][2] = other.jobs["other"][2]
    check(store, None, whole=True)


@pytest.mark.parametrize(
    ("number", "message"), [(0, "entry 1 of the journal, with which the job began, is missing"), (2, "the snapshot")]
)
def test_j1_a_journal_without_its_beginning_is_refused(number, message):
    store = Kept()
    store.jobs["job"] = [number, None, [], 3]
    with pytest.raises(LoadError, match=f"^job 'job': {message}"):
        opened(store)


def test_j4_a_snapshot_may_stand_for_a_moment_that_is_over():
    store, journal = filled(LONG[:3])
    mark = journal.mark()
    journal.append([b"later"])
    journal.put_snapshot(b"up to three", mark)
    assert journal.bytes_since_snapshot == 4 + len(b"later")
    assert opened(store)[:2] == (b"up to three", [b"later"])


def test_j1_what_the_store_does_not_take_was_not_written():
    store, journal = filled()
    before = journal.mark(), journal.bytes_since_snapshot
    store.broken = True
    for write in (lambda: journal.append([b"x"]), lambda: journal.put_snapshot(b"x")):
        with pytest.raises(StoreError, match="the disk is full"):
            write()
    assert (journal.mark(), journal.bytes_since_snapshot) == before
    store.broken = False
    journal.append([b"x"])
    assert opened(store)[1] == [*LONG[1:], b"x"]


def test_j7_a_former_owner_is_refused():
    store, journal = filled()
    late = Journal(store, "job", 2, journal.last, journal.chain)
    with pytest.raises(StaleWriterError):
        late.append([b"x"])
    assert late.last == len(LONG)


def test_j1_an_empty_entry_is_an_error_of_the_program():
    store, journal = filled()
    with pytest.raises(ValueError, match="must not be empty"):
        journal.append([b"x", b""])
    assert opened(store)[1] == LONG[1:]
    journal.append([])
    assert opened(store)[1] == LONG[1:]
