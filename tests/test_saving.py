"""L4, S5, E3, E4, L5: saving a job and loading it: what is kept, what does not fit, and jobs that run meanwhile."""

from __future__ import annotations

import copy
import json
import os
import stat
from datetime import timedelta

import orjson
import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import Sink, Source, Step, chain
from pydantic import BaseModel, Field, field_serializer, field_validator, model_validator

from routilux import (
    Clock,
    DeclarationError,
    Engine,
    ErrorHandler,
    ExecutionError,
    Flow,
    JobState,
    LoadError,
    Routine,
    SaveError,
    StateError,
    StatusError,
)
from routilux.store.files import from_bytes, sealed
from routilux.store.record_copying import snapshot
from routilux.store.record_writing import RecordWriter
from routilux.store.values import Writer

MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


def ctx_of(step):
    return step.get_execution_context()


def again(state, flow):
    """Return the state after saving and loading, through JSON text."""
    return JobState.from_dict(json.loads(json.dumps(state.to_dict())), flow)


def view(state):
    """Return all that there is to see of a job."""
    return (
        (state.job_id, state.flow_id, state.session_id, state.user_id, str(state.status), state.pending_count),
        (state.created_at, state.started_at, state.finished_at, state.result, state.error, state.errors, state.outputs),
        {name: state.get_routine_state(name) for name in state._record.plan.nodes},
        state._record.shared,
        state.get_shared_log(),
        state.get_execution_history(),
        state.performance(),
        state._record.reason,
    )


def full_flow(stop_at=5, **options):
    """A flow whose job has something of everything, and is paused at item 5 of 10."""

    def target(step, data):
        ctx, job = ctx_of(step), ctx_of(step).job_state
        if data == stop_at:
            ctx.flow.pause(job, "for a look")
        if data == 3:
            raise ValueError("not three")
        job.update_shared_data("last", (data, {"x"}))
        job.update_routine_state("r1", {"seen": {data}})
        job.append_to_shared_log({"data": data})
        step.send_output("note", data=data)
        step.emit("output", data=data)

    sink = Sink(merge_strategy="append")
    flow = chain(Source(range(10)), Step(target), sink, engine=Engine(), **options)
    flow.routines["r1"].set_as_optional()
    return flow, sink


# --- what is kept -------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("limit", [None, 0, 3])
def test_l4_a_loaded_job_looks_like_the_one_that_was_saved(options, limit, tmp_path):
    flow, _ = full_flow(history_limit=limit, **options)
    with flow:
        state = flow.execute("r0", {"items": [*range(10)]}, session_id="s", user_id="u", job_id="j")
        assert (str(state.status), state.pending_count) == ("paused", 4 + 5 - len(flow.routines["r2"].got))
        state.save(tmp_path / "job")
        loaded = JobState.load(str(tmp_path / "job"), flow)
        assert view(loaded) == view(again(state, flow)) == view(state)
        assert loaded._record.shared == {"last": (5, {"x"})}
        assert loaded != state


def test_l4_it_goes_on_where_it_was_and_the_original_does_so_too():
    flow, sink = full_flow()
    with flow:
        state = flow.execute("r0")
        data = state.to_dict()
        flow.resume(state)
        assert state.wait()
        whole, sink.got[:] = sink.got[:], []
        loaded = flow.restore(data)
        assert flow.resume(loaded) == loaded
        assert loaded.wait()
        assert sink.got == whole
        assert sink.got[-1] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    histories = [[(each.routine_id, each.data) for each in job.get_execution_history()] for job in (state, loaded)]
    assert histories[0] == histories[1]
    assert loaded.errors == state.errors


def test_l4_data_given_to_a_job_and_got_from_it_stay_apart():
    flow, _ = full_flow()
    state = flow.execute("r0")
    data = state.to_dict()
    data["record"]["history"]["data"][0]["data"] = "changed"
    assert state.get_execution_history("r0")[0].data == {"data": 9}
    loaded = flow.restore(data)
    data["record"]["history"]["data"][0]["data"] = "again"
    assert loaded.get_execution_history("r0")[0].data == {"data": "changed"}


