"""H4: streams tell what happens in a job while it happens."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from datetime import timezone

import orjson
import pytest
from hypothesis import given, strategies as st
from parts import AsyncStep, Signal, Sink, Source, Step, chain

from routilux import (
    ContextError,
    DeclarationError,
    Engine,
    ErrorHandler,
    ErrorStrategy,
    ExecutionError,
    Fact,
    JobStatus,
    Lagged,
    StatusError,
    Stream,
    open_store,
    signals,
)
from routilux.core.records import Sent
from routilux.runtime import tape as tapes
from routilux.runtime.audience import Notice
from routilux.runtime.tape import Place, Tape

LONG = 20.0
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


@pytest.fixture
def heard():
    """Everything that any signal says, as (name, fields), in order."""
    told, receivers = [], {}
    for name in signals.__all__:

        def receiver(flow, job_state, name=name, **fields):
            told.append((name, fields))

        receivers[name] = receiver
        getattr(signals, name).connect(receiver, weak=False)
    yield told
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver)


@pytest.fixture
def engine():
    with Engine(store=open_store("memory:")) as engine:
        yield engine


def kinds(facts):
    return [fact.kind for fact in facts]


def of_kind(facts, kind):
    return [fact.fields for fact in facts if fact.kind == kind]


def count_of(facts):
    """How many facts were received or missed."""
    return sum(fact.missed if isinstance(fact, Lagged) else 1 for fact in facts)


def in_thread(work):
    """Run ``work()`` in a thread; return what waits for its outcome."""
    outcome = []

    def run():
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(LONG)
        assert outcome, "it has not come to an end"
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    return result


def until_read(stream, count):
    """Read so many facts."""
    return [next(stream) for _ in range(count)]


def is_gone(engine, job_id):
    """Whether a job is in memory no more, as soon as no thread is on its way out of it."""
    end = time.monotonic() + LONG
    while engine.keeping.live.get(job_id) is not None and time.monotonic() < end:
        gc.collect()
    return engine.keeping.live.get(job_id) is None


class Busy:
    """A flow of which everything can be told: retries, failures, writes, log entries, outputs, deferred events."""

    def __init__(self, **options):
        step = Step(self.handle, events=("output", "later"))
        step.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=1, retry_delay=0))
        faulty = Step(self.fail)
        faulty.set_error_handler(ErrorHandler(ErrorStrategy.CONTINUE))
        self.flow = chain(step, faulty, **options)
        self.flow.connect("r0", "later", "r1", "input")

    def handle(self, step):
        ctx = step.get_execution_context()
        if ctx.attempt == 1:
            raise ValueError("not yet")
        ctx.job_state.update_routine_state("r0", {"n": [1]})
        ctx.job_state.append_to_shared_log({"note": "hello"})
        step.send_output("report", rows=[3])
        step.emit("output", data={"a": [1]})
        step.emit_deferred_event("later", data=2)

    def fail(self, step, data):
        raise KeyError(data)


# --- what is told -----------------------------------------------------------------------------------------------------


@MODES
def test_h4_a_stream_gives_what_signals_tell_in_their_order_and_words(heard, options):
    with Busy(**options).flow as flow:
        stream = flow.stream("r0")
        facts = list(stream)
        assert stream.job_state.status == "paused"
        flow.resume(stream.job_state).wait()
        facts += stream
    assert [(fact.kind, fact.fields) for fact in facts] == heard
    assert {"activation_retried", "activation_failed", "job_paused", "job_resumed"} < set(kinds(facts))
    assert [fact.cursor for fact in facts] == list(range(len(facts)))
    assert stream.cursor == len(facts)


def test_h4_a_fact_says_when_it_was_committed_and_of_which_job_and_routine():
    with chain(Source([1]), Sink()) as flow:
        stream = flow.stream("r0", job_id="mine")
        facts = list(stream)
    assert {fact.job_id for fact in facts} == {"mine"}
    state = stream.job_state
    times = [fact.at for fact in facts]
    assert times == sorted(times)
    assert {time.tzinfo for time in times} == {timezone.utc}
    assert state.started_at <= times[0] <= times[-1]
    assert [(fact.kind, fact.routine_id) for fact in facts] == [
        ("job_started", None),
        ("activation_started", "r0"),
        ("event_emitted", "r0"),
        ("activation_ended", "r0"),
        ("activation_started", "r1"),
        ("activation_ended", "r1"),
        ("job_completed", None),
    ]


def test_h4_outputs_are_there_at_a_glance():
    def handler(step):
        step.send_output("progress", done=1)
        step.emit("output")

    with chain(Step(handler)) as flow:
        stream = flow.stream("r0")
        facts = list(stream)
    assert [fact.output for fact in facts if fact.output is not None] == stream.job_state.outputs
    (fact,) = [fact for fact in facts if fact.kind == "output_sent"]
    assert fact.routine_id == "r0"


def test_h4_what_a_reader_is_given_is_its_own():
    payload = {"data": [1]}
    sink = Sink()
    with chain(sink) as flow:
        one = flow.stream("r0", payload)
        other = flow.subscribe(one.job_state, cursor=0)
        for fact in one:
            if fact.kind == "activation_ended":
                fact.fields["record"].data["data"].append("spoilt")
        (fields,) = of_kind(other, "activation_ended")
    assert fields["record"].data == payload
    assert sink.got == [[1]]


def test_h4_facts_are_lines_for_people_and_json_for_programs():
    with Busy().flow as flow:
        stream = flow.stream("r0", job_id="j")
        facts = list(stream)
        flow.cancel(stream.job_state, "enough")
        facts += stream
    assert [str(fact) for fact in facts] == [
        "0 job_started",
        "1 activation_started r0.input",
        "2 activation_retried r0.input ValueError: not yet",
        "3 activation_started r0.input attempt 2",
        "4 state_changed r0 {'n': [1]}",
        f"5 log_appended {facts[5].fields['entry']}",
        "6 output_sent r0 report {'rows': [3]}",
        "7 event_emitted r0.output {'data': {'a': [1]}}",
        "8 event_emitted r0.later {'data': 2}",
        "9 activation_ended r0.input completed",
        "10 activation_started r1.input",
        "11 activation_failed r1.input KeyError: {'a': [1]}",
        "12 activation_ended r1.input failed",
        "13 job_paused deferred events wait until the job is resumed",
        "14 job_cancelled enough",
    ]
    assert str(Lagged(1200)) == "1,200 facts were missed"
    assert orjson.loads(orjson.dumps(facts[7]))["fields"]["data"] == {"data": {"a": [1]}}


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"was": JobStatus.PAUSED}, "job_resumed", "0 job_resumed was paused"),
        ({"result": None}, "job_completed", "0 job_completed"),
        ({"result": [1]}, "job_completed", "0 job_completed [1]"),
        ({"error": None}, "job_failed", "0 job_failed"),
        ({"routine_id": None, "values": {}, "removed": ("a", "b")}, "state_changed", "0 state_changed {} without a, b"),
        ({"anything": 1}, "of_a_later_version", "0 of_a_later_version"),
    ],
)
def test_h4_every_fact_has_its_line(fields, kind, text):
    assert str(Fact(0, kind, "j", None, fields)) == text


# --- who listens, and when --------------------------------------------------------------------------------------------


def test_h4_any_number_of_subscribers_each_begin_where_they_want():
    gate, reached = threading.Event(), threading.Event()

    def handler(step):
        step.emit("output", data=1)
        reached.set()
        assert gate.wait(LONG)
        step.emit("output", data=2)

    with chain(Step(handler), Sink(), execution_strategy="concurrent", max_workers=1) as flow:
        first = flow.stream("r0")
        assert reached.wait(LONG)
        state = first.job_state
        streams = [flow.subscribe(state, cursor=0), flow.subscribe(state, cursor=2), flow.subscribe(state)]
        cursors = [each.cursor for each in streams]
        gate.set()
        everything = list(first)
        assert [list(each) for each in streams] == [everything[cursor:] for cursor in cursors]
        assert cursors == [0, 2, 3]
        assert kinds(everything[:3]) == ["job_started", "activation_started", "event_emitted"]


@MODES
def test_h4_a_subscription_in_the_middle_of_a_long_turn_hears_the_rest_of_it(options):
    gate, reached = threading.Event(), threading.Event()

    def handler(step):
        ctx = step.get_execution_context()
        for value in range(10):
            if value == 5:
                reached.set()
                assert gate.wait(LONG)
            step.emit("output", data=value)
            ctx.store.set("n", value)
            ctx.job_state.append_to_shared_log({"n": value})

    with chain(Step(handler), Sink(), **options) as flow:
        state = flow.start("r0")
        assert reached.wait(LONG)
        stream = flow.subscribe(state)
        assert stream.cursor == 0
        gate.set()
        facts = [fact for fact in stream if fact.routine_id != "r1"]
    assert [fields["data"]["data"] for fields in of_kind(facts, "event_emitted")] == [5, 6, 7, 8, 9]
    assert [fields["values"]["n"] for fields in of_kind(facts, "state_changed")] == [5, 6, 7, 8, 9]
    assert [fields["entry"]["n"] for fields in of_kind(facts, "log_appended")] == [5, 6, 7, 8, 9]
    assert kinds(facts)[-2:] == ["activation_ended", "job_completed"]


def test_h4_a_job_that_is_not_streamed_notes_nothing_beside_one_that_is(monkeypatch):
    noted = []
    real = Notice.__new__

    def new(cls, job, *rest):
        if job is not None:
            noted.append(job)
        return real(cls, job, *rest)

    monkeypatch.setattr(Notice, "__new__", new)
    with chain(Source([1]), Sink()) as flow:
        stream = flow.stream("r0")
        facts = list(stream)
        flow.execute("r0")
    assert len(facts) == 7
    assert set(noted) == {stream.job_state._job}


def test_h4_a_stream_imports_no_signals():
    program = """
