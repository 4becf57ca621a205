"""What is special about the store in a SQLite file: shared commits, other processes, and files that go wrong."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections import deque
from functools import partial
from pathlib import Path
from zlib import crc32

import pytest

import routilux.store
from routilux.errors import DeclarationError, StaleWriterError, StoreError
from routilux.store import shared_writer, sqlite_opening, sqlite_work
from routilux.store.base import JobHead
from routilux.store.sqlite import SQLiteStore
from routilux.testing.parts import at_once, begin, head_of, succeeded

LONG = 20.0
# Before 3.11, Python does not tell SQLite's error codes.
CODES = sys.version_info >= (3, 11)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "facts.db"


@pytest.fixture
def store(path):
    store = SQLiteStore(path, busy_timeout=0.05)
    yield store
    store.close()


def connection_of(store):
    return store._writer._connection


class Held:
    """A commit that is held up: whoever commits first waits in SQLite's own code until it may go on."""

    def __init__(self, store):
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.transactions = []  # the first word of each
        self.connection = connection_of(store)
        self.connection.set_trace_callback(self.traced)

    def traced(self, statement):
        if not self.connection.in_transaction and statement.startswith(("BEGIN", "INSERT")):
            self.transactions.append(statement.split()[0])
            self.entered.set()
            self.go_on.wait(LONG)


class Line(deque):
    """The line of a writer, which tells when so many have come."""

    def __init__(self, expected):
        super().__init__()
        self.expected, self.complete = expected, threading.Event()

    def append(self, request):
        super().append(request)
        if len(self) == self.expected:
            self.complete.set()


# --- sharing a commit -----------------------------------------------------------------------------------------------


def start(*calls):
    results = {}

    def run(place, call):
        try:
            results[place] = call()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    return threads, results


def join(threads):
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def shared(store, *calls):
    """Make calls while a commit is held up, so that they share the next; return their results, and its transactions."""
    begin(store, "first")
    held, line = Held(store), Line(len(calls))
    store._writer._line = line
    first, _ = start(partial(store.append, "first", 1, [b"2"], 0))
    assert held.entered.wait(LONG)
    threads, results = start(*calls)
    assert line.complete.wait(LONG)
    held.go_on.set()
    join(first + threads)
    return [results[place] for place in range(len(calls))], held.transactions[1:]


def appended(store, count):
    """Append to so many jobs during a commit; return the transactions in which they all were kept."""
    for number in range(count):
        begin(store, f"job{number}")
    calls = [partial(store.append, f"job{number}", 1, [b"2"], 0) for number in range(count)]
    results, transactions = shared(store, *calls)
    assert results == [None] * count
    assert all(store.read(f"job{number}")[2] == [b"begun", b"2"] for number in range(count))
    return transactions


def test_appends_that_come_during_a_commit_share_the_next(store):
    assert appended(store, 16) == ["INSERT"]


def test_j7_who_is_refused_does_not_harm_those_who_share_the_commit(store):
    for job_id in "abc":
        begin(store, job_id)
    results, transactions = shared(
        store,
        partial(store.append, "a", 1, [b"2"], 0),
        partial(store.append, "b", 1, [b"late"], 7),
        partial(store.append, "c", 5, [b"late"], 0),
        partial(store.append, "nowhere", 1, [b"late"], 0),
        partial(store.claim, "me", 10.0, 0.0, ["b"]),
        partial(store.send, [("nowhere", b"1")]),
        partial(store.put_snapshot, "c", 9, b"snapshot", 0),
        partial(store.append, "d", 0, [b"1"], 0, head_of("d")),
    )
    refusals = [StaleWriterError] * 3 + [StoreError] * 2
    assert [type(results[place]) for place in (1, 2, 3, 5, 6)] == refusals
    assert "'b'" in str(results[1])
    assert "'c'" in str(results[2])
    assert [results[0], results[7]] == [None, None]
    assert transactions == ["BEGIN"]
    assert [store.read(job_id)[2] for job_id in "abcd"] == [[b"begun", b"2"], [b"begun"], [b"begun"], [b"1"]]
    assert [head.owner for head in store.heads()] == [None, "me", None, None, None]


