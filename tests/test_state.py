"""S: routine state and shared data."""

from __future__ import annotations

import threading
import time

import pytest
from parts import Source, Step, chain
from pydantic import BaseModel

from routilux import ConflictError, ErrorHandler, ExecutionError, Flow

LONG = 20.0


def job_of(step):
    return step.get_execution_context().job_state


def run(handler, **options):
    """Run one handler as a job of its own and return the state of the job."""
    state = chain(Step(handler), **options).execute("r0")
    state.raise_for_status()
    return state


# --- S1 -----------------------------------------------------------------------------------------------------------


def test_s1_updating_a_routines_state_merges_keys():
    def handler(step):
        job_of(step).update_routine_state("r0", {"a": 1, "b": 1})
        job_of(step).update_routine_state("r0", {"b": 2})

    assert run(handler).get_routine_state("r0") == {"a": 1, "b": 2}


def test_s1_a_routine_without_state_has_none():
    assert run(lambda step: None).get_routine_state("r0") is None


def test_s1_the_engine_puts_nothing_of_its_own_into_a_routines_state():
    def handler(step):
        job_of(step).update_routine_state("r0", {})

    assert run(handler).get_routine_state("r0") == {}


def test_s1_an_unknown_routine_is_an_error_that_names_the_nearest():
    state = run(lambda step: None)
    for call in (
        lambda: state.get_routine_state("r00"),
        lambda: state.update_routine_state("r00", {}),
        lambda: state.get_execution_history("r00"),
        lambda: state.performance("r00"),
    ):
        with pytest.raises(ExecutionError, match=r"flow 'chain' has no routine 'r00'; did you mean 'r0'\?"):
            call()


@pytest.mark.parametrize("bad", [None, [1], "text", {1: 2}])
def test_s1_a_state_that_is_no_mapping_of_names_is_an_error(bad):
    state = run(lambda step: None)
    with pytest.raises(ExecutionError, match="mapping with string keys"):
        state.update_routine_state("r0", bad)
    with pytest.raises(ExecutionError, match="mapping with string keys"):
        state.append_to_shared_log(bad)


def test_s1_a_shared_key_must_be_a_string():
    with pytest.raises(ExecutionError, match="string keys"):
        run(lambda step: None).update_shared_data(3, 1)


def test_s1_no_update_is_lost_with_many_workers():
    """500 deliveries from 5 sources at the same time: read, yield the processor, add one, write."""

    def count(step, data):
        job = job_of(step)
        number = (job.get_routine_state("counter") or {}).get("count", 0)
        time.sleep(0)
        job.update_routine_state("counter", {"count": number + 1})

    for _run in range(30):
        flow = Flow("count", execution_strategy="concurrent", max_workers=8)
        flow.add_routine(Source([None]), "start")
        flow.add_routine(Step(count), "counter")
        for _ in range(5):
            source = flow.add_routine(Step(lambda step, data: [step.emit("output", data=i) for i in range(100)]))
            flow.connect("start", "output", source, "input")
            flow.connect(source, "output", "counter", "input")
        with flow:
            state = flow.execute("start")
        assert state.status == "completed"
        assert state.get_routine_state("counter") == {"count": 500}


# --- S2 -----------------------------------------------------------------------------------------------------------


def test_s2_shared_data_have_defaults_and_any_json_like_value():
    def handler(step):
        assert job_of(step).get_shared_data("missing") is None
        assert job_of(step).get_shared_data("missing", 5) == 5
        job_of(step).update_shared_data("none", None)
        assert job_of(step).get_shared_data("none", 5) is None

    run(handler)


def racing(flow_options=None, read=True, area="shared", handler=None):
    """Two routines that read the same key at the same time and then write it, one after the other."""
    both_read, first_wrote = threading.Barrier(2), threading.Event()

    def read_it(job):
        return (
            job.get_shared_data("key", 0) if area == "shared" else (job.get_routine_state("start") or {}).get("key", 0)
        )

    def write_it(job, value):
        if area == "shared":
            job.update_shared_data("key", value)
        else:
            job.update_routine_state("start", {"key": value})

    def first(step, data):
        value = read_it(job_of(step)) if read else 0
        both_read.wait(LONG)
        write_it(job_of(step), value + 1)
        first_wrote.set()

    def second(step, data):
        again = step.get_execution_context().attempt > 1
        value = read_it(job_of(step)) if read else 0
        if not again:
            both_read.wait(LONG)
            assert first_wrote.wait(LONG)
        write_it(job_of(step), value + 1)

    flow = Flow("race", execution_strategy="concurrent", max_workers=3)
    flow.add_routine(Source([None]), "start")
    for name, handle in (("first", first), ("second", second)):
        flow.add_routine(Step(handle), name)
        flow.connect("start", "output", name, "input")
    if handler is not None:
        flow.set_error_handler(handler)
    with flow:
        return flow.execute("start"), read_it


@pytest.mark.parametrize("area", ["shared", "routine"])
def test_s2_a_plain_write_over_a_change_since_the_read_is_a_conflict(area):
    state, value = racing(area=area)
    assert state.status == "failed"
    assert state.error.type == "ConflictError"
    assert "'key'" in state.error.message
    assert "'second'" in state.error.message
    with pytest.raises(ConflictError):
        state.raise_for_status()
    assert value(state) == 1