import sys
from routilux import Flow, Routine
class One(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("trigger", handler=self.run)
    def run(self):
        pass
flow = Flow()
flow.add_routine(One(), "one")
print(len(list(flow.stream("one"))), {"blinker", "asyncio"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("4 set()\n", "")


# --- those who fall behind --------------------------------------------------------------------------------------------


def test_h4_one_who_falls_behind_is_told_once_how_many_facts_it_has_missed():
    with chain(Source(range(100)), Sink()) as flow:
        everything = list(flow.stream("r0"))
        stream = flow.stream("r0", buffer=10)
        assert stream.job_state.wait(LONG)
        found = list(stream)
    assert found[0] == Lagged(len(everything) - 10)
    assert kinds(found[1:]) == kinds(everything[-10:])
    assert [fact.cursor for fact in found[1:]] == [fact.cursor for fact in everything[-10:]]


@MODES
def test_h4_a_reader_that_does_not_read_does_not_hold_up_the_job(options):
    gate, reached = threading.Event(), threading.Event()

    def handler(step, data):
        if data == 0:
            reached.set()
            assert gate.wait(LONG)

    with chain(Source(range(2000)), Step(handler), **options) as flow:
        stream = flow.stream("r0", buffer=1)
        assert next(stream).cursor == 0
        assert reached.wait(LONG)
        assert isinstance(next(stream), Lagged)  # it is in the middle of its reading, and stays there
        gate.set()
        assert stream.job_state.wait(LONG)
        rest = list(stream)
    assert stream.job_state.status == "completed"
    assert len(rest) == 3
    assert [type(each) for each in rest] == [Fact, Lagged, Fact]
    assert rest[-1].kind == "job_completed"


def test_h4_between_two_lags_there_is_a_fact():
    tape = Tape()
    place = Place(0, 2)
    fill(tape, 5)
    assert tape.take(place) == Lagged(3)
    fill(tape, 5)
    assert taken(tape, place) == 3
    assert tape.take(place) == Lagged(4)
    assert [taken(tape, place), taken(tape, place), tape.take(place)] == [8, 9, None]


def test_h4_a_tape_holds_the_last_facts_only(monkeypatch):
    monkeypatch.setattr(tapes, "SIZE", 50)
    with chain(Source(range(100)), Sink()) as flow:
        stream = flow.stream("r0", buffer=20)
        assert stream.job_state.wait(LONG)
        state = stream.job_state
        total = state._job.tape.end
        assert len(state._job.tape._kept) == 50
        wide = flow.subscribe(state, cursor=0, buffer=60)
        assert [len(list(wide)), count_of(flow.subscribe(state, cursor=0, buffer=60))] == [51, total]
        wider = flow.stream("r0", buffer=200)
        assert wider.job_state.wait(LONG)
        assert len(wider.job_state._job.tape._kept) == 200


class Held(list):
    """Something a payload holds, which tells when it is gone."""


def test_h4_a_tape_lets_go_of_what_was_told_and_of_its_job(monkeypatch):
    monkeypatch.setattr(tapes, "SIZE", 3)
    with chain(Step(lambda step, **_: None), copy_payloads=False, history_limit=0) as flow:
        gc.disable()
        try:
            payload = Held()
            stream = flow.stream("r0", {"data": payload}, buffer=1)
            list(stream)
            job, payload = weakref.ref(stream.job_state._job), weakref.ref(payload)
            del stream
            flow.shutdown()
            assert (job(), payload()) == (None, None)
        finally:
            gc.enable()


class Once(Exception):
    pass


def test_h4_an_attempt_that_is_retried_leaves_no_exception_on_the_tape(caplog):
    caplog.set_level("CRITICAL", "routilux")  # an entry would keep it
    errors = []

    def handler(step):
        if step.get_execution_context().attempt == 1:
            error = Once("once")
            errors.append(weakref.ref(error))
            raise error

    step = Step(handler)
    step.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=1, retry_delay=0))
    with chain(step) as flow:
        stream = flow.stream("r0")
        assert "activation_retried" in kinds(stream)
    gc.collect()
    assert errors[0]() is None


def fill(tape, count):
    for _ in range(count):
        tape.append(Notice(None, Sent("r", "t", {}, 0), None, None, 0))


def taken(tape, place):
    number, entry = tape.take(place)
    assert entry.kind == "output_sent"
    return number


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30)), min_size=1, max_size=4),
    st.lists(st.integers(-4, 12), max_size=40),
)
def test_h4_what_was_missed_and_what_was_received_is_everything_in_order(size, readers, moves):
    """Moves: so many facts are told; below 0, a reader reads once."""
    tape = Tape()
    tape._size = size
    for buffer, _ in readers:
        tape.widen(buffer)
    places = [(Place(0, buffer), []) for buffer, _ in readers]
    for index, move in enumerate(moves):
        if move > 0:
            fill(tape, move)
        else:
            place, got = places[index % len(places)]
            behind = tape.end - place.cursor
            found = tape.take(place)
            if found is not None:
                got.append(found)
            assert (found is None) == (behind == 0)
    for place, got in places:
        while (found := tape.take(place)) is not None:
            got.append(found)
        follow = 0
        for before, each in zip([None, *got], got, strict=False):
            if isinstance(each, Lagged):
                assert each.missed > 0
                assert not isinstance(before, Lagged)
                follow += each.missed
            else:
                assert each[0] == follow
                follow += 1
        assert follow == tape.end == place.cursor
        assert not got or not isinstance(got[-1], Lagged)