def test_j7_an_append_that_is_refused_does_not_harm_those_that_share_its_statement(store):
    for job_id in "abc":
        begin(store, job_id)
    results, transactions = shared(
        store,
        partial(store.append, "a", 1, [b"2"], 0),
        partial(store.append, "b", 1, [b"late"], 7),
        partial(store.append, "c", 1, [b"2"], 0),
    )
    assert [type(result) for result in results] == [type(None), StaleWriterError, type(None)]
    assert "'b'" in str(results[1])
    assert transactions == ["INSERT", "BEGIN"]  # the transaction finds out which one is late
    assert [store.read(job_id)[2] for job_id in "abc"] == [[b"begun", b"2"], [b"begun"], [b"begun", b"2"]]


def test_more_appends_than_a_statement_may_add_share_a_transaction(store, monkeypatch):
    monkeypatch.setattr(shared_writer, "MOST_ROWS", 3)
    assert appended(store, 4) == ["BEGIN"]


def test_who_fails_does_not_harm_those_who_share_the_commit(store):
    for job_id in "ab":
        begin(store, job_id)
    results, transactions = shared(
        store,
        partial(store.append, "a", 1, [b"2"], 0),
        partial(store.append, "a", 2, [b"3", object()], 0),
        partial(store.append, "b", 1, [b"2", b"3"], 0),
    )
    assert (results[0], results[2]) == (None, None)
    assert isinstance(results[1], StoreError)
    assert transactions == ["BEGIN"] * (1 + 3)
    assert [store.read(job_id)[2] for job_id in "ab"] == [[b"begun", b"2"], [b"begun", b"2", b"3"]]


def test_a_locked_database_is_waited_for_once_by_all_who_share_the_commit(path, store):
    for number in range(4):
        begin(store, f"job{number}")
    begin(store, "first")
    held, line = Held(store), Line(5)
    store._writer._line = line
    first, _ = start(partial(store.append, "first", 1, [b"2", b"3"], 0))
    assert held.entered.wait(LONG)
    threads, results = start(*(partial(store.append, f"job{number}", 1, [b"2"], 0) for number in range(4)))
    assert line.complete.wait(LONG)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    held.go_on.set()
    join(first + threads)
    assert {type(results[place]) for place in range(4)} == {StoreError}
    assert len({id(result) for result in results.values()}) == 4
    assert held.transactions == ["BEGIN", "INSERT"]
    other.close()
    store.append("job0", 1, [b"2"], 0)


def test_a_job_that_begins_and_a_lone_entry_with_its_head_are_transactions_of_one_statement(store):
    statements = []
    connection_of(store).set_trace_callback(statements.append)
    head = head_of("a")
    store.append("a", 0, [b"begun"], 0, head)
    store.append("a", 1, [b"2"], 0, head._replace(status="completed"))
    assert not [each for each in statements if each.startswith(("BEGIN", "COMMIT", "SELECT"))]
    assert (store.read("a"), store.heads()) == ((0, None, [b"begun", b"2"]), [head._replace(status="completed")])


@pytest.mark.parametrize("wanted", [{"flow_id": "f"}, {"statuses": ("running",)}, {"flow_id": "f", "statuses": ("x",)}])
def test_jobs_are_found_by_flow_and_by_status_without_a_look_at_all_of_them(store, wanted):
    begin(store, "a")
    statements = []
    store._reader.set_trace_callback(statements.append)
    store.heads(**wanted)
    (query,) = (statement for statement in statements if statement.startswith("SELECT"))
    steps = [row[3] for row in connection_of(store).execute(f"EXPLAIN QUERY PLAN {query}")]
    looks = [step for step in steps if re.match(r"\w+( TABLE)? jobs USING (COVERING )?INDEX", step)]
    assert looks
    assert all(step.startswith("SEARCH") for step in looks)
    (search,) = [step for step in looks if "COVERING" not in step]
    assert "(status=? AND flow_id=?)" in search or ("(status=?)" in search and "flow_id" not in wanted)