@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled"])
def test_l5_an_ended_job_is_read_after_loading_and_begins_the_next(ending):
    def handler(step):
        ctx_of(step).job_state.update_shared_data("runs", ctx_of(step).job_state.get_shared_data("runs", 0) + 1)
        if ending == "failed":
            raise ValueError("no")
        if ending == "cancelled":
            ctx_of(step).flow.cancel(ctx_of(step).job_state, "why not")
        ctx_of(step).finish((1, 2))

    flow = chain(Step(handler))
    state = flow.execute("r0")
    loaded = again(state, flow)
    assert view(loaded) == view(state)
    assert str(loaded.status) == ending
    assert loaded.result == ((1, 2) if ending == "completed" else None)
    assert loaded.wait()
    if ending != "failed":
        with pytest.raises(StatusError):
            flow.resume(loaded)
    following = flow.execute("r0", job_state=loaded)
    assert following._record.shared["runs"] == 2
    assert loaded.get_shared_data("runs") == state.get_shared_data("runs")


@MODES
@pytest.mark.parametrize("strategy", ["stop", "retry"])
def test_e4_a_failed_job_is_taken_up_after_loading(strategy, options):
    broken = [True]

    def target(step, data):
        if data == 2 and broken:
            raise ValueError("broken")
        step.emit("output", data=data)

    sink = Sink()
    flow = chain(Source(range(5)), Step(target, merge_strategy="override"), sink, engine=Engine(), **options)
    flow.set_error_handler(ErrorHandler(strategy, max_retries=1, retry_delay=0.0))
    with flow:
        loaded = again(flow.execute("r0"), flow)
        assert loaded.status == "failed"
        broken.clear()
        flow.resume(loaded)
        assert loaded.wait()
        loaded.raise_for_status()
    assert sink.got == [0, 1, 2, 3, 4]
    assert [error.type for error in loaded.errors] == ["ValueError"]


def test_e3_a_loaded_failure_is_raised_with_its_type_message_and_traceback():
    def failing(step):
        raise ValueError("the message")

    flow = chain(Step(failing))
    state = flow.execute("r0")
    loaded = again(state, flow)
    with pytest.raises(
        ExecutionError, match=r"failed before it was loaded: ValueError: the message in r0\.input"
    ) as info:
        loaded.raise_for_status()
    assert "in failing" in str(info.value)
    assert loaded.error == state.error


def test_l2_a_loaded_job_can_be_cancelled():
    flow, _ = full_flow()
    loaded = again(flow.execute("r0"), flow)
    flow.cancel(loaded, "because")
    assert (str(loaded.status), loaded.pending_count) == ("cancelled", 0)
    with pytest.raises(ExecutionError, match="was cancelled: because"):
        again(loaded, flow).raise_for_status()


def test_l4_deferred_events_leave_when_a_loaded_job_is_resumed():
    sink = Sink()
    flow = chain(Step(lambda step: step.emit_deferred_event("output", data=(1,))), sink, engine=Engine())
    with flow:
        loaded = again(flow.execute("r0"), flow)
        assert (str(loaded.status), sink.got) == ("paused", [])
        flow.resume(loaded)
        assert loaded.wait()
    assert sink.got == [(1,)]


def test_l4_finish_while_paused_takes_effect_when_a_loaded_job_is_resumed():
    def source(step):
        step.emit("output")
        ctx_of(step).flow.pause(ctx_of(step).job_state)
        ctx_of(step).finish("early")

    flow = chain(Step(source), Sink(), engine=Engine())
    with flow:
        loaded = again(flow.execute("r0"), flow)
        flow.resume(loaded)
        assert (str(loaded.status), loaded.result) == ("completed", "early")


def test_h3_timings_are_exact_after_loading_also_of_dropped_records():
    flow, _ = full_flow(stop_at=290, history_limit=2)
    state = flow.execute("r0", {"items": range(300)})
    assert state._record.history.dropped > 0
    before = state._record.history
    loaded = again(state, flow)
    assert loaded.get_execution_history() == state.get_execution_history()
    assert loaded._record.history.count() == before.count()
    assert loaded._record.history.dropped + 2 == before.dropped + len(before)
    for name, totals in before.count().items():
        for kind in ("durations", "waits"):
            assert getattr(loaded._record.history.count()[name], kind).buckets == getattr(totals, kind).buckets