@given(st.integers(0, 60), st.integers(1, 40), st.integers(1, 40), st.integers(0, 60))
def test_h4_a_reader_misses_no_more_than_it_must(told, size, buffer, cursor):
    tape = Tape()
    tape._size = size
    fill(tape, told)
    place = Place(min(cursor, told), buffer)
    found, expected = [], deque(range(min(cursor, told), told), maxlen=min(buffer, size))
    while (each := tape.take(place)) is not None:
        found.append(each)
    missed = told - min(cursor, told) - len(expected)
    assert found[:1] == [Lagged(missed)] or not missed
    assert [each[0] for each in found if not isinstance(each, Lagged)] == list(expected)


# --- coming back, and leaving -----------------------------------------------------------------------------------------


def test_h4_a_reader_may_come_back_with_its_cursor():
    with chain(Source(range(10)), Sink()) as flow:
        stream = flow.stream("r0")
        begin = until_read(stream, 4)
        cursor, state = stream.cursor, stream.job_state
        stream.close()
        rest = list(flow.subscribe(state, cursor=cursor))
        again = list(flow.subscribe(state, cursor=0))
    assert again == begin + rest
    assert rest[-1].kind == "job_completed"


def test_h4_to_leave_the_loop_leaves_the_job_alone():
    sink = Sink()
    with chain(Source(range(10)), sink) as flow:
        stream = flow.stream("r0")
        for fact in stream:
            if fact.kind == "event_emitted":
                break
        assert stream.job_state.wait(LONG)
        assert stream.job_state.status == "completed"
        assert next(stream).cursor == fact.cursor + 1
    assert sink.got == list(range(10))


