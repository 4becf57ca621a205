"""H: the history of a job, the exact numbers over it, and the texts made of it."""

from __future__ import annotations

import gc
from collections import Counter
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from statistics import mean
from unittest import mock

import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import Sink, Source, Step, chain

from routilux import Clock, Engine, ErrorHandler, ErrorRecord, ExecutionError, Flow, Routine, open_store, signals
from routilux.core import history as histories
from routilux.core.history import PART, Histogram, History, Totals, with_data
from routilux.runtime import reports

MS = 1_000_000
DAY = 86_400 * 10**9
UTC_AT_ZERO = datetime(2024, 5, 17, 8, 0, 0, tzinfo=timezone.utc)
EPOCH_NS = int(UTC_AT_ZERO.timestamp()) * 10**9


class Ticker:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 0
        self.engine = Engine(Clock(monotonic_ns=lambda: self.now, time_ns=lambda: EPOCH_NS + self.now))

    def pass_by(self, nanoseconds):
        self.now += nanoseconds


def job_of(step):
    return step.get_execution_context().job_state


def keyed(history):
    return [(record.routine_id, record.slot, record.event_name, record.data) for record in history]


# --- H1: one record per activation ----------------------------------------------------------------------------------


def test_h1_one_record_per_activation_with_the_last_emission_or_the_slot_and_payload():
    def twice(step, data):
        step.emit("output", data=data, n=1)
        step.emit("output", data=data, n=2)

    state = chain(Source(), Step(twice), Sink()).execute("r0", {"items": ["a"]})
    assert keyed(state.get_execution_history()) == [
        ("r0", "trigger", "output", {"data": "a"}),
        ("r1", "input", "output", {"data": "a", "n": 2}),
        ("r2", "input", "input", {"data": "a", "n": 1}),
        ("r2", "input", "input", {"data": "a", "n": 2}),
    ]
    assert [record.emitted for record in state.get_execution_history()] == [1, 2, 0, 0]


def test_h1_an_emission_without_a_connection_is_recorded_too():
    state = chain(Source([1])).execute("r0")
    assert [(r.event_name, r.data, r.emitted) for r in state.get_execution_history()] == [("output", {"data": 1}, 1)]


def test_h1_an_event_without_parameters_has_no_data():
    state = chain(Step(lambda step, **payload: step.emit("output"))).execute("r0", {"data": 1})
    assert [(record.event_name, record.data) for record in state.get_execution_history()] == [("output", {})]


def test_h1_records_are_in_order_of_their_start_also_when_an_earlier_one_ends_later():
    ticker = Ticker()
    sink = Step(lambda step, data: ticker.pass_by(MS))
    source = Step(lambda step, **_: [ticker.pass_by(MS) or step.emit("output", data=n) for n in range(4)])
    state = chain(source, sink, max_pending=1, engine=ticker.engine).execute("r0")
    history = state.get_execution_history()
    assert [record.routine_id for record in history] == ["r0", "r1", "r1", "r1", "r1"]
    assert [record.timestamp for record in history] == sorted(record.timestamp for record in history)
    assert state._record.history.kept()[0][0] == "r1", "some sink must have ended before the source for this to tell"


def test_h1_the_history_of_one_routine():
    state = chain(Source([1, 2]), Sink()).execute("r0")
    assert keyed(state.get_execution_history("r1")) == [
        ("r1", "input", "input", {"data": 1}),
        ("r1", "input", "input", {"data": 2}),
    ]
    with pytest.raises(ExecutionError, match="did you mean 'r1'"):
        state.get_execution_history("r11")


def test_h1_timestamp_and_duration_are_those_of_the_activation():
    ticker = Ticker()
    ticker.pass_by(3 * MS)
    source = Step(lambda step: ticker.pass_by(20 * MS) or step.emit("output", data=1))
    state = chain(
        source, Step(lambda step, data: ticker.pass_by(7 * MS)), engine=ticker.engine
    ).execute("r0")  # fmt: skip
    first, second = state.get_execution_history()
    assert (first.timestamp, first.duration) == (UTC_AT_ZERO + timedelta(milliseconds=3), 0.020)
    assert (second.timestamp, second.duration) == (UTC_AT_ZERO + timedelta(milliseconds=23), 0.007)
    assert first.timestamp.tzinfo is not None