def test_l4_due_times_stay_absolute_and_an_overdue_retry_runs_on_resume():
    """Another process has another monotonic clock, and the world's has gone on by an hour."""
    attempts = []

    def flaky(step):
        attempts.append(ctx_of(step).attempt)
        if len(attempts) == 1:
            ctx_of(step).flow.pause(ctx_of(step).job_state)
            raise OSError("again")

    def flow_at(monotonic, utc):
        flow = chain(Step(flaky), engine=Engine(Clock(lambda: monotonic, lambda: utc)))
        flow.set_error_handler(ErrorHandler("retry", retry_delay=1800.0, max_delay=1e6))
        return flow

    second = 10**9
    data = flow_at(5 * second, 1_000_000 * second).execute("r0").to_dict()
    early = flow_at(77 * second, 1_000_600 * second).restore(data)
    (waiting,) = early._record.retrying.values()
    assert waiting.due == (77 + 1800 - 600) * second
    assert (early.created_at.timestamp(), early.started_at.timestamp()) == (1_000_000, 1_000_000)
    assert early.get_execution_history() == []

    flow = flow_at(7 * second, 1_003_600 * second)
    late = flow.restore(data)
    assert (str(late.status), late.pending_count) == ("paused", 1)
    with flow:
        flow.resume(late)
        assert late.wait()
    assert attempts == [1, 2]
    (record,) = late.get_execution_history()
    assert record.timestamp == late.created_at
    assert late.finished_at - late.created_at == timedelta(hours=1)


def test_l4_what_is_saved_is_in_proportion_to_what_there_is():
    sizes = {}
    for count in (1_000, 2_000, 4_000):
        flow = chain(Source(range(count)), Sink())
        sizes[count] = len(orjson.dumps(flow.execute("r0").to_dict()))
    assert sizes[4_000] - sizes[2_000] == pytest.approx(2 * (sizes[2_000] - sizes[1_000]), rel=0.1)
    assert sizes[4_000] < 400 * 4_000
    limited = chain(Source(range(4_000)), Sink(), history_limit=10)
    assert len(orjson.dumps(limited.execute("r0").to_dict())) < 10_000


# --- typed state, and its size ------------------------------------------------------------------------------------


class Cart(BaseModel):
    items: list[str] = []
    anything: object = None
    total: int = Field(default=0, alias="sum")


class Secretive(BaseModel):
    word: str = "abc"
    count: int = 0

    @field_serializer("word")
    def _write(self, word):
        return word[::-1]

    @field_validator("word", mode="after")
    @classmethod
    def _read(cls, word):
        return word[::-1] if word.startswith("c") else word


def typed(schema, **options):
    return chain(Sink(), state_schema=schema, **options)


def test_l4_typed_state_comes_back_with_the_keys_beside_it():
    flow = typed(Cart)
    state = flow.execute("r0", initial_state={"items": ["a"], "total": 3, "anything": (1, {2})})
    state.update_shared_data("beside", (3,))
    loaded = again(state, flow)
    assert loaded._record.shared == {"items": ["a"], "anything": (1, {2}), "total": 3, "beside": (3,)}


def test_s3_serializers_of_the_state_are_honoured_when_it_is_saved():
    flow = typed(Secretive)
    state = flow.execute("r0")
    assert state.to_dict()["record"]["state"]["json"] == {"word": "cba", "count": 0}
    assert again(state, flow).get_shared_data("word") == "abc"


def test_l4_typed_state_is_validated_when_it_is_loaded():
    class Strict(BaseModel):
        items: list[int] = []

    class Whole(BaseModel):
        items: list[str] = []

        @model_validator(mode="after")
        def _check(self):
            if self.items:
                raise ValueError("must be empty")
            return self

    state = typed(Cart).execute("r0", initial_state={"items": ["a"]})
    with pytest.raises(
        LoadError, match=r"the state is not valid \(any more\): [^:]*Strict: items\.0: Input should be a valid"
    ):
        again(state, typed(Strict))
    with pytest.raises(LoadError, match=r"the state is not valid.*Whole: Value error, must be empty"):
        again(state, typed(Whole))
    with pytest.raises(LoadError, match="has a typed state, and the flow no state_schema"):
        again(state, chain(Sink()))
    untyped = chain(Sink()).execute("r0", initial_state={"items": ["a"], "more": 1})
    assert again(untyped, typed(Cart))._record.shared == {"items": ["a"], "more": 1, "anything": None, "total": 0}
    with pytest.raises(LoadError, match="was saved without a state_schema"):
        again(untyped, typed(Strict))