def test_h4_a_stream_can_be_closed_by_another_thread():
    gate, reached = threading.Event(), threading.Event()

    def handler(step):
        reached.set()
        assert gate.wait(LONG)

    with chain(Step(handler)) as flow, flow.stream("r0") as stream:
        assert kinds(until_read(stream, 2)) == ["job_started", "activation_started"]
        rest = in_thread(lambda: list(stream))
        while not stream._tape._bells:  # it sleeps, or is about to
            threading.Event().wait(0.001)
        stream.close()
        assert rest() == []
        assert stream.job_state.status == "running"
        gate.set()
        assert stream.job_state.wait(LONG)
        assert list(stream) == []
        assert len(list(flow.subscribe(stream.job_state, cursor=stream.cursor))) == 2


def test_h4_who_waits_no_more_leaves_no_bell():
    with chain(Source(range(10)), Sink()) as flow:
        stream = flow.stream("r0")
        list(stream)
        assert stream._tape._bells == []


# --- how it ends ------------------------------------------------------------------------------------------------------


def failing(step, **_):
    raise ValueError("broken")


def test_h4_the_stream_of_a_job_that_fails_ends_with_its_failure():
    with chain(Step(failing)) as flow:
        stream = flow.stream("r0")
        facts = list(stream)
        assert kinds(facts)[-3:] == ["activation_failed", "activation_ended", "job_failed"]
        assert facts[-1].fields["error"] == stream.job_state.error
        flow.resume(stream.job_state)
        assert kinds(stream)[:2] == ["job_resumed", "activation_started"]