def test_j7_a_lone_entry_that_is_refused_leaves_the_head_as_it_was(store):
    begin(store, "a")
    head = head_of("a")
    for after, epoch in [(0, 0), (2, 0), (1, 7)]:
        with pytest.raises(StaleWriterError):
            store.append("a", after, [b"2"], epoch, head._replace(status="completed", epoch=epoch))
    assert (store.read("a")[2], [each.status for each in store.heads()]) == ([b"begun"], [head.status])


def test_a_caller_who_leaves_on_ctrl_c_leaves_a_store_that_works(store):
    begin(store, "a")
    begin(store, "b")

    def interrupted(cursor):
        cursor.execute("INSERT INTO entries VALUES ('a', 2, x'00')")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store._writer.write("fail", interrupted)
    assert store.read("a")[2] == [b"begun"]
    store.append("a", 1, [b"2"], 0)
    store.append("b", 1, [b"2", b"3"], 0)


def test_the_line_of_a_leader_who_leaves_on_ctrl_c_is_committed(store):
    begin(store, "a")
    writer, left = store._writer, []

    def interrupted(cursor):
        raise KeyboardInterrupt

    def leave():
        try:
            writer.write("fail", interrupted)
        except KeyboardInterrupt:
            left.append(True)

    results, _ = shared(
        store, leave, partial(store.append, "a", 1, [b"2"], 0), partial(store.append, "b", 0, [b"1"], 0, head_of("b"))
    )
    assert results[1:] == [None, None]
    assert store.read("a")[2] == [b"begun", b"2"]
    assert left == [True]


def test_two_appends_of_one_job_are_made_in_turn_though_they_share_a_commit(store):
    begin(store, "a")
    results, transactions = shared(
        store, partial(store.append, "a", 1, [b"2"], 0), partial(store.append, "a", 1, [b"other"], 0)
    )
    assert [type(result) for result in results if result is not None] == [StaleWriterError]
    assert transactions == ["INSERT", "BEGIN"]
    assert len(store.read("a")[2]) == 2


class Timer(Exception):
    """What a program's own signal handler may raise."""


class Interrupted:
    """A store that a signal's error stops once, in another thread than ours, before or after a statement has run."""

    def __init__(self, store, statement, kind, *, ran):
        self.store, self.statement, self.kind, self.ran = store, statement, kind, ran
        self.execute, store._writer._execute = store._writer._execute, self
        self.left = []

    def __call__(self, statement, values=()):
        if statement != self.statement or threading.current_thread() is threading.main_thread():
            return self.execute(statement, values)
        if self.ran:
            self.execute(statement, values)
        self.store._writer._execute = self.execute
        raise self.kind

    def append(self, job_id, entries):
        """Append, and note when the signal's error comes here."""
        try:
            self.store.append(job_id, 1, entries, 0)
        except self.kind:
            self.left.append(job_id)


def test_who_is_interrupted_on_lining_up_keeps_nobody_waiting(store):
    for job_id in ("a", "b", "first"):
        begin(store, job_id)

    class Interrupting(Line):
        def append(self, request):
            super().append(request)
            if "'a'" in request.doing:
                raise KeyboardInterrupt

    def interrupted():
        with pytest.raises(KeyboardInterrupt):
            store.append("a", 1, [b"2"], 0)

    held, line = Held(store), Interrupting(2)
    store._writer._line = line
    first, _ = start(partial(store.append, "first", 1, [b"2"], 0))
    assert held.entered.wait(LONG)
    left, failures = start(interrupted)
    join(left)
    threads, results = start(partial(store.append, "b", 1, [b"2"], 0))
    assert line.complete.wait(LONG)
    held.go_on.set()
    join(first + threads)
    assert failures == results == {0: None}
    assert [len(store.read(job_id)[2]) for job_id in "ab"] == [1, 2]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Timer])