def test_h1_a_retried_activation_is_one_record_from_its_first_start_over_all_its_attempts():
    ticker = Ticker()

    def third_time(step, data):
        ticker.pass_by(10 * MS)
        step.emit("output", data=data, attempt=step.get_execution_context().attempt)
        if step.get_execution_context().attempt < 3:
            raise ValueError("not yet")

    step = Step(third_time)
    step.set_error_handler(ErrorHandler("retry", max_retries=2, retry_delay=0))
    state = chain(step, Sink(), engine=ticker.engine).execute("r0", {"data": 1})
    record, _ = state.get_execution_history()
    assert (record.attempt, record.status, record.error) == (3, "completed", None)
    assert (record.duration, record.timestamp) == (0.030, UTC_AT_ZERO)
    assert (record.emitted, record.data) == (1, {"data": 1, "attempt": 3})
    assert state.performance("r0").count == 1


@pytest.mark.parametrize(
    ("strategy", "status", "emitted", "event"),
    [
        ("stop", "failed", 1, "output"),
        ("continue", "failed", 1, "output"),
        ("skip", "skipped", 0, "input"),
        ("retry", "failed", 0, "input"),
    ],
)
def test_h1_a_failed_activation_has_its_status_and_error(strategy, status, emitted, event):
    def fail(step, data):
        step.emit("output", data=data)
        raise ValueError("no good")

    step = Step(fail)
    step.set_error_handler(ErrorHandler(strategy, max_retries=1, retry_delay=0))
    state = chain(step).execute("r0", {"data": 1})
    (record,) = state.get_execution_history()
    assert (record.status, record.emitted, record.event_name, record.data) == (status, emitted, event, {"data": 1})
    assert record.error == state.error
    assert (record.error.type, record.error.message) == ("ValueError", "no good")
    assert record.attempt == record.error.attempt == (2 if strategy == "retry" else 1)


def test_h1_an_activation_that_outlived_its_job_is_cancelled():
    def cancel(step):
        context = step.get_execution_context()
        context.flow.cancel(context.job_state)

    state = chain(Step(cancel)).execute("r0")
    assert [(record.status, record.error) for record in state.get_execution_history()] == [("cancelled", None)]


def test_h1_data_are_the_readers_copies():
    state = chain(Source(), Sink()).execute("r0", {"items": [{"n": [1]}]})
    for record in state.get_execution_history():
        record.data["data" if "data" in record.data else "items"]["n"].append("mine")
        record.data.clear()
    assert [record.data for record in state.get_execution_history()] == [{"data": {"n": [1]}}] * 2


def test_h1_what_a_handler_does_to_its_payload_does_not_show():
    state = chain(Source(), Step(lambda step, data: data.append("mine"))).execute("r0", {"items": [[1]]})
    assert state.get_execution_history("r1")[0].data == {"data": [1]}


def test_h1_a_record_is_frozen():
    (record,) = chain(Sink()).execute("r0").get_execution_history()
    with pytest.raises(AttributeError):
        record.status = "other"


def test_h1_log_entries_get_their_timestamp_last_as_an_iso_string():
    ticker = Ticker()

    def log(step):
        ticker.pass_by(1500)
        job_of(step).append_to_shared_log({"what": "happened", "n": 1})

    (entry,) = chain(Step(log), engine=ticker.engine).execute("r0").get_shared_log()
    assert list(entry) == ["what", "n", "timestamp"]
    assert entry["timestamp"] == "2024-05-17T08:00:00.000001+00:00"
    assert datetime.fromisoformat(entry["timestamp"]) == UTC_AT_ZERO + timedelta(microseconds=1)


# --- H2: the limit --------------------------------------------------------------------------------------------------