def test_h4_a_stream_ends_when_the_job_is_paused_and_goes_on_with_it():
    def handler(step):
        ctx = step.get_execution_context()
        step.emit("output")
        ctx.flow.pause(ctx.job_state, "for lunch")

    with chain(Step(handler), Sink()) as flow:
        stream = flow.stream("r0")
        facts = list(stream)
        assert of_kind(facts, "job_paused") == [{"reason": "for lunch"}]
        assert list(stream) == []
        other = flow.stream("r0", job_state=stream.job_state)
        assert other.job_state == stream.job_state
        assert list(other) == list(stream)
        assert kinds(flow.subscribe(stream.job_state, cursor=len(facts)))[0] == "job_resumed"


def test_l5_a_job_that_was_paused_and_not_streamed_is_streamed_from_where_it_goes_on():
    def handler(step):
        ctx = step.get_execution_context()
        step.emit("output")
        ctx.flow.pause(ctx.job_state)

    with chain(Step(handler), Sink()) as flow:
        facts = list(flow.stream("r0", job_state=flow.execute("r0")))
    assert kinds(facts) == ["job_resumed", "activation_started", "activation_ended", "job_completed"]
    assert facts[0].cursor == 0


def test_l5_the_state_of_an_ended_job_is_handed_to_one_that_is_streamed():
    with chain(Sink()) as flow:
        before = flow.execute("r0", {"data": 1}, initial_state={"n": 1})
        stream = flow.stream("r0", {"data": 1}, job_state=before)
        list(stream)
        assert stream.job_state != before
        assert stream.job_state.get_shared_data("n") == 1


def test_h4_the_stream_of_a_job_that_is_cancelled_ends_when_its_handlers_have_returned():
    gate, reached = threading.Event(), threading.Event()

    def handler(step):
        reached.set()
        assert gate.wait(LONG)

    with chain(Step(handler)) as flow:
        stream = flow.stream("r0")
        assert reached.wait(LONG)
        flow.cancel(stream.job_state, "enough")
        facts = in_thread(lambda: list(stream))
        gate.set()
        assert kinds(facts()) == ["job_started", "activation_started", "job_cancelled", "activation_ended"]


def test_h4_a_stream_until_the_end_goes_on_over_pauses():
    paused = threading.Event()

    def handler(step):
        ctx = step.get_execution_context()
        step.emit("output")
        ctx.flow.pause(ctx.job_state)

    def receiver(flow, **_):
        paused.set()

    with chain(Step(handler), Sink()) as flow, signals.job_paused.connected_to(receiver, sender=flow):
        stream = flow.stream("r0", until_ended=True)
        facts = in_thread(lambda: list(stream))
        assert paused.wait(LONG)
        flow.resume(stream.job_state)
        assert kinds(facts())[-1] == "job_completed"


def test_h4_the_stream_of_a_job_that_has_ended_gives_what_there_is():
    with chain(Source([1]), Sink()) as flow:
        state = flow.execute("r0")
        assert list(flow.subscribe(state, cursor=0)) == []
        stream = flow.stream("r0")
        assert stream.job_state.wait(LONG)
        assert len(list(flow.subscribe(stream.job_state, cursor=0, until_ended=True))) == 7
        assert list(flow.subscribe(stream.job_state)) == []


def test_h4_everything_was_told_when_a_stream_ends(heard):
    with chain(Source(range(20)), Sink(), execution_strategy="concurrent", max_workers=4) as flow:
        for count in range(1, 6):
            stream = flow.stream("r0")
            assert len(list(stream)) * count == len(heard)
            assert stream.job_state.status == "completed"


# --- in programs with an event loop -----------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("kind", [Step, AsyncStep])
def test_h4_a_stream_can_be_read_by_a_task(options, kind):
    async def coroutine(step, data):
        step.emit("output", data=data)

    def plain(step, data):
        step.emit("output", data=data)

    async def main():
        stream = flow.astream("r0")
        return stream, [fact async for fact in stream]

    with chain(Source(range(3)), kind(plain if kind is Step else coroutine), Sink(), **options) as flow:
        stream, facts = asyncio.run(main())
        assert kinds(facts)[:2] == ["job_started", "activation_started"]
        assert kinds(facts)[-1] == "job_completed"
        assert [fact.cursor for fact in facts] == list(range(len(facts)))
        assert len(of_kind(facts, "event_emitted")) == 6
        assert list(flow.subscribe(stream.job_state, cursor=0)) == facts