def test_l4_a_value_of_the_state_that_cannot_be_saved_is_named():
    flow = typed(Cart)
    state = flow.execute("r0", initial_state={"anything": [1, len]})
    with pytest.raises(SaveError, match=r"job '.*': the state\.anything\[1\] is <built-in function len>"):
        state.to_dict()


@pytest.mark.parametrize("value", ["x" * 2_000, ("x" * 2_000, {1}), {("x" * 2_000): (1,)}])
def test_s5_shared_data_that_have_outgrown_the_limit_are_not_saved(value, tmp_path):
    def grow(step):
        ctx_of(step).job_state.update_shared_data("big", value)

    flow = chain(Step(grow), max_state_bytes=1_000)
    state = flow.execute("r0")
    for act in (state.to_dict, lambda: state.save(tmp_path / "job")):
        with pytest.raises(
            StateError, match=r"flow 'chain': job '.*': the state takes 2,0\d\d bytes.*max_state_bytes=1,000"
        ):
            act()
    assert not list(tmp_path.iterdir())
    state.update_shared_data("big", 1)
    state.save(tmp_path / "job")


# --- files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def state():
    return full_flow()[0].execute("r0", job_id="job")


def test_l4_a_file_is_one_json_document(state, tmp_path):
    state.save(tmp_path / "job.json")
    document = json.loads((tmp_path / "job.json").read_text())
    checksum = document.pop("checksum")
    assert isinstance(checksum, int)
    assert document == state.to_dict()
    assert list(tmp_path.iterdir()) == [tmp_path / "job.json"]


def test_l4_saving_replaces_a_file_through_links_and_keeps_its_permissions(state, tmp_path):
    real, link = tmp_path / "folder" / "real", tmp_path / "link"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    state.save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert state._job.flow.load(real).job_id == "job"
    umask = os.umask(0o027)
    try:
        state.save(tmp_path / "new")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.parametrize("function", ["fsync", "replace", "chmod", "open"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_l4_a_save_that_fails_leaves_the_old_file_and_nothing_else(state, tmp_path, monkeypatch, function, error):
    def failing(*_, **__):
        raise error

    path = tmp_path / "job"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing)
        with pytest.raises(type(error)):
            state.save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_l4_an_unsuitable_place_is_an_error_of_the_system(state, tmp_path):
    with pytest.raises(IsADirectoryError):
        state.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such folder: '.*missing'"):
        state.save(tmp_path / "missing" / "job")
    with pytest.raises(FileNotFoundError):
        Flow().load(tmp_path / "missing")
    assert not list(tmp_path.iterdir())


def test_l4_a_value_that_cannot_be_saved_leaves_the_old_file(tmp_path):
    flow = chain(Sink())
    state = flow.execute("r0")
    state.save(tmp_path / "job")
    before = (tmp_path / "job").read_bytes()
    state.update_shared_data("bad", object())
    with pytest.raises(SaveError, match="shared data 'bad' is <object"):
        state.save(tmp_path / "job")
    assert (tmp_path / "job").read_bytes() == before


# --- what does not fit --------------------------------------------------------------------------------------------


def change(content, old, new):
    assert content.count(old) >= 1
    return content.replace(old, new, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "is no JSON, or it is truncated or damaged"),
        (lambda content: b"pickle \x80", "is no JSON"),
        (lambda content: content[:-100], "is no JSON, or it is truncated"),
        (lambda content: change(content, b'"for a look"', b'"for a hook"'), "was altered or damaged after"),
        (lambda content: content + b" ", None),
        (lambda content: b"[]", "is no saved job: it lacks 'format' and 'record'"),
        (lambda content: b'{"format": 1, "record": {}}', "was altered or damaged"),
        (
            lambda content: change(content, b'"format":1', b'"format":2'),
            r"format 2, written by a newer version.*\(0\.1\.0\)",
        ),
        (lambda content: change(content, b'"format":1', b'"format":"1"'), "'format' must be a whole number, not '1'"),
        (lambda content: change(content, b'"chain"', b'"chaos"'), "was altered"),
    ],
)
def test_l4_a_damaged_file_is_refused_with_one_clear_error(state, tmp_path, damage, message):
    path = tmp_path / "job"
    state.save(path)
    path.write_bytes(damage(path.read_bytes()))
    if message is None:
        assert state._job.flow.load(path).job_id == "job"
        return
    with pytest.raises(LoadError, match=f"^file '{path}':? .*{message}"):
        state._job.flow.load(path)