@pytest.mark.parametrize("area", ["shared", "routine"])
def test_s2_with_retry_a_conflict_resolves_and_no_update_is_lost(area):
    state, value = racing(area=area, handler=ErrorHandler("retry", retry_delay=0.0))
    assert state.status == "completed"
    assert value(state) == 2


def test_s2_a_write_without_a_read_is_no_conflict():
    state, value = racing(read=False)
    assert state.status == "completed"
    assert value(state) == 1


def test_s2_reading_again_and_writing_is_no_conflict():
    def handler(step):
        job = job_of(step)
        for _ in range(3):
            job.update_shared_data("key", job.get_shared_data("key", 0) + 1)
            job.update_routine_state("r0", {"n": (job.get_routine_state("r0") or {}).get("n", 0) + 1})

    state = run(handler)
    assert state.get_shared_data("key") == 3
    assert state.get_routine_state("r0") == {"n": 3}


def test_s2_ones_own_write_is_no_conflict_with_an_earlier_read():
    def handler(step):
        job = job_of(step)
        assert job.get_shared_data("key") is None
        job.update_shared_data("key", 1)
        job.update_shared_data("key", 2)

    assert run(handler).get_shared_data("key") == 2


def test_s2_what_an_earlier_turn_has_read_does_not_count():
    def handler(step, data):
        job = job_of(step)
        if data == 0:
            job.get_shared_data("key")
        else:
            job.update_shared_data("key", data)

    flow = chain(Source(range(5)), Step(handler))
    assert flow.execute("r0").status == "completed"


def test_s2_racing_routines_never_lose_an_update_silently():
    """Each run ends either with both updates, or with an error that says which write was refused."""

    def add_one(step, data):
        job = job_of(step)
        for _ in range(20):
            number = job.get_shared_data("n", 0)
            time.sleep(0)
            job.update_shared_data("n", number + 1)
            done[step] += 1

    for _ in range(50):
        flow = Flow("race", execution_strategy="concurrent", max_workers=4)
        flow.add_routine(Source([None]), "start")
        steps = [Step(add_one), Step(add_one)]
        done = dict.fromkeys(steps, 0)
        for step in steps:
            name = flow.add_routine(step)
            flow.connect("start", "output", name, "input")
        with flow:
            state = flow.execute("start")
        assert state.get_shared_data("n") == sum(done.values())
        if state.status == "failed":
            assert {error.type for error in state.errors} == {"ConflictError"}
        else:
            assert sum(done.values()) == 40


# --- S4 -----------------------------------------------------------------------------------------------------------


class Item(BaseModel):
    tags: list[str] = []


def test_s4_what_is_read_is_the_readers():
    def handler(step):
        job = job_of(step)
        job.update_shared_data("list", [1, [2]])
        job.get_shared_data("list")[1].append(3)
        job.update_routine_state("r0", {"item": Item(tags=["a"])})
        job.get_routine_state("r0")["item"].tags.append("b")

    state = run(handler)
    assert state.get_shared_data("list") == [1, [2]]
    assert state.get_routine_state("r0") == {"item": Item(tags=["a"])}


def test_s4_what_is_written_is_the_records():
    def handler(step):
        job = job_of(step)
        items, entry = [1], {"items": [1]}
        job.update_shared_data("list", items)
        job.update_routine_state("r0", entry)
        job.append_to_shared_log(entry)
        step.send_output("kind", items=items)
        items.append(2)
        entry["items"].append(2)

    state = run(handler)
    assert state.get_shared_data("list") == [1]
    assert state.get_routine_state("r0") == {"items": [1]}
    assert state.get_shared_log()[0]["items"] == [1]
    assert state.outputs[0].data == {"items": [1]}


def test_s4_other_objects_are_shared():
    handle = object()

    def handler(step):
        job_of(step).update_shared_data("handle", handle)
        assert job_of(step).get_shared_data("handle") is handle

    assert run(handler).get_shared_data("handle") is handle


def test_s4_log_history_outputs_and_errors_are_copies():
    def handler(step):
        job_of(step).append_to_shared_log({"items": [1]})
        step.send_output("kind", items=[1])
        step.emit("output", items=[1])

    state = run(handler)
    state.get_shared_log()[0]["items"].append(2)
    state.outputs[0].data["items"].append(2)
    state.get_execution_history()[0].data["items"].append(2)
    state.errors.append("more")
    assert state.get_shared_log()[0]["items"] == [1]
    assert state.outputs[0].data["items"] == [1]
    assert state.get_execution_history()[0].data["items"] == [1]
    assert state.errors == []


def test_outputs_keep_their_order_type_and_time():
    def handler(step):
        step.send_output("line", text="a")
        step.send_output("done")

    outputs = run(handler).outputs
    assert [(each.routine_id, each.output_type, each.data) for each in outputs] == [
        ("r0", "line", {"text": "a"}),
        ("r0", "done", {}),
    ]
    assert outputs[0].timestamp <= outputs[1].timestamp
    assert outputs[0].timestamp.utcoffset().total_seconds() == 0


def test_an_output_type_must_be_a_string():
    with pytest.raises(ExecutionError, match="output_type must be a string"):
        run(lambda step: step.send_output(3))


def test_the_shared_log_is_filtered_on_copies_and_keeps_a_timestamp_of_ones_own():
    def handler(step):
        job_of(step).append_to_shared_log({"level": "info"})
        job_of(step).append_to_shared_log({"timestamp": "mine", "level": "warn"})

    log = run(handler).get_shared_log(lambda entry: entry.pop("level") == "warn")
    assert log == [{"timestamp": "mine"}]