def test_h4_the_callers_loop_goes_on_while_a_task_reads():
    release, began = Signal(), Signal()

    def handler(step):
        began.set()
        assert release.wait()

    async def read(stream):
        return [fact async for fact in stream]

    async def main():
        readers = []
        async with flow.astream("r0") as stream:
            readers = [asyncio.ensure_future(read(flow.subscribe(stream.job_state, cursor=0))) for _ in range(20)]
            readers.append(asyncio.ensure_future(read(stream)))
            await began
            assert not any(reader.done() for reader in readers)
            release.set()
            return await asyncio.gather(*readers)

    with chain(Step(handler)) as flow:
        found = asyncio.run(main())
    assert {tuple(kinds(each)) for each in found} == {
        ("job_started", "activation_started", "activation_ended", "job_completed")
    }


def test_h4_a_task_that_is_cancelled_while_it_reads_leaves_the_job_alone():
    release = Signal()

    async def main():
        stream = flow.astream("r0")
        async for fact in stream:
            if fact.kind == "activation_started":
                break
        reader = asyncio.ensure_future(stream.__anext__())
        while not stream._tape._bells:
            await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert stream._tape._bells == []
        release.set()
        return [fact async for fact in stream]

    with chain(Step(lambda step: release.wait())) as flow:
        assert kinds(asyncio.run(main())) == ["activation_ended", "job_completed"]


def test_h4_a_task_that_reads_a_closed_stream_is_over():
    release = Signal()

    async def main():
        stream = flow.astream("r0")
        reader = asyncio.ensure_future(collect(stream))
        while stream.cursor < 2 or not stream._tape._bells:
            await asyncio.sleep(0)
        stream.close()
        return await reader

    async def collect(stream):
        return [fact async for fact in stream]

    with chain(Step(lambda step: release.wait())) as flow:
        assert kinds(asyncio.run(main())) == ["job_started", "activation_started"]
        release.set()


def test_h4_a_coroutine_handler_reads_the_stream_of_another_job():
    seen = []

    async def outer(step):
        async for fact in inner.astream("r0"):
            seen.append(fact.kind)
        with pytest.raises(ContextError, match="use 'async for'"):
            next(inner.stream("r0"))

    with chain(Source([1]), AsyncStep(lambda step, data: asyncio.sleep(0))) as inner, chain(AsyncStep(outer)) as flow:
        flow.execute("r0").raise_for_status()
    assert (seen[0], seen[-1], len(seen)) == ("job_started", "job_completed", 7)


def test_h4_a_handler_that_reads_the_stream_of_another_job_takes_no_worker_from_it():
    seen = []
    engine = Engine(max_workers=1)

    def outer(step):
        seen.extend(fact.kind for fact in inner.stream("r0"))

    with chain(Source([1]), Sink(), engine=engine) as inner, chain(Step(outer), engine=engine) as flow:
        flow.start("r0").wait(LONG)
    assert seen[-1:] == ["job_completed"]


# --- durable jobs -----------------------------------------------------------------------------------------------------


def waiting(step, **_):
    ctx = step.get_execution_context()
    step.send_output("progress", done=1)
    ctx.store.set("n", 1)
    ctx.step.run("one", lambda: 1)
    ctx.emit("output")
    answer = ctx.step.wait_for_event("two", "go")
    step.send_output("progress", done=answer)


WAITING = [
    "job_started",
    "activation_started",
    "state_changed",
    "output_sent",
    "event_emitted",
    "activation_started",
    "activation_ended",
    "job_waiting",
]
WOKEN = ["job_resumed", "output_sent", "activation_ended", "job_completed"]


@pytest.mark.parametrize("kind", [Step, AsyncStep])
def test_h4_a_durable_job_is_streamed_over_its_waits_and_nothing_is_told_twice(engine, heard, kind):
    async def awaiting(step, **_):
        ctx = step.get_execution_context()
        step.send_output("progress", done=1)
        await ctx.store.set("n", 1)
        await ctx.step.run("one", lambda: 1)
        ctx.emit("output")
        answer = await ctx.step.wait_for_event("two", "go")
        step.send_output("progress", done=answer)

    flow = chain(kind(waiting if kind is Step else awaiting), Sink(), engine=engine)
    stream = flow.stream("r0", job_id="j")
    facts = list(stream)
    assert (sorted(kinds(facts)), facts[-1].kind) == (sorted(WAITING), "job_waiting")
    assert list(stream) == []
    engine.publish("go", 2, job_id="j")
    facts += stream
    assert kinds(facts)[len(WAITING) :] == WOKEN
    assert facts[len(WAITING)].fields == {"was": "waiting"}
    assert [(fact.kind, fact.fields) for fact in facts] == heard
    assert [fact.output.data["done"] for fact in facts if fact.output is not None] == [1, 2]