def entry(routine_id, number, duration=1, waited=0, error=None, emitted=0):
    return (routine_id, "s", "s", {"n": number}, number, duration, waited, "completed", error, 1, emitted)


def add(history, each):
    """Add an entry as one activation does."""
    history.extend([with_data(each, None)], [each[3]])


BOOM = ErrorRecord("Boom", "", "")
ENTRIES = st.lists(
    st.builds(
        entry,
        st.sampled_from("ab"),
        st.integers(0, 9),
        st.integers(0, DAY),
        st.integers(0, DAY),
        st.sampled_from([None, BOOM]),
        st.integers(0, 5),
    ),
    max_size=400,
)


@pytest.mark.parametrize("store", [None, "memory:"], ids=["in memory", "durable"])
def test_h1_listeners_are_told_the_record_that_the_history_keeps(store):
    told = []

    def failing_once(step, data):
        step.emit("output", data=data + 1)
        if data == 1 and step.get_execution_context().attempt == 1:
            raise ValueError("once")

    with Engine(store=None if store is None else open_store(store)) as engine:
        flow = chain(Source([1, 2, 3]), Step(failing_once), Sink(merge_strategy="append"), engine=engine)
        flow.set_error_handler(ErrorHandler("retry", max_retries=2, retry_delay=0.0))

        def listen(sender, record, **rest):
            told.append(record)

        with signals.activation_ended.connected_to(listen, sender=flow):
            state = flow.execute("r0")
    assert sorted(told, key=lambda record: record.timestamp) == state.get_execution_history()
    assert len(told) == 7


@examples(100)
@given(st.one_of(st.none(), st.integers(0, 150)), ENTRIES, st.integers(1, 50), st.integers(1, 5), st.integers(0, 200))
def test_h2_the_latest_are_kept_and_the_totals_stay_exact(limit, entries, look_every, part, at_once):
    with mock.patch.object(histories, "PART", part):
        history = History(limit)
        history.extend([with_data(each, None) for each in entries[:at_once]], [each[3] for each in entries[:at_once]])
        for number, each in enumerate(entries[at_once:]):
            add(history, each)
            if number % look_every == 0:
                history.count()  # looking in between changes nothing
        kept, copied, totals = history.kept(), history.copy().kept(), history.count()
    assert kept == copied == (entries if limit is None else entries[max(len(entries) - limit, 0) :])
    if limit is not None:
        assert len(history) <= limit + max(limit, 100), "what is dropped is let go of"
    expected = {}
    for each in entries:
        expected.setdefault(each[0], []).append(each)
    assert totals.keys() == expected.keys()
    for name, mine in expected.items():
        durations = [each[5] for each in mine]
        assert totals[name] == Totals(
            count=len(mine),
            errors=sum(each[8] is not None for each in mine),
            emitted=sum(each[10] for each in mine),
            total=sum(durations),
            least=min(durations),
            most=max(durations),
        )
        assert totals[name].durations.count == totals[name].waits.count == len(mine)


@pytest.mark.parametrize("limit", [0, 1, 10, 100, 1000])
def test_h2_dropping_one_entry_costs_a_constant(limit):
    class Counting(History):
        drops = 0

        def drop(self):
            self.drops += 1
            super().drop()

    history = Counting(limit)
    for number in range(10_000):
        add(history, entry("a", number))
    assert 0 < history.drops <= 10_000 / max(limit, 100)
    assert history.count()["a"].count == 10_000


def test_h2_the_garbage_collector_lets_go_of_old_entries():
    history = History()
    for number in range(3 * PART + 1):
        add(history, entry("a", number))
    for _ in range(3):  # an entry first, then what it is in
        gc.collect()
    assert [gc.is_tracked(part) for part in history.parts] == [False, False, False]