def test_l4_a_job_of_another_flow_or_version_is_refused(state):
    data = state.to_dict()
    with pytest.raises(
        LoadError, match="flow 'other': job 'job' in the dict belongs to another flow, 'chain'; load it"
    ):
        Flow("other").restore(data)
    newer, _ = full_flow(version="2")
    with pytest.raises(LoadError, match="was saved by version None of the flow, and this is version '2'"):
        newer.restore(data)
    with pytest.raises(LoadError, match="was saved by version '2' of the flow, and this is version None"):
        again(newer.execute("r0"), state._job.flow)
    assert again(newer.execute("r0"), full_flow(version="2")[0]).status == "paused"
    for version in ("", 1):
        with pytest.raises(DeclarationError, match="version must be a non-empty string or None"):
            Flow(version=version)


def test_l4_work_and_states_for_what_the_flow_has_no_more_are_listed():
    def source(step):
        for name in ("one", "two"):
            step.emit(name)
        step.emit_deferred_event("three")
        if "gone" in ctx_of(step).flow.routines:
            ctx_of(step).job_state.update_routine_state("gone", {"a": 1})
        ctx_of(step).flow.pause(ctx_of(step).job_state)

    def flow_with(events, target):
        flow = Flow("wide")
        flow.add_routine(Step(source, events=events), "r0")
        flow.add_routine(Sink(), "sink")
        flow.add_routine(Sink(), target)
        flow.connect("r0", "one", "sink", "input")
        flow.connect("r0", "two", target, "input")
        return flow

    flow = flow_with(("one", "two", "three"), "gone")
    state = flow.execute("r0")
    assert view(again(state, flow)) == view(state)
    with pytest.raises(LoadError, match=r"not have slot 'gone\.input', routine 'gone', event 'r0\.three', and"):
        again(state, flow_with(("one", "two"), "other"))


def test_l4_queued_deliveries_to_a_slot_that_is_gone_are_refused(state):
    flow = chain(Source(), Step(lambda step: None))
    flow.add_routine(slot := Routine(), "r2")
    slot.define_slot("inbox")
    with pytest.raises(LoadError, match=r"job 'job' in the dict: the flow does not have slot 'r2\.input'"):
        again(state, flow)


def test_l4_a_slot_that_has_begun_to_append_does_not_take_what_was_merged_before():
    def merging(how):
        flow = chain(Source([1, 2]), Sink(merge_strategy=how))
        return flow

    state = merging(lambda old, new: {"data": 1}).execute("r0")
    with pytest.raises(LoadError, match=r"what was merged for 'r1\.input' does not fit merge_strategy='append'"):
        again(state, merging("append"))


@pytest.mark.parametrize("data", [None, [], "text", {}, {"format": 1}, {1: 2}, {"a": object()}, {"a": 2**70}, b""])
def test_l4_what_is_no_saved_job_is_refused(data):
    with pytest.raises(LoadError, match="saved job"):
        Flow().restore(data)


@pytest.mark.parametrize("flow", [None, Flow, "flow"])
def test_l4_a_job_is_loaded_for_a_flow(flow, state, tmp_path):
    with pytest.raises(LoadError, match="a job is loaded for a Flow, not for"):
        JobState.from_dict(state.to_dict(), flow)


def rich_flow(**options):
    """A flow whose job is saved with something in every part of it: paused, with a retry that is not due yet."""

    def target(step, data):
        step.send_output("note", data=tuple(data))
        ctx_of(step).job_state.update_routine_state("r1", {"seen": set(data)})
        ctx_of(step).job_state.append_to_shared_log({"data": data})
        step.emit_deferred_event("output", data=data)
        if len(data) == 5 and ctx_of(step).attempt == 1:
            ctx_of(step).flow.pause(ctx_of(step).job_state)
            raise OSError("again")

    def failing(step, data):
        raise ValueError(data)

    flow = chain(Source(range(10)), Step(target, merge_strategy="append"), Sink(), history_limit=20, **options)
    flow.set_error_handler(ErrorHandler("retry", retryable_exceptions=OSError, retry_delay=0.0))
    flow.add_routine(failing := Step(failing), "failing")
    failing.set_as_optional()
    flow.connect("r0", "output", "failing", "input")
    return flow