def test_h4_a_durable_job_that_waits_for_a_time_is_streamed_to_its_end(engine):
    def handler(step):
        step.get_execution_context().step.wait_for("a moment", seconds=0.02)

    flow = chain(Step(handler), engine=engine)
    assert kinds(flow.stream("r0")) == [
        "job_started",
        "activation_started",
        "job_waiting",
        "job_resumed",
        "activation_ended",
        "job_completed",
    ]


def test_h4_a_job_that_sleeps_keeps_its_tape_for_those_who_come_back(engine):
    flow = chain(Step(waiting), Sink(), engine=engine)
    begin = list(flow.stream("r0", job_id="j"))
    gc.collect()
    stream = flow.subscribe(engine.get("j"), cursor=3, until_ended=True)
    assert until_read(stream, 5) == begin[3:]
    rest = in_thread(lambda: list(stream))
    engine.publish("go", 2, job_id="j")
    assert kinds(rest()) == WOKEN


def test_h4_a_job_that_sleeps_is_kept_from_its_first_subscription_on(engine):
    flow = chain(Step(waiting), Sink(), engine=engine)
    assert flow.execute("r0", job_id="j").status == "waiting"
    flow.subscribe(engine.get("j"))
    gc.collect()
    engine.publish("go", 2, job_id="j")
    assert engine.get("j").wait(LONG)
    assert is_gone(engine, "j")  # it has ended


def test_h4_a_job_that_sleeps_and_is_not_streamed_is_not_kept(engine):
    flow = chain(Step(waiting), Sink(), engine=engine)
    assert flow.execute("r0", job_id="j").status == "waiting"
    assert is_gone(engine, "j")


def test_h4_to_stream_a_job_that_the_store_has_is_to_stream_that_job(engine):
    flow = chain(Step(waiting), Sink(), engine=engine)
    begin = list(flow.stream("r0", job_id="j"))
    assert list(flow.stream("r0", job_id="j")) == begin
    engine.publish("go", 2, job_id="j")
    state = engine.get("j")
    assert state.wait(LONG)
    assert kinds(flow.stream("r0", job_id="j")) == WAITING + WOKEN
    del state
    assert is_gone(engine, "j")
    assert list(flow.stream("r0", job_id="j")) == []  # it is read from the store, which has no tape


def test_h4_a_recovered_job_is_streamed(tmp_path):
    path = f"sqlite:///{tmp_path}/jobs.db"
    with Engine(store=open_store(path)) as engine:
        chain(Step(waiting), Sink(), engine=engine).execute("r0", job_id="j")
    with Engine(store=open_store(path)) as engine:
        flow = chain(Step(waiting), Sink(), engine=engine)
        engine.recover()
        stream = flow.subscribe(engine.get("j"), cursor=0, until_ended=True)
        facts = in_thread(lambda: list(stream))
        engine.publish("go", 2, job_id="j")
        assert kinds(facts()) == WOKEN


def test_h4_a_job_of_another_process_cannot_be_streamed_and_says_so(tmp_path):
    path = f"sqlite:///{tmp_path}/jobs.db"
    with Engine(store=open_store(path)) as there, Engine(store=open_store(path)) as here:
        chain(Step(waiting), Sink(), engine=there).execute("r0", job_id="j")
        flow = chain(Step(waiting), Sink(), engine=here)
        with pytest.raises(ExecutionError, match="flow 'chain': job 'j' does not run in this process"):
            flow.subscribe(here.get("j"))
        with pytest.raises(ExecutionError, match="does not run in this process"):
            flow.stream("r0", job_id="j")
        there.publish("go", 2, job_id="j")
        assert there.get("j").wait(LONG)
        assert list(flow.subscribe(here.get("j"))) == []


def test_h4_a_job_that_was_submitted_is_streamed_once_it_runs_here(engine):
    flow = chain(Step(waiting), Sink(), engine=engine)
    state = engine.submit(flow, entry="r0", job_id="j")
    with pytest.raises(ExecutionError, match="does not run in this process"):
        flow.subscribe(state)
    engine.recover()
    stream = flow.subscribe(state, until_ended=True)
    engine.publish("go", 2, job_id="j")
    assert kinds(stream)[-1] == "job_completed"