@pytest.mark.parametrize("limit", [None, 0, 10, PART - 1, PART, PART + 1, 3 * PART])
@pytest.mark.parametrize("looks_at", [(), (PART - 1, PART, PART + 1), (5, 3 * PART, 5 * PART - 1)], ids=str)
def test_h2_entries_and_totals_of_a_long_history_are_as_of_a_short_one(limit, looks_at):
    history, flat = History(limit), [entry("ab"[number % 2], number) for number in range(5 * PART + 7)]
    for number, each in enumerate(flat):
        add(history, each)
        if number in looks_at:
            earlier, there_were, counted = history.copy(), history.kept(), number + 1
            history.count()
    assert history.kept() == (flat if limit is None else flat[len(flat) - limit :])
    plain = [with_data(each, None) for each in flat[history.dropped :]]
    for start in (0, 1, PART - 1, PART, PART + 1, 2 * PART, len(plain) - 1, len(plain)):
        if start <= len(plain):
            assert history.entries(start) == plain[start:]
    assert sum(totals.count for totals in history.count().values()) == len(flat)
    if looks_at:
        assert earlier.kept() == there_were
        assert sum(totals.count for totals in earlier.count().values()) == counted, "a copy stays as it is"


@pytest.mark.parametrize("limit", [None, 0, 10, PART, 2 * PART])
@pytest.mark.parametrize("loads", [None, 0, 10, PART, 2 * PART])
def test_h2_a_long_history_is_saved_and_loaded_as_a_short_one(limit, loads, tmp_path):
    size = 3 * PART

    def look(step, data):
        if data == size // 2:
            job_of(step).performance()

    def flow_of(limit):
        return chain(Source(), Step(look), history_limit=limit)

    with flow_of(limit) as flow:
        state = flow.execute("r0", {"items": range(size)})
        state.save(tmp_path / "job.json")
    with flow_of(loads) as flow:
        loaded = flow.load(tmp_path / "job.json")
    kept = state.get_execution_history()
    assert len(kept) == (size + 1 if limit is None else limit)
    numbers = [record.data["data"] for record in kept if record.routine_id == "r1"]
    assert numbers == [*range(size - len(numbers), size)]
    assert loaded.get_execution_history() == (kept if loads is None else kept[len(kept) - min(loads, len(kept)) :])
    assert loaded.performance() == state.performance()
    assert state.performance("r1").count == size


@pytest.mark.parametrize("limit", [0, 3, 150])
def test_h2_a_job_keeps_the_latest_records_and_counts_all(limit):
    state = chain(Source(), Sink(), history_limit=limit).execute("r0", {"items": range(500)})
    kept = state.get_execution_history()
    assert len(kept) == limit
    assert [record.data["data"] for record in kept] == list(range(500 - limit, 500))
    assert (state.performance("r0").count, state.performance("r1").count) == (1, 500)
    assert state.performance("r0").emitted == 500


def test_h2_errors_are_counted_and_kept_when_their_records_are_dropped():
    def odd(step, data):
        if data % 2:
            raise ValueError(data)

    step = Step(odd)
    step.set_as_optional()
    state = chain(Source(range(20)), step, history_limit=0).execute("r0")
    assert (state.performance("r1").errors, len(state.errors), state.get_execution_history()) == (10, 10, [])


# --- H3: performance ------------------------------------------------------------------------------------------------

SHARES = st.sampled_from([Fraction(1, 100), Fraction(1, 4), Fraction(1, 2), Fraction(99, 100), Fraction(1)])
DURATIONS = st.lists(
    st.one_of(st.integers(1, DAY), st.integers(1, 100), st.integers(0, 46).map(lambda n: 2**n)), min_size=1, max_size=60
)