@pytest.mark.parametrize("ran", [False, True])
def test_appends_are_made_once_when_a_signal_stops_who_adds_the_rows_of_all(store, ran, kind):
    for job_id in "ab":
        begin(store, job_id)
    signal = Interrupted(store, sqlite_work.add_entries(2), kind, ran=ran)
    results, _ = shared(store, *(partial(signal.append, job_id, [b"2"]) for job_id in "ab"))
    assert results == [None, None]
    made = [job_id for job_id in "ab" if len(store.read(job_id)[2]) == 2]
    if ran:
        assert (len(signal.left), made) == (1, ["a", "b"])
    elif kind is Timer:  # it cannot be told from the error of a value, so that each row is tried by itself
        assert (signal.left, made) == ([], ["a", "b"])
    else:
        assert (len(signal.left), len(made)) == (1, 1)
        assert signal.left != made


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Timer])
@pytest.mark.parametrize("fails", [False, True], ids=["together", "each alone"])
def test_what_was_committed_is_done_though_a_signal_comes_behind_the_commit(store, fails, kind):
    for job_id in "abc":
        begin(store, job_id)
    signal = Interrupted(store, "COMMIT", kind, ran=True)
    entries = {"a": [b"2", b"3"], "b": [b"2", b"3"], "c": [b"2", object()] if fails else [b"2", b"3"]}
    results, _ = shared(store, *(partial(signal.append, job_id, entries[job_id]) for job_id in "abc"))
    refused = fails and signal.left != ["c"]
    assert [type(result) for result in results] == [type(None), type(None), StoreError if refused else type(None)]
    assert len(signal.left) == 1
    assert [len(store.read(job_id)[2]) for job_id in "abc"] == [3, 3, 1 if fails else 3]


def test_j1_a_work_that_raises_after_it_has_written_is_undone(store):
    """It is to raise before; a signal handler may do it all the same."""
    begin(store, "a")

    def half(cursor):
        cursor.execute("INSERT INTO entries VALUES ('a', 2, x'00')")
        raise StoreError("from a signal handler")

    with pytest.raises(StoreError, match="signal handler"):
        store._writer.write("fail", half)
    results, _ = shared(store, partial(store._writer.write, "fail", half), partial(store.append, "a", 1, [b"2"], 0))
    assert [type(result) for result in results] == [StoreError, type(None)]
    assert store.read("a")[2] == [b"begun", b"2"]


def test_a_commit_that_fails_and_ends_the_transaction_is_not_taken_for_one_that_succeeded(store):
    begin(store, "a")
    writer = store._writer
    execute = writer._execute

    def failing(statement, values=()):
        if statement != "COMMIT":
            return execute(statement, values)
        writer._execute = execute
        execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    writer._execute = failing
    with pytest.raises(StoreError, match="append to job 'a'"):
        store.append("a", 1, [b"2", b"3"], 0)
    assert store.read("a")[2] == [b"begun"]


def test_a_transaction_that_ctrl_c_kept_from_being_rolled_back_is_rolled_back_next(store):
    begin(store, "a")
    writer = store._writer
    roll_back = writer._roll_back

    def interrupted():
        if writer._connection.in_transaction:
            writer._roll_back = roll_back
            raise KeyboardInterrupt
        roll_back()

    writer._roll_back = interrupted
    with pytest.raises(KeyboardInterrupt):
        store.append("a", 1, [b"2", object()], 0)
    assert not writer._connection.in_transaction
    assert store.read("a")[2] == [b"begun"]


@pytest.mark.parametrize("entries", [[b"2"], [b"2", b"3"]])
def test_j1_nothing_is_acknowledged_in_a_transaction_that_was_left_open(path, store, entries):
    for job_id in "ab":
        begin(store, job_id)
    connection = connection_of(store)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO entries VALUES ('a', 2, x'00')")
    store.append("b", 1, entries, 0)
    other = SQLiteStore(path)
    assert [other.read(job_id)[2] for job_id in "ab"] == [[b"begun"], [b"begun", *entries]]
    other.close()