@pytest.mark.parametrize("leave", ["engine", "flow"])
@pytest.mark.parametrize("kind", ["thread", "task"])
def test_h4_one_who_reads_is_told_when_the_job_cannot_go_on_here(leave, kind):
    with Engine(store=open_store("memory:")) as engine:
        flow = chain(Step(waiting), Sink(), engine=engine)
        stream = flow.stream("r0", until_ended=True)
        until_read(stream, len(WAITING))

        async def collect():
            return [fact async for fact in stream]

        rest = in_thread(lambda: list(stream) if kind == "thread" else asyncio.run(collect()))
        while not stream._tape._bells:
            threading.Event().wait(0.001)
        if leave == "engine":
            engine.close()
        else:
            flow.shutdown()
        with pytest.raises(ExecutionError, match="was closed" if leave == "engine" else "was shut down"):
            rest()


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_h4_with_commits_that_lag_a_stream_ends_when_they_are_kept(tmp_path, kind):
    with Engine(store=open_store(f"sqlite:///{tmp_path}/jobs.db"), durability="async", max_lag_seconds=5.0) as engine:
        flow = chain(Source(range(5)), Sink(), engine=engine)

        async def collect():
            return [fact async for fact in flow.astream("r0", job_id="j")]

        facts = list(flow.stream("r0", job_id="j")) if kind == "thread" else asyncio.run(collect())
        assert kinds(facts)[-1] == "job_completed"
        with Engine(store=open_store(f"sqlite:///{tmp_path}/jobs.db")) as other:
            assert [head.status for head in other.jobs()] == ["completed"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [0, -1, 1.5, "10", None, True])
def test_a_buffer_is_a_whole_number_of_at_least_1(buffer):
    with chain(Sink()) as flow:
        for begin in (flow.stream, flow.astream):
            with pytest.raises(DeclarationError, match="flow 'chain': buffer must be a whole number of at least 1"):
                begin("r0", buffer=buffer)
        assert flow._jobs.running() == []
        with pytest.raises(DeclarationError, match="buffer must be"):
            flow.subscribe(flow.execute("r0", {"data": 1}), buffer=buffer)


@pytest.mark.parametrize("cursor", [-1, 1.0, "0", True])
def test_a_cursor_is_a_whole_number_of_at_least_0(cursor):
    with chain(Sink()) as flow, pytest.raises(DeclarationError, match="cursor must be a whole number of at least 0"):
        flow.subscribe(flow.execute("r0", {"data": 1}), cursor=cursor)


def test_a_cursor_is_not_beyond_what_was_told():
    with chain(Sink()) as flow:
        stream = flow.stream("r0", {"data": 1}, job_id="j")
        assert len(list(stream)) == 4
        with pytest.raises(ExecutionError, match=r"flow 'chain': job 'j' has told 4 facts.*cursor=5"):
            flow.subscribe(stream.job_state, cursor=5)
        assert list(flow.subscribe(stream.job_state, cursor=4)) == []
        plain = flow.execute("r0", {"data": 1})
        with pytest.raises(ExecutionError, match="has told 0 facts"):
            flow.subscribe(plain, cursor=1)
        assert plain._job.tape is None


def test_only_jobs_of_the_flow_are_streamed():
    with chain(Sink()) as flow, chain(Sink()) as other:
        state = other.execute("r0", {"data": 1})
        with pytest.raises(ExecutionError, match="is not a job of this flow"):
            flow.subscribe(state)
        with pytest.raises(ExecutionError, match="expected the JobState of a job"):
            flow.subscribe("j")


def test_a_job_that_runs_cannot_be_begun_again():
    release = threading.Event()
    with chain(Step(lambda step: release.wait(LONG))) as flow:
        state = flow.start("r0")
        with pytest.raises(StatusError, match="it neither is paused nor waits"):
            flow.stream("r0", job_state=state)
        release.set()


@pytest.mark.parametrize("kind", [Step, AsyncStep])
def test_a_handler_cannot_read_the_stream_of_its_own_job(kind):
    def plain(step):
        ctx = step.get_execution_context()
        next(ctx.flow.subscribe(ctx.job_state))

    async def coroutine(step):
        ctx = step.get_execution_context()
        await ctx.flow.subscribe(ctx.job_state).__anext__()

    with chain(kind(plain if kind is Step else coroutine)) as flow:
        error = flow.execute("r0", job_id="j").error
    assert error.type == "ContextError"
    assert "reading its stream inside a handler of job 'j' would wait for itself" in error.message


def test_a_receiver_cannot_read_the_stream_of_the_job_that_it_hears_of():
    errors = []

    def receiver(flow, job_state, **_):
        with pytest.raises(ContextError, match="inside a listener") as caught:
            next(flow.subscribe(job_state))
        errors.append(caught)

    with chain(Sink()) as flow, signals.job_completed.connected_to(receiver, sender=flow):
        flow.execute("r0", {"data": 1})
    assert len(errors) == 1


def test_a_stream_shows_its_job_and_its_cursor():
    with chain(Sink()) as flow:
        stream = flow.stream("r0", {"data": 1}, job_id="j")
        assert isinstance(stream, Stream)
        assert repr(stream) == "<Stream of job 'j' at cursor 0>"
        list(stream)
