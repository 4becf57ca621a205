"""D5, D10: the threads under the jobs: gate, pool, timers."""

from __future__ import annotations

import sys
import threading
import time
from _thread import get_ident
from collections import deque
from contextlib import contextmanager

import pytest
from parts import Sink, chain, in_thread, threads_besides

from routilux import Engine
from routilux.runtime.clock import Clock, utc
from routilux.runtime.gate import INSIDE, Gate
from routilux.runtime.pool import Worker, WorkerPool
from routilux.runtime.timers import Timers

LONG = 20.0


# --- gate ---------------------------------------------------------------------------------------------------------


@contextmanager
def spelled_out(gate):
    """Do what `Gate` says is the same as ``with gate:``."""
    inside, thread = gate.inside, get_ident()
    try:
        if inside.setdefault(INSIDE, thread) is not thread:
            gate.enter(thread)
        yield
    finally:
        if INSIDE in inside and inside[INSIDE] is thread:
            inside.clear()
            if gate.waiting:
                gate.ring()


def by_name(gate):
    return gate


def test_d10_one_thread_at_a_time_is_inside_the_gate():
    gate, inside, total = Gate(), threading.Lock(), [0]

    def work(way):
        for _ in range(5_000):
            with way(gate):
                assert inside.acquire(blocking=False)
                total[0] += 1
                inside.release()

    threads = [threading.Thread(target=work, args=(way,)) for way in (by_name, spelled_out) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert total[0] == 40_000
    assert not gate.waiting


def test_d10_everyone_who_waits_at_the_gate_gets_in():
    gate, entered = Gate(), []
    threads = [
        threading.Thread(target=lambda n=n: gate.__enter__() or entered.append(n) or gate.__exit__(None, None, None))
        for n in range(5)
    ]
    with gate:
        for thread in threads:
            thread.start()
        while len(gate.waiting) < 5:
            pass
    for thread in threads:
        thread.join(LONG)
    assert sorted(entered) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("inner", [by_name, spelled_out])
@pytest.mark.parametrize("outer", [by_name, spelled_out])
def test_d10_who_enters_once_more_inside_the_gate_leaves_it_shut(outer, inner):
    """As a signal handler does, which runs between any two lines of the main thread."""
    gate, entered = Gate(), threading.Event()
    thread = threading.Thread(target=lambda: gate.__enter__() or entered.set() or gate.__exit__(None, None, None))
    with outer(gate):
        with inner(gate), inner(gate):
            assert gate.inside
        assert gate.inside
        thread.start()
        while not gate.waiting:
            pass
        assert not entered.is_set()
    thread.join(LONG)
    assert entered.is_set()
    assert not gate.inside


@pytest.mark.parametrize("outer", [by_name, spelled_out])
def test_d10_an_entry_of_a_signal_handler_that_was_interrupted_does_not_keep_the_gate_shut(outer):
    gate = Gate()

    def interrupted():
        with outer(gate):
            gate.__enter__()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gate.abandon()
    with gate:
        pass
    assert not gate.inside


class Interrupting(dict):
    """What is inside a gate; an interrupt comes when a thread has just entered."""

    def setdefault(self, key, thread):
        super().setdefault(key, thread)
        raise TimeoutError("of an alarm")


@pytest.mark.parametrize("way", [by_name, spelled_out])
def test_d10_an_interrupt_of_whoever_has_just_entered_leaves_the_gate_open(way):
    gate = Gate()
    gate.inside = Interrupting()
    with pytest.raises(TimeoutError), way(gate):
        raise AssertionError("not reached")
    assert not gate.inside


def test_d10_an_exception_inside_leaves_the_gate_open():
    gate = Gate()
    with pytest.raises(KeyError), gate:
        raise KeyError
    assert not gate.inside


# --- pool ---------------------------------------------------------------------------------------------------------


def test_d5_the_pool_makes_threads_on_demand_up_to_its_limit():
    pool, release = WorkerPool(), threading.Event()
    started = threading.Semaphore(0)

    def task():
        started.release()
        release.wait(LONG)

    pool.set_limit(3)
    before = threading.enumerate()
    pool.submit(task)
    assert started.acquire(timeout=LONG)
    assert len(threads_besides(before)) == 1
    for _ in range(4):
        pool.submit(task)
    assert started.acquire(timeout=LONG)
    assert started.acquire(timeout=LONG)
    assert len(threads_besides(before)) == 3
    assert pool.has_tasks()
    release.set()
    for _ in range(2):
        assert started.acquire(timeout=LONG)
    pool.set_limit(0)
    pool.join()
    assert not threads_besides(before)


def test_d5_idle_workers_are_used_again():
    pool, idents = WorkerPool(), []
    pool.set_limit(5)
    for _ in range(20):
        done = threading.Event()
        pool.submit(lambda done=done: (idents.append(threading.get_ident()), done.set()))
        assert done.wait(LONG)
    assert len(set(idents)) <= 2  # a worker may not be idle again yet when the next task comes
    pool.set_limit(0)
    pool.join()


def test_d5_tasks_submitted_without_workers_run_when_there_are_some():
    pool, done = WorkerPool(), threading.Event()
    pool.submit(done.set)
    assert not done.is_set()
    pool.set_limit(1)
    assert done.wait(LONG)
    pool.set_limit(0)
    pool.join()


def test_d5_while_all_workers_are_busy_tasks_come_and_go_without_the_lock_of_the_pool():
    pool, begun, go, done = WorkerPool(), threading.Event(), threading.Event(), threading.Event()
    pool.set_limit(1)
    pool.submit(lambda: (begun.set(), go.wait(LONG)))
    assert begun.wait(LONG)
    with pool._lock:
        in_thread(lambda: pool.submit(done.set))
        go.set()
        assert done.wait(LONG)
    pool.set_limit(0)
    pool.join()


class JustBefore(deque):
    """Tasks of which one is submitted just before a worker that has found none registers as idle."""

    late = ()

    def popleft(self):
        try:
            return super().popleft()
        except IndexError:
            self.extend(self.late)
            self.late = ()
            raise


def test_d5_a_task_that_is_submitted_while_a_worker_falls_idle_is_not_left_lying():
    pool, done = WorkerPool(), threading.Event()
    pool._tasks = JustBefore()
    pool._tasks.late = [done.set]
    pool.set_limit(1)
    pool.submit(lambda: None)
    assert done.wait(LONG)
    pool.set_limit(0)
    pool.join()


def test_d5_a_worker_that_ends_though_it_was_rung_for_a_task_has_another_one_come():
    pool, ends, done = WorkerPool(), threading.Event(), threading.Event()
    arrive, comings = pool._arrive, []

    def arrive_late():
        comings.append(threading.current_thread())
        if len(comings) == 3:  # two were made, and one has been rung
            assert ends.wait(LONG)
        arrive()

    pool._arrive = arrive_late
    pool.set_limit(2)
    meet = threading.Barrier(2)
    for _ in range(2):
        pool.submit(lambda: meet.wait(LONG))
    while len(pool._idle) < 2:
        pass
    pool.submit(done.set)
    pool.set_limit(1)
    ends.set()
    assert done.wait(LONG)
    pool.set_limit(0)
    pool.join()


def test_d5_many_threads_that_submit_at_the_same_time_have_all_tasks_run():
    pool, each, ran, last = WorkerPool(), 2_000, [], threading.Semaphore(0)
    pool.set_limit(3)
    meet = threading.Barrier(4)

    def submit(name):
        meet.wait(LONG)
        for number in range(each):
            pool.submit(lambda number=number: ran.append((name, number)))
        pool.submit(last.release)

    threads = [threading.Thread(target=submit, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert last.acquire(timeout=LONG)
    pool.set_limit(0)
    pool.join()
    assert sorted(ran) == [(name, number) for name in range(4) for number in range(each)]


def test_d5_a_task_that_was_taken_while_the_system_gave_no_thread_is_no_error(monkeypatch):
    pool, taken = WorkerPool(), []

    def refuse():
        taken.append(pool._tasks.popleft())
        raise RuntimeError("can't start new thread")

    pool.set_limit(1)
    monkeypatch.setattr(pool, "_adjust", refuse)
    pool.submit(print)
    assert taken == [print]


def no_thread(worker):
    raise RuntimeError("can't start new thread")


def test_d5_who_submits_a_task_while_another_thread_gets_no_worker_gets_none_either(monkeypatch):
    pool, errors, submitting = WorkerPool(), [], []

    def submit():
        try:
            pool.submit(print)
        except RuntimeError as error:
            errors.append(error)

    def refuse(worker):
        if not submitting:
            submitting.append(threading.Thread(target=submit))
            submitting[0].start()
            while len(pool._tasks) < 2:
                pass
        no_thread(worker)

    pool.set_limit(1)
    monkeypatch.setattr(Worker, "start", refuse)
    submit()
    submitting[0].join(LONG)
    assert len(errors) == 2
    assert not pool.has_tasks()


def test_d5_a_worker_that_ends_when_the_system_gives_no_thread_for_the_next_task_leaves_it_for_another(monkeypatch):
    pool, done, begun, go = WorkerPool(), threading.Semaphore(0), threading.Event(), threading.Event()

    def gives_up():
        pool.give_up(threading.get_ident())
        pool.submit(done.release)
        begun.set()
        assert go.wait(LONG)

    start = Worker.start
    pool.set_limit(1)
    pool.submit(lambda: begun.wait(LONG))
    begun.set()
    while not pool._idle:
        pass
    begun.clear()
    monkeypatch.setattr(Worker, "start", no_thread)
    pool.submit(gives_up)
    assert begun.wait(LONG)
    (worker,) = pool._workers
    go.set()
    worker.join(LONG)
    assert not worker.is_alive()
    monkeypatch.setattr(Worker, "start", start)
    pool.submit(done.release)
    assert done.acquire(timeout=LONG)
    assert done.acquire(timeout=LONG)
    pool.set_limit(0)
    pool.join()


@pytest.mark.parametrize("when", ["before", "after"])
def test_d5_a_pool_goes_on_after_an_interrupt_while_a_worker_was_made(monkeypatch, when):
    pool, ran, start = WorkerPool(), threading.Semaphore(0), Worker.start
    before = threading.enumerate()

    def interrupted(worker):
        if when == "after":
            start(worker)
        raise KeyboardInterrupt

    pool.set_limit(2)
    monkeypatch.setattr(Worker, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.submit(ran.release)
    monkeypatch.setattr(Worker, "start", start)
    for _ in range(2):
        pool.submit(ran.release)
    for _ in range(3):
        assert ran.acquire(timeout=LONG)
    pool.set_limit(0)
    pool.join()
    assert not threads_besides(before)
    assert pool._coming == 0


def test_d5_flows_that_are_forgotten_while_the_engine_is_busy_do_not_block_it():
    """The garbage collector may let go of a flow in a thread that is inside the engine."""

    class User:
        pass

    engine = Engine()
    user, other = User(), User()
    engine.attach(user, 4)
    with engine._lock:
        del user
    engine.attach(other, 1)
    while len(engine._users) > 1:  # another thread does it
        pass
    assert engine.pool._limit == 1
    engine.release(other)


# --- timers -------------------------------------------------------------------------------------------------------


def test_d5_a_flow_that_comes_while_the_last_one_goes_has_workers(monkeypatch):
    engine, coming = Engine(), []
    first, second = (chain(Sink(), engine=engine) for _ in range(2))
    engine.attach(first, 1)
    set_limit = engine.pool.set_limit

    def set_limit_late(limit):
        if limit == 0:
            coming.append(threading.Thread(target=engine.attach, args=(second, second.max_workers)))
            coming[0].start()
            while coming[0].is_alive() and not engine._lock.locked():
                pass
        set_limit(limit)

    monkeypatch.setattr(engine.pool, "set_limit", set_limit_late)
    engine.release(first)
    coming[0].join(LONG)
    monkeypatch.undo()
    assert second.start("r0").wait(LONG)
    second.shutdown()


def test_d5_who_was_the_last_to_go_does_not_wait_for_the_workers_of_a_flow_that_has_come_since():
    pool, begun, go = WorkerPool(), threading.Event(), threading.Event()
    pool.set_limit(1)
    pool.submit(lambda: (begun.set(), go.wait(LONG)))
    assert begun.wait(LONG)
    pool.set_limit(0)
    joining = threading.Thread(target=pool.join)
    joining.start()
    while not pool._joining:
        pass
    pool.set_limit(1)
    joining.join(LONG)
    assert not joining.is_alive()
    go.set()
    pool.set_limit(0)
    pool.join()
    assert not pool._workers


def test_timers_call_in_the_order_in_which_they_are_due_and_their_thread_ends():
    stopped = [time.perf_counter_ns()]
    clock = Clock(monotonic_ns=lambda: stopped[0] if stopped else time.perf_counter_ns())
    timers, calls, last = Timers(clock), [], threading.Event()
    before = threading.enumerate()
    timers.at(stopped[0] + 30_000_000, lambda: (calls.append("third"), last.set()))
    timers.at(stopped[0] + 20_000_000, lambda: calls.append("second"))
    timers.at(stopped[0], lambda: calls.append("first"))
    thread = timers._thread
    stopped.clear()
    assert last.wait(LONG)
    thread.join(LONG)
    assert calls == ["first", "second", "third"]
    assert not threads_besides(before)


def test_a_cancelled_timer_is_not_called_and_not_kept():
    timers, calls = Timers(Clock()), []
    timer = timers.at(time.perf_counter_ns() + 3_600_000_000_000, lambda: calls.append(1))
    thread = timers._thread
    timer.cancel()
    timers.prune()
    thread.join(LONG)
    assert not thread.is_alive()
    assert calls == []


def test_a_timer_whose_call_raises_stops_no_other(monkeypatch):
    raised, called = [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda details: raised.append(details.exc_type))
    timers = Timers(Clock())
    timers.at(0, lambda: sys.exit())
    timers.at(1, lambda: 1 // 0)
    timers.at(2, called.set)
    assert called.wait(LONG)
    assert raised == [SystemExit, ZeroDivisionError]


def test_times_come_from_the_engines_clock():
    from parts import Sink, chain

    ticks = iter(range(0, 10**12, 1_000_000_000))
    clock = Clock(monotonic_ns=lambda: next(ticks), time_ns=lambda: 1_700_000_000_000_000_000)
    state = chain(Sink(), engine=Engine(clock)).execute("r0")
    assert state.created_at == utc(1_700_000_000_000_000_000)
    assert state.get_execution_history()[0].duration == 1.0