def test_who_waits_while_the_store_is_closed_is_told_so(path):
    store = SQLiteStore(path)
    begin(store, "a")
    results, _ = shared(store, partial(store.append, "a", 1, [b"2"], 0), store.close)
    assert results[1] is None
    assert results[0] is None or type(results[0]) is StoreError
    with pytest.raises(StoreError, match="closed"):
        store.append("a", 2, [b"3"], 0)


# --- other connections and processes --------------------------------------------------------------------------------


def test_stores_on_the_same_file_see_what_the_others_wrote(path, store):
    other = SQLiteStore(path)
    begin(store)
    other.append("job", 1, [b"2"], 0)
    store.append("job", 2, [b"3"], 0)
    assert other.read("job")[2] == [b"begun", b"2", b"3"]
    other.claim("me", 10.0, 0.0, ["job"])
    with pytest.raises(StaleWriterError, match="'me'"):
        store.append("job", 3, [b"late"], 0)
    other.close()


def test_a_database_that_another_has_locked_is_reported_and_works_later(path, store):
    begin(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for entries in ([b"2"], [b"2", b"3"]):
        with pytest.raises(StoreError) as caught:
            store.append("job", 1, entries, 0)
        text = str(caught.value)
        assert str(path) in text
        assert "append to job 'job'" in text
        assert "locked" in text
        assert "busy_timeout" in text or not CODES
    assert store.read("job")[2] == [b"begun"]
    other.execute("ROLLBACK")
    other.close()
    store.append("job", 1, [b"2"], 0)


def test_a_locked_database_is_waited_for(path):
    store = SQLiteStore(path, busy_timeout=LONG)
    begin(store)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    entered = threading.Event()
    connection_of(store).set_trace_callback(lambda statement: entered.set())
    threads, results = start(partial(store.append, "job", 1, [b"2"], 0))
    assert entered.wait(LONG)
    other.execute("COMMIT")
    join(threads)
    assert results == {0: None}
    other.close()
    store.close()


def test_many_stores_open_the_same_new_file_at_once(tmp_path):
    for number in range(10):
        path = tmp_path / f"{number}.db"
        stores = succeeded(at_once(*[partial(SQLiteStore, path)] * 6))
        for place, each in enumerate(stores):
            begin(each, f"job{place}")
        assert len(stores[0].heads()) == 6
        for each in stores:
            each.close()


CLAIMING = """
import json, sys
from routilux.store.sqlite import SQLiteStore
path, owner, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
store = SQLiteStore(path, synchronous="NORMAL", busy_timeout=20)
jobs, got = [f"job{number}" for number in range(count)], []
for start in range(0, count, 50):
    got += [each.head.job_id for each in store.claim(owner, 1000.0, 0.0, jobs[start : start + 50])]
for job_id in got[:50]:
    store.append(job_id, 1, [owner.encode()], 1)
store.close()
print(json.dumps(got))
"""


def test_j7_processes_that_claim_the_same_jobs_at_once_get_different_ones(path):
    count = 1000
    store = SQLiteStore(path, synchronous="NORMAL")
    heads = [JobHead(f"job{number}", "flow", "running", 1.0, 1.0) for number in range(count)]
    connection = connection_of(store)
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO entries VALUES (?, 1, x'00')", [(head.job_id,) for head in heads])
    connection.executemany(
        f"INSERT INTO jobs ({sqlite_work.HEAD}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        heads,
    )
    connection.execute("COMMIT")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMING, str(path), owner, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for owner in ("first", "second")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    claimed = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert sorted(claimed[0] + claimed[1]) == sorted(head.job_id for head in heads)
    for owner, got in zip(("first", "second"), claimed, strict=True):
        assert all(store.read(job_id)[2] == [b"\0", owner.encode()] for job_id in got[:50])
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
def test_a_fork_is_told_to_open_the_store_again(path, store):
    begin(store)
    calls = [
        lambda: store.append("job", 1, [b"2"], 0),
        lambda: store.append("job", 1, [b"2", b"3"], 0, head_of("job")),
        lambda: store.read("job"),
        lambda: store.put_snapshot("job", 1, b"snapshot", 0),
        lambda: store.heads(),
        lambda: store.claim("me", 10.0, 0.0),
        lambda: store.let_go("me"),
        lambda: store.prune(["running"], 1000.0),
        lambda: store.send([("job", b"1")]),
        lambda: store.receive(0),
        lambda: store.discard([1]),
        lambda: store.close(),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that other threads are not forked
        child = os.fork()
    if child == 0:
        refused = 0
        for call in calls:
            try:
                call()
            except StoreError as error:
                refused += "open_store()" in str(error)
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(calls)
    store.append("job", 1, [b"2"], 0)
    assert store.read("job")[2] == [b"begun", b"2"]


# --- room -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_reported_and_the_same_call_succeeds_when_there_is_room(store):
    begin(store)
    connection = connection_of(store)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    big = bytes(100_000)
    for entries in ([big], [big, b"small"]):
        with pytest.raises(StoreError) as caught:
            store.append("job", 1, entries, 0, head_of("job", status="other") if len(entries) > 1 else None)
        assert "full" in str(caught.value) or not CODES
        assert not isinstance(caught.value, StaleWriterError)
    assert store.read("job")[2] == [b"begun"]
    assert [head.status for head in store.heads()] == ["running"]
    store.append("job", 1, [b"small"], 0)
    connection.execute("PRAGMA max_page_count=100000")
    store.append("job", 2, [big], 0)
    assert store.read("job")[2] == [b"begun", b"small", big]


def test_when_there_is_room_for_some_only_they_are_kept(store):
    for job_id in "abc":
        begin(store, job_id)
    connection = connection_of(store)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages + 4}")
    results, _ = shared(
        store,
        partial(store.append, "a", 1, [b"2"], 0),
        partial(store.append, "b", 1, [bytes(100_000)], 0),
        partial(store.append, "c", 1, [b"2"], 0),
    )
    assert (results[0], results[2]) == (None, None)
    assert type(results[1]) is StoreError
    assert [len(store.read(job_id)[2]) for job_id in "abc"] == [2, 1, 2]


def test_a_journal_whose_snapshots_replace_its_entries_stays_small(path):
    store = SQLiteStore(path, synchronous="NORMAL")
    begin(store)
    body, largest = random.Random(1).randbytes(50_000), 0
    for number in range(1, 4000):
        store.append("job", number, [body], 0)
        if number % 20 == 0:
            store.put_snapshot("job", number, body * 4, 0)
            largest = max(largest, sum(file.stat().st_size for file in path.parent.iterdir()))
    assert largest < 10_000_000
    store.close()
    assert [file.name for file in path.parent.iterdir()] == ["facts.db"]


@pytest.mark.parametrize(("synchronous", "longest"), [("FULL", 1.2e6), ("NORMAL", 4.5e6)])
def test_the_log_stays_short_and_shorter_where_each_commit_waits_for_the_disk(path, synchronous, longest):
    store = SQLiteStore(path, synchronous)
    begin(store, "job")
    log, sizes = Path(f"{path}-wal"), set()
    for place in range(40):
        store.append("job", place + 1, [bytes(150_000)], 0)
        sizes.add(log.stat().st_size)
    assert longest / 2 < max(sizes) < longest
    store.close()


def test_pages_of_removed_jobs_are_used_again(path):
    store = SQLiteStore(path, synchronous="NORMAL")
    for number in range(20):
        begin(store, f"job{number}", bytes(500_000), status="completed")
        store.prune(["completed"], 1000.0, keep=0)
    store.close()
    assert path.stat().st_size < 1_500_000


# --- files that cannot be used --------------------------------------------------------------------------------------


def test_a_database_that_cannot_be_written_is_reported_and_works_later(store):
    begin(store)
    connection_of(store).execute("PRAGMA query_only=ON")
    with pytest.raises(StoreError) as caught:
        store.append("job", 1, [b"2"], 0)
    assert "read-only" in str(caught.value) or not CODES
    connection_of(store).execute("PRAGMA query_only=OFF")
    store.append("job", 1, [b"2"], 0)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may write to every file")
def test_a_read_only_file_is_refused(path):
    SQLiteStore(path).close()
    path.chmod(0o400)
    with pytest.raises(StoreError, match="read-only"):
        SQLiteStore(path)


@pytest.mark.parametrize("name", ["nowhere/facts.db", "."])
def test_a_file_that_cannot_be_opened_is_reported(tmp_path, name):
    with pytest.raises(StoreError) as caught:
        SQLiteStore(tmp_path / name)
    assert str(tmp_path) in str(caught.value)
    assert "folder" in str(caught.value) or not CODES


def test_a_file_that_is_no_database_is_refused_and_kept(path):
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(StoreError) as caught:
        SQLiteStore(path)
    assert "no SQLite database" in str(caught.value) or not CODES
    assert path.read_bytes() == b"not a database " * 1000


def test_a_database_of_another_program_is_refused_and_kept(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StoreError, match="another program"):
        SQLiteStore(path)
    other = sqlite3.connect(path)
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    other.close()


def test_a_database_of_a_newer_version_is_refused(path):
    SQLiteStore(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version=2")
    other.close()
    with pytest.raises(StoreError, match="newer version of routilux"):
        SQLiteStore(path)


def test_an_old_sqlite_is_refused(path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(StoreError, match=r"3\.35"):
        SQLiteStore(path)
    assert not path.exists()


@pytest.mark.parametrize(
    "options",
    [{"path": ":memory:"}, {"path": ""}, {"path": "a\0b"}, {"path": b"bytes"}]
    + [{"synchronous": value} for value in ("OFF", "full", None)]
    + [{"busy_timeout": value} for value in (-1, float("nan"), float("inf"), "5", True)],
)
def test_arguments_that_cannot_work_are_refused(options, path):
    with pytest.raises(DeclarationError):
        SQLiteStore(**{"path": path} | options)
    assert not path.exists()


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_j1_a_journal_with_a_gap_is_not_read(store, lost):
    begin(store, "job", b"1", b"2", b"3", b"4")
    connection_of(store).execute("DELETE FROM entries WHERE job = 'job' AND number = ?", (lost,))
    with pytest.raises(StoreError, match=f"lacks entry {lost}"):
        store.read("job")


def test_j1_a_journal_without_its_snapshot_is_not_read(store):
    begin(store, "job", b"1", b"2", b"3")
    store.put_snapshot("job", 2, b"two", 0)
    connection_of(store).execute("DELETE FROM snapshots")
    with pytest.raises(StoreError, match="lacks entry 2"):
        store.read("job")


def sealed(number):
    body = b"%d " % number * (1 + number * 7 % 300)
    return b"%08x" % crc32(body) + body


def is_whole(entry):
    return entry[:8] == b"%08x" % crc32(entry[8:])


JOBS = ("a", "b", "c")


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A database, part of it in its log, as a killed process leaves it; and the entries of each of its jobs."""
    folder = tmp_path_factory.mktemp("live")
    store = SQLiteStore(folder / "facts.db", synchronous="NORMAL")
    last = dict.fromkeys(JOBS, 1)
    for job_id in JOBS:
        begin(store, job_id, sealed(1))
    for number in range(200):
        job_id = JOBS[number * number % 3]
        store.append(job_id, last[job_id], [sealed(last[job_id] + 1)], 0)
        last[job_id] += 1
        if number == 80:
            connection_of(store).execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if number == 120:
            store.put_snapshot("a", last["a"] - 5, sealed(last["a"] - 5), 0)
    copies = [folder / "copy.db", folder / "copy.db-wal"]
    shutil.copy(folder / "facts.db", copies[0])
    shutil.copy(folder / "facts.db-wal", copies[1])
    store.close()
    database, log = (copy.read_bytes() for copy in copies)
    assert len(log) > 100_000
    return database, log, last


def look_into(path, last):
    """Return how many entries each job has; raise unless each has the first ones, or is refused."""
    try:
        store = SQLiteStore(path, synchronous="NORMAL")
    except StoreError:
        return "refused"
    found = {}
    try:
        for job_id in JOBS:
            try:
                base, snapshot, entries = store.read(job_id)
            except StoreError:
                found[job_id] = "refused"
                continue
            if not all(map(is_whole, entries)) or (snapshot is not None and not is_whole(snapshot)):
                found[job_id] = "refused"
                continue
            assert entries == [sealed(number) for number in range(base + 1, base + 1 + len(entries))]
            assert snapshot == (sealed(base) if base else None)
            found[job_id] = base + len(entries)
            assert found[job_id] <= last[job_id]
    finally:
        connection_of(store).execute("PRAGMA synchronous=OFF")  # 400 files need not reach the disk
        store.close()
    return found


def damaged(path, database, log, last):
    path.write_bytes(database)
    Path(f"{path}-wal").write_bytes(log)
    try:
        return look_into(path, last)
    finally:
        for file in path.parent.iterdir():
            file.unlink()


def test_j1_a_database_whose_process_was_killed_is_whole(path, live):
    database, log, last = live
    assert damaged(path, database, log, last) == last


@pytest.mark.parametrize("seed", range(4))
def test_j1_a_log_that_was_cut_gives_a_consistent_prefix(path, live, seed):
    database, log, last = live
    chance, counts = random.Random(seed), set()
    for place in [0, 1, 31, 32, 33] * (seed == 0) + [chance.randrange(len(log)) for _ in range(45 - 5 * (seed == 0))]:
        found = damaged(path, database, log[:place], last)
        assert set(found) == set(JOBS)
        assert "refused" not in found.values()
        counts.add(sum(found.values()))
    assert len(counts) > 10


@pytest.mark.parametrize("seed", range(4))
def test_j1_a_flipped_byte_in_the_log_gives_a_consistent_prefix(path, live, seed):
    database, log, last = live
    chance = random.Random(seed)
    for _ in range(35):
        place, flip = chance.randrange(len(log)), chance.randrange(1, 256)
        found = damaged(path, database, log[:place] + bytes([log[place] ^ flip]) + log[place + 1 :], last)
        assert "refused" not in found.values()


@pytest.mark.parametrize("seed", range(4))
def test_j1_a_flipped_byte_in_the_database_is_noticed_or_gives_a_consistent_prefix(path, live, seed):
    database, log, last = live
    chance = random.Random(seed)
    for _ in range(20):
        place, flip = chance.randrange(len(database)), chance.randrange(1, 256)
        damaged(path, database[:place] + bytes([database[place] ^ flip]) + database[place + 1 :], log, last)


# --- what the SQL may use -------------------------------------------------------------------------------------------

NEWER = re.compile(
    r"->|\b(unixepoch|strict|right\s+join|full\s+(outer\s+)?join|distinct\s+from|format\s*\(|concat\w*\s*\(|jsonb?_?\w*\s*\("
    r"|octet_length|string_agg|unhex|timediff|table_list|sqlite_schema\b)",
    re.IGNORECASE,
)


def sql_of(file):
    """Yield the text of all strings of a file that are no docstrings, f-strings included."""
    for node in ast.walk(ast.parse(file.read_text())):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if re.search(r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|BEGIN)\b", text):
            yield text


def test_the_sql_needs_no_sqlite_newer_than_3_35():
    folder = Path(routilux.store.__file__).parent
    texts = [text for file in folder.glob("*.py") for text in sql_of(file)]
    assert len(texts) > 25
    assert [text for text in texts if NEWER.search(text)] == []
    assert NEWER.search("SELECT a ->> 'b'")
    assert sqlite_opening.OLDEST_SQLITE == (3, 35)