def saved_parts():
    """A paused job with all that can be pending."""
    flow = rich_flow()
    flow.set_error_handler(ErrorHandler("retry", retryable_exceptions=OSError, retry_delay=3600.0, max_delay=3600.0))
    state = flow.execute("r0", {"items": range(10)})
    record = flow.restore(state.to_dict())._record
    (waiting,) = record.retrying.values()
    record.stopped.append(waiting.anew())
    record.stopped[0].id = record.next_id
    record.stopped[0].row = (record.next_id, *waiting.row[1:])
    record.next_id += 1
    writer = Writer("job", flow.known_types, None)
    return {**state.to_dict(), "record": json.loads(orjson.dumps(RecordWriter(snapshot(record), writer, None).write()))}


SAVED = saved_parts()
CONTENT = sealed(orjson.dumps(SAVED))


SPOILERS = st.sampled_from(
    [None, -1, 2**63, 0.5, "", "x", [], {}, [[]], {"~": "tuple", "v": 1}, {"~": []}, True, [{"a": 1}]]
)


@examples(400)
@given(st.data())
def test_l4_hostile_data_raise_one_kind_of_error_or_load_into_a_job_that_can_be_read(data):
    document = copy.deepcopy(SAVED)
    place = document["record"]
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(SPOILERS)
    # At a time at which whatever the data say is overdue.
    flow = rich_flow(engine=Engine(Clock(time_ns=lambda: 2**63 + 10**9)))
    try:
        loaded = flow.restore(document)
    except LoadError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert str(refused).startswith(("flow 'chain': job '", "flow 'chain': the dict"))
        return
    view(loaded)
    loaded.summary()
    if loaded.status == "paused":
        flow.execute("r0", job_state=loaded)
        view(loaded)


@examples(60)
@given(st.data())
def test_l4_any_flipped_byte_of_a_file_is_noticed(data):
    content = CONTENT
    place = data.draw(st.integers(0, len(content) - 2))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    damaged = content[:place] + bytes([value]) + content[place + 1 :]
    try:
        document = from_bytes(damaged, "file")
    except LoadError:
        return
    assert document == from_bytes(content, "file")


EMPTY = {
    **dict.fromkeys(("session_id", "user_id", "parent_job_id", "result", "failure", "state")),
    **{"reason": "", "inbox": 0, "life": 0, "revision": 0, "shared": {}},
    **{name: [] for name in ("ready", "resumed", "running", "retrying", "waiting", "stopped", "deferred", "points")},
    **{name: [] for name in ("routine_states", "events", "buffers", "inputs", "gathers", "versions")},
    **{name: [] for name in ("job_errors", "errors")},
    "log": {"entries": [], "at": []},
    "outputs": {"from": [], "data": [], "at": []},
    "queue": {name: [] for name in ("id", "slot", "payload", "isolate", "at", "origin")},
}


def test_l4_what_is_empty_is_left_out_and_may_be_there():
    flow = chain(Step(lambda step, data: ctx_of(step).job_state.update_shared_data("seen", data)))
    saved = flow.execute("r0", {"data": 1}).to_dict()
    assert not saved["record"].keys() & (EMPTY.keys() - {"shared"})
    loaded = flow.restore(saved)
    with_all = flow.restore({**saved, "record": {**copy.deepcopy(EMPTY), **saved["record"]}})
    assert view(loaded) == view(with_all)


def test_l4_a_history_that_keeps_no_entry_keeps_its_totals_when_it_is_saved_again():
    flow = chain(Sink(), history_limit=0)
    state = flow.execute("r0", {"data": 1})
    twice = again(again(state, flow), flow)
    assert twice.get_execution_history() == []
    assert twice.performance("r0") == state.performance("r0")
    assert twice.performance("r0").count == 1


def test_l4_a_paused_job_that_was_finished_early_still_is_when_it_is_loaded():
    flow = rich_flow()
    for closed in (True, False):
        record = flow.restore(copy.deepcopy(SAVED))._record
        record.closed = closed
        writer = Writer("job", flow.known_types, None)
        form = json.loads(orjson.dumps(RecordWriter(snapshot(record), writer, None).write()))
        assert flow.restore({**SAVED, "record": form})._record.closed is closed


@pytest.mark.parametrize("result", [0, "", False, [], {}])
def test_l4_a_result_is_kept_however_empty(result):
    flow = chain(Step(lambda step, data: ctx_of(step).finish(result)))
    state = flow.execute("r0", {"data": 1})
    loaded = again(state, flow).result
    assert (type(loaded), loaded) == (type(result), result)