def exact_quantile(values, share):
    """The least value that at least ``share`` of all do not exceed."""
    rank = -(-share * len(values) // 1)
    return sorted(values)[max(int(rank), 1) - 1]


@examples(300)
@given(DURATIONS, SHARES)
def test_h3_quantiles_are_within_5_percent(values, share):
    histogram = Histogram()
    histogram.add_all(values)
    exact = exact_quantile(values, share)
    assert abs(histogram.quantile(float(share)) - exact) <= exact * 0.05


@given(st.integers(0, DAY))
def test_h3_every_duration_has_a_bucket_of_its_size(value):
    histogram = Histogram()
    histogram.add(value)
    assert abs(histogram.quantile(0.5) - value) <= value * 0.05


def test_h3_totals_are_the_same_whether_entries_are_counted_one_by_one_or_in_portions(monkeypatch):
    monkeypatch.setattr(histories, "PORTION", 50)
    entries = []
    for number in range(333):
        routine_id, error = f"r{number % 3 if number % 5 else 9}", None if number % 7 else BOOM
        times = (number, number * 7919, number * 104_729)
        entries.append((routine_id, "s", "e", None, *times, "completed", error, 1, number % 4))
    expected: dict[str, Totals] = {}
    for entry in entries:
        expected.setdefault(entry[0], Totals()).add(entry)
    found: dict[str, Totals] = {}
    histories.add_up(found, entries)
    assert found == expected
    assert list(found) == list(expected)
    for name, totals in found.items():
        assert totals.durations.buckets == expected[name].durations.buckets
        assert totals.waits.buckets == expected[name].waits.buckets


@given(st.lists(st.integers(0, 2**53)))
def test_h3_durations_go_to_the_buckets_that_saved_jobs_name_however_many_there_are(values):
    one_by_one, all_at_once = Histogram(), Histogram()
    for value in values:
        one_by_one.add(value)
    all_at_once.add_all(values)
    shifts = [max(value.bit_length() - 5, 0) for value in values]
    expected = Counter(16 * shift + (value >> shift) for value, shift in zip(values, shifts, strict=True))
    assert one_by_one.buckets == all_at_once.buckets == expected
    assert one_by_one.count == all_at_once.count == len(values)


def test_h3_nothing_counted_is_zero():
    assert Histogram().quantile(0.99) == 0
    assert reports.performance(Totals()) == reports.Performance(0, 0, 0, *[0.0] * 8)


def test_h3_the_histogram_stays_small():
    histogram = Histogram()
    for power in range(1, 47):
        histogram.add_all([2**power + step * 2**power // 200 for step in range(200)])
    assert len(histogram.buckets) < 46 * 17


@examples(40)
@given(DURATIONS, st.sets(st.integers(0, 59)), st.sampled_from([None, 0, 5]))
def test_h3_performance_is_exact_but_for_its_quantiles(durations, failing, limit):
    ticker = Ticker()

    def work(step, data):
        ticker.pass_by(durations[data])
        if data in failing:
            raise ValueError

    step = Step(work)
    step.set_as_optional()
    flow = chain(Source(range(len(durations))), step, history_limit=limit, engine=ticker.engine)
    timing = flow.execute("r0").performance("r1")
    assert (timing.count, timing.errors) == (len(durations), len(failing & set(range(len(durations)))))
    assert timing.total == sum(durations) / 1e9
    assert timing.mean == pytest.approx(mean(durations) / 1e9, rel=1e-12)
    assert (timing.min, timing.max) == (min(durations) / 1e9, max(durations) / 1e9)
    assert timing.p50 == pytest.approx(exact_quantile(durations, Fraction(1, 2)) / 1e9, rel=0.05)
    assert timing.p99 == pytest.approx(exact_quantile(durations, Fraction(99, 100)) / 1e9, rel=0.05)
    assert timing.min <= timing.p50 <= timing.p99 <= timing.max
    # All arrived at the same time, so each waited for those before it.
    waits = [sum(durations[:n]) for n in range(len(durations))]
    assert timing.wait_p50 == pytest.approx(exact_quantile(waits, Fraction(1, 2)) / 1e9, rel=0.05)
    assert timing.wait_p99 == pytest.approx(exact_quantile(waits, Fraction(99, 100)) / 1e9, rel=0.05)


def test_h3_performance_of_every_routine_that_ran_in_the_order_of_the_flow():
    flow = Flow("f")
    flow.add_routine(Sink(), "z")
    flow.add_routine(Source([1]), "a")
    flow.add_routine(Sink(), "idle")
    flow.connect("a", "output", "z", "input")
    state = flow.execute("a")
    assert list(state.performance()) == ["z", "a"]
    assert state.performance()["a"] == state.performance("a")
    assert state.performance("idle").count == 0


def test_h3_looking_at_the_performance_twice_counts_nothing_twice():
    state = chain(Source([1, 2, 3]), Sink()).execute("r0")
    assert state.performance("r1").count == 3
    assert state.performance("r1").count == 3


def test_h3_time_in_retries_counts_and_time_between_them_does_not():
    ticker = Ticker()

    def once_more(step):
        ticker.pass_by(MS)
        if step.get_execution_context().attempt == 1:
            raise ValueError

    step = Step(once_more)
    step.set_error_handler(ErrorHandler("retry", retry_delay=0))
    timing = chain(step, engine=ticker.engine).execute("r0").performance("r0")
    assert (timing.count, timing.errors, timing.total) == (1, 0, 0.002)


# --- the summary ----------------------------------------------------------------------------------------------------


def test_h3_a_summary_tells_status_times_counts_and_errors():
    ticker = Ticker()

    class Parser(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.parse)
            self.set_as_optional()

        def parse(self, data):
            ticker.pass_by(data * MS)
            if data == 3:
                raise ValueError("three is too many")

    flow = Flow("census", engine=ticker.engine)
    flow.add_routine(Source(), "reader")
    flow.add_routine(Parser(), "parser")
    flow.connect("reader", "output", "parser", "input")
    state = flow.execute("reader", {"items": [1, 2, 3]}, job_id="j1")
    lines = state.summary().splitlines()
    assert lines[0] == "job j1 of flow census: completed"
    assert lines[1] == "started 2024-05-17 08:00:00 UTC, took 6 ms"
    assert lines[2].split() == ["routine", "count", "errors", "total", "mean", "p50", "p99", "max"]
    assert lines[3].split() == ["reader", "1", "0", "0", "us", "0", "us", "0", "us", "0", "us", "0", "us"]
    assert lines[4].split()[:3] == ["parser", "3", "1"]
    assert lines[4].split()[3:7] == ["6", "ms", "2", "ms"]
    assert len(lines) == 7
    assert lines[5].startswith("errors")
    assert lines[5].endswith(": 1")
    assert lines[6].startswith("  ValueError: three is too many in parser.input")


def test_h3_a_summary_of_many_errors_shows_the_first_ones_and_how_many_more_there_are():
    def fail(step, data):
        raise ValueError(f"number {data}")

    step = Step(fail)
    step.set_as_optional()
    text = chain(Source(range(1234)), step).execute("r0").summary()
    (line,) = [line for line in text.splitlines() if line.startswith("errors")]
    assert line.endswith(": 1,234")
    assert "number 9 in r1.input" in text
    assert "number 10 " not in text
    assert text.endswith("and 1,224 more")


def test_h3_a_summary_of_a_job_that_stopped_tells_what_is_pending_and_why_it_was_cancelled():
    def fail(step, data):
        raise ValueError("stop here")

    text = chain(Source([1, 2, 3]), Step(fail)).execute("r0").summary()
    assert ": failed\n" in text
    assert "pending deliveries: 2" in text

    def cancel(step):
        context = step.get_execution_context()
        context.flow.cancel(context.job_state, "changed my mind")

    text = chain(Step(cancel)).execute("r0").summary()
    assert ": cancelled\n" in text
    assert "reason: changed my mind" in text


def test_h3_a_summary_can_be_read_while_the_job_runs():
    texts = []
    chain(Step(lambda step: texts.append(job_of(step).summary()))).execute("r0", job_id="now")
    assert texts[0].startswith("job now of flow chain: running\n")
    assert "pending deliveries: 1" in texts[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 us"), (0.00034, "340 us"), (0.0012, "1.2 ms"), (0.5, "500 ms"), (3.4, "3.4 s"), (125.2, "2 min 5 s")],
)
def test_h3_durations_are_spelled_as_people_write_them(seconds, text):
    assert reports.spell(seconds) == text
