"""What people do first: routines that keep state in the job, and a look at the job afterwards.

The same ground as the state management tutorial that users of the model know: each test is one of its steps.
"""

from __future__ import annotations

from datetime import datetime

import pytest

from routilux import Flow, Routine


class Words(Routine):
    """Emits words, and notes in its state how many."""

    def __init__(self, *words):
        super().__init__()
        self.words = words
        self.trigger_slot = self.define_slot("trigger", handler=self.send)
        self.output_event = self.define_event("output", ["data"])

    def send(self, count=None, **kwargs):
        words = self.words[: count or len(self.words)]
        ctx = self.get_execution_context()
        ctx.job_state.update_routine_state(ctx.routine_id, {"generated_count": len(words)})
        for word in words:
            self.emit("output", data=word)


class Shout(Routine):
    """Emits what arrives in capitals; counts successes and errors in its state, and raises what went wrong."""

    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.process)
        self.define_event("output", ["result"])

    def process(self, data=None, **kwargs):
        ctx = self.get_execution_context()
        before = ctx.job_state.get_routine_state(ctx.routine_id) or {}
        count = before.get("processed_count", 0) + 1
        try:
            result = data.upper()
        except Exception as error:
            errors = before.get("error_count", 0) + 1
            ctx.job_state.update_routine_state(
                ctx.routine_id, {"processed_count": count, "error_count": errors, "last_error": str(error)}
            )
            raise
        ctx.job_state.update_routine_state(ctx.routine_id, {"processed_count": count, "last_processed": data})
        self.emit("output", result=result)


class Collect(Routine):
    """Collects what arrives in the shared data, and logs it."""

    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.collect)

    def collect(self, data=None, **kwargs):
        job = self.get_execution_context().job_state
        items = job.get_shared_data("collected_items", [])
        items.append(data)
        job.update_shared_data("collected_items", items)
        job.append_to_shared_log({"action": "collected", "data": data})


def flow_of(flow_id, source, *targets):
    flow = Flow(flow_id=flow_id)
    source_id = flow.add_routine(source, "source")
    for name, target in targets:
        flow.connect(source_id, "output", flow.add_routine(target, name), "input")
    return flow


MANY_TIMES = pytest.mark.parametrize("time", range(10))


@MANY_TIMES
def test_step_1_a_job_state_has_status_times_history_and_routine_states(time):
    state = flow_of("jobstate_flow", Words("test"), ("processor", Shout())).execute("source")
    assert f"Status: {state.status}" == "Status: completed"
    assert state.flow_id == "jobstate_flow"
    assert isinstance(state.created_at, datetime)
    assert len(state.get_execution_history()) == 2
    assert state.get_routine_state("processor") == {"processed_count": 1, "last_processed": "test"}


@MANY_TIMES
def test_step_2_a_routine_counts_in_its_state_across_deliveries(time):
    flow = flow_of("stateful_flow", Words("hello", "world", "routilux"), ("processor", Shout()))
    state = flow.execute("source")
    assert flow.wait_for_completion(timeout=2.0)
    assert state.get_routine_state("processor") == {"processed_count": 3, "last_processed": "routilux"}


def test_step_2_a_failing_handler_leaves_its_error_in_its_state():
    flow = flow_of("stateful_flow", Words("hello", 7, "world"), ("processor", Shout()))
    flow.routines["processor"].set_as_optional()
    state = flow.execute("source")
    kept = state.get_routine_state("processor")
    assert kept["processed_count"] == 3
    assert kept["error_count"] == 1
    assert "'int' object has no attribute 'upper'" in kept["last_error"]


@MANY_TIMES
def test_step_3_shared_data_and_log_are_grouped_by_target(time):
    class Report(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.process)
            self.define_event("output", ["result"])

        def process(self, data=None, **kwargs):
            job = self.get_execution_context().job_state
            count = len(job.get_shared_data("collected_items", []))
            job.append_to_shared_log({"action": "processed", "data": data, "result": f"{count} so far"})
            self.emit("output", result=count)

    flow = flow_of("shared_data_flow", Words("a", "b", "c"), ("collector", Collect()), ("processor", Report()))
    state = flow.execute("source")
    assert state.get_shared_data("collected_items", []) == ["a", "b", "c"]
    log = state.get_shared_log()
    assert [(entry["action"], entry["data"]) for entry in log] == [
        *(("collected", word) for word in "abc"),
        *(("processed", word) for word in "abc"),
    ]
    assert [entry.get("result") for entry in log[3:]] == ["3 so far"] * 3
    assert all(list(entry)[-1] == "timestamp" for entry in log)
    assert all(datetime.fromisoformat(entry["timestamp"]) for entry in log)


@MANY_TIMES
def test_step_4_the_history_has_one_record_per_activation(time):
    state = flow_of("history_flow", Words("a", "b", "c"), ("processor", Shout())).execute("source")
    history = state.get_execution_history()
    assert [(record.routine_id, record.event_name) for record in history] == [
        ("source", "output"),
        *[("processor", "output")] * 3,
    ]
    assert [record.data for record in state.get_execution_history("processor")] == [
        {"result": "A"},
        {"result": "B"},
        {"result": "C"},
    ]
    assert [record.timestamp for record in history] == sorted(record.timestamp for record in history)


@MANY_TIMES
def test_step_5_a_whole_pipeline_with_entry_params(time):
    class Validator(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.validate)
            self.define_event("output", ["data", "valid"])

        def validate(self, data=None, **kwargs):
            ctx = self.get_execution_context()
            key = "valid_count" if "item" in data else "invalid_count"
            state = ctx.job_state.get_routine_state(ctx.routine_id) or {}
            ctx.job_state.update_routine_state(ctx.routine_id, {key: state.get(key, 0) + 1})
            self.emit("output", data=data, valid="item" in data)

    lines = []

    class Aggregator(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.aggregate)

        def aggregate(self, data=None, valid=None, **kwargs):
            ctx = self.get_execution_context()
            state = ctx.job_state.get_routine_state(ctx.routine_id) or {}
            totals = {"received": state.get("received", 0) + 1, "valid": state.get("valid", 0) + valid}
            ctx.job_state.update_routine_state(ctx.routine_id, totals)
            lines.append(f"{data}: {valid}")

    words = [*(f"item_{number}" for number in range(4)), "other", "not reached"]
    flow = flow_of("stateful_workflow", Words(*words), ("validator", Validator()))
    flow.connect("validator", "output", flow.add_routine(Aggregator(), "aggregator"), "input")
    state = flow.execute("source", entry_params={"count": 5})
    assert state.get_routine_state("source") == {"generated_count": 5}
    assert state.get_routine_state("validator") == {"valid_count": 4, "invalid_count": 1}
    assert state.get_routine_state("aggregator") == {"received": 5, "valid": 4}
    assert lines == ["item_0: True", "item_1: True", "item_2: True", "item_3: True", "other: False"]
    assert state.status == "completed"
