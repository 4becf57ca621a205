"""What comes from outside: sending to the slots of a job, and slots that a job waits for."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import MinLen
from parts import LONG, Signal, Sink, Source, Step
from test_gathers import Joint

from routilux import (
    AsyncContext,
    Context,
    DeclarationError,
    Engine,
    ExecutionError,
    Flow,
    PayloadError,
    Routine,
    SaveError,
    StatusError,
    open_store,
)

SOON = 0.01  # seconds, of deadlines that are to come


@pytest.fixture(params=["in memory", "durable"])
def engine(request):
    """The engine of a flow: none of its own, or one with a store."""
    if request.param == "in memory":
        yield None
        return
    with Engine(store=open_store("memory:")) as made:
        yield made


class Desk(Routine):
    """Asks for something and waits for answers from outside; counts how often it has asked."""

    def __init__(self, until=None, **options):
        super().__init__()
        self.asked = 0
        self.heard = Signal()
        self.define_slot("trigger", handler=self.ask)
        self.define_slot("answer", handler=self.take, external=True, **options)
        self.define_event("output", ["text"])
        self.until = until

    def ask(self):
        self.asked += 1

    def take(self, text: str, ctx: Context):
        self.emit("output", text=text)
        if text == self.until:
            ctx.flow.close_input(ctx.job_state, ctx.routine_id, "answer")
        self.heard.set()


def desk_flow(engine=None, name="desk", options=None, **more):
    """Return a flow of a `Desk` and a sink, the desk and the sink."""
    flow, desk, sink = Flow(name, engine=engine, **(options or {})), Desk(**more), Sink()
    flow.add_routine(desk, "desk")
    flow.add_routine(sink, "sink")
    flow.connect("desk", "output", "sink", "input", {"text": "data"})
    return flow, desk, sink


# --- a job that waits for the outside ---------------------------------------------------------------------------------


def test_d9_a_job_with_an_open_input_waits_and_execute_returns(engine):
    flow, desk, sink = desk_flow(engine)
    state = flow.execute("desk")
    assert state.status == "waiting"
    assert [(each.routine_id, each.slot, each.deadline) for each in state.open_inputs] == [("desk", "answer", None)]
    assert "open inputs: desk.answer" in state.summary()
    flow.send(state, "desk", "answer", text="yes")
    flow.close_input(state, "desk", "answer")
    assert state.wait(LONG)
    assert (state.status, state.open_inputs, sink.got, desk.asked) == ("completed", [], ["yes"], 1)


def test_while_a_job_waits_for_the_outside_it_holds_no_thread():
    flow, _, _ = desk_flow(options={"execution_strategy": "concurrent", "max_workers": 2})
    with flow:
        state = flow.start("desk")
        with flow._jobs.job_of(state).lock:
            pass
        assert not state.wait(0.05)
        assert (state.status, state._job.crew) == ("waiting", set())
        flow.cancel(state)


def test_wait_waits_for_what_comes_from_outside(engine):
    flow, desk, sink = desk_flow(engine, until="enough")
    state = flow.execute("desk")
    waiting = threading.Thread(target=state.wait)
    waiting.start()
    for text in ("one", "two", "enough"):
        flow.send(state, "desk", "answer", text=text)
    waiting.join(LONG)
    assert not waiting.is_alive()
    assert (state.status, sink.got) == ("completed", ["one", "two", "enough"])
    assert desk.asked == 1


def test_send_delivers_to_any_slot_of_a_job_that_runs(engine):
    flow = Flow("busy", engine=engine, execution_strategy="concurrent", max_workers=2)
    begun, go, sink = threading.Event(), threading.Event(), Sink()

    def work(step, **_):
        begun.set()
        assert go.wait(LONG)

    flow.add_routine(Step(work), "work")
    flow.add_routine(sink, "sink")
    with flow:
        state = flow.start("work")
        assert begun.wait(LONG)
        flow.send(state, "sink", "input", data=["from outside"])
        go.set()
        assert state.wait(LONG)
    assert sink.got == [["from outside"]]
    assert [record.data for record in state.get_execution_history("sink")] == [{"data": ["from outside"]}]


def test_b8_what_is_sent_is_copied(engine):
    flow, sink = Flow("copies", engine=engine), Sink()
    flow.add_routine(Desk(), "desk")
    flow.add_routine(sink, "sink")
    state = flow.execute("desk")
    mine = [1]
    flow.pause(state)
    flow.send(state, "sink", "input", data=mine)
    mine.append(2)
    flow.resume(state)
    flow.close_input(state, "desk", "answer")
    assert state.wait(LONG)
    assert sink.got == [[1]]


def test_l2_what_is_sent_to_a_paused_job_is_handled_when_it_is_resumed(engine):
    flow, _, sink = desk_flow(engine)
    state = flow.execute("desk")
    flow.pause(state)
    flow.send(state, "desk", "answer", text="meanwhile")
    flow.close_input(state, "desk", "answer")
    assert (state.status, sink.got, state.pending_count) == ("paused", [], 1)
    assert flow.resume(state).wait(LONG)
    assert (state.status, sink.got) == ("completed", ["meanwhile"])


def test_l5_a_waiting_job_goes_on_where_it_is_and_takes_no_new_arguments(engine):
    flow, desk, _ = desk_flow(engine)
    state = flow.execute("desk")
    assert flow.execute("desk", job_state=state) == state
    assert (state.status, desk.asked) == ("waiting", 1)
    with pytest.raises(StatusError, match="is waiting and would go on where it is"):
        flow.execute("desk", {"x": 1}, job_state=state)
    flow.cancel(state)


def test_a_handler_may_close_an_input_of_its_job(engine):
    flow, _, sink = desk_flow(engine, until="last")
    state = flow.execute("desk")
    flow.send(state, "desk", "answer", text="last")
    assert state.wait(LONG)
    assert sink.got == ["last"]


def test_a_coroutine_handler_of_an_external_slot(engine):
    class Asker(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("trigger", handler=self.go)
            self.define_slot("answer", handler=self.take, external=True)

        async def go(self):
            pass

        async def take(self, text: str, ctx: AsyncContext):
            await ctx.store.set("text", text)
            ctx.finish(text)

    with Flow("async", engine=engine) as flow:
        flow.add_routine(Asker(), "asker")
        state = flow.execute("asker")
        assert state.status == "waiting"
        flow.send(state, "asker", "answer", text="hello")
        assert state.wait(LONG)
    assert (state.result, state.get_shared_data("text"), state.open_inputs) == ("hello", "hello", [])


def test_closing_an_input_a_second_time_or_after_the_end_does_nothing(engine):
    flow, _, _ = desk_flow(engine)
    state = flow.execute("desk")
    flow.close_input(state, "desk", "answer")
    assert state.wait(LONG)
    flow.close_input(state, "desk", "answer")
    assert state.status == "completed"


def test_l2_a_cancelled_job_waits_for_nothing(engine):
    flow, _, _ = desk_flow(engine)
    state = flow.execute("desk")
    flow.cancel(state, "no more")
    assert (state.status, state.open_inputs) == ("cancelled", [])


def test_e4_the_inputs_of_a_failed_job_are_open_when_it_is_resumed(engine):
    flow, _, sink = desk_flow(engine, until="end")
    failing = [True]

    def fail(text: str):
        if failing:
            raise ValueError(text)

    broken = Routine()
    broken.define_slot("input", handler=fail)
    flow.add_routine(broken, "broken")
    state = flow.execute("desk")
    flow.send(state, "broken", "input", text="too early")
    assert state.wait(LONG)
    assert state.status == "failed"
    with pytest.raises(StatusError, match=r"is failed.*'desk\.answer'; resume it first"):
        flow.send(state, "desk", "answer", text="end")
    failing.clear()
    flow.resume(state)
    flow.send(state, "desk", "answer", text="end")
    assert state.wait(LONG)
    assert state.status == "completed"
    assert sink.got == ["end"]


# --- deadlines ----------------------------------------------------------------------------------------------------


def test_an_input_closes_by_itself_at_its_deadline(engine):
    flow, _, sink = desk_flow(engine, deadline=SOON)
    state = flow.execute("desk")
    assert state.wait(LONG)
    assert (state.status, sink.got) == ("completed", [])


def test_a_deadline_counts_from_the_start_of_the_job(engine):
    flow, _, _ = desk_flow(engine, deadline=3600.0)
    state = flow.execute("desk")
    (waited_for,) = state.open_inputs
    assert waited_for.deadline - state.started_at == timedelta(hours=1)
    assert f"desk.answer until {waited_for.deadline:%Y-%m-%d %H:%M:%S} UTC" in state.summary()
    flow.cancel(state)


def test_d9_execute_does_not_wait_for_a_deadline():
    flow, _, _ = desk_flow(deadline=3600.0)
    state = flow.execute("desk")
    assert state.status == "waiting"
    flow.cancel(state)
    assert not state._job.timers


def test_l2_a_deadline_that_comes_while_the_job_is_paused_counts_when_it_is_resumed(engine):
    flow, _, _ = desk_flow(engine, deadline=SOON)
    state = flow.execute("desk")
    closed = threading.Event()
    flow.pause(state) if state.status == "waiting" else pytest.skip("the deadline was faster")
    assert not closed.wait(3 * SOON)
    assert (state.status, len(state.open_inputs)) == ("paused", 1)
    assert flow.resume(state).wait(LONG)
    assert state.status == "completed"


# --- joins with the outside -----------------------------------------------------------------------------------------


def test_a_gather_of_all_on_an_external_slot_is_handled_when_the_input_is_closed(engine):
    flow, joint = Flow("poll", engine=engine), Joint(gather="all", external=True)
    flow.add_routine(Source(["from inside"]), "source")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "joint", "input")
    state = flow.execute("source")
    flow.send(state, "joint", "input", data="from outside")
    assert (state.status, joint.got, state.pending_count) == ("waiting", [], 2)
    flow.close_input(state, "joint", "input")
    assert state.wait(LONG)
    assert joint.got == [{"data": ["from inside", "from outside"]}]


def test_all_waits_for_open_inputs_upstream(engine):
    flow, desk, _ = desk_flow(engine)
    joint = Joint(gather="all")
    flow.add_routine(joint, "joint")
    flow.connect("desk", "output", "joint", "input")
    state = flow.execute("desk")
    for text in ("a", "b"):
        flow.send(state, "desk", "answer", text=text)
        assert desk.heard.wait(LONG)
    assert not state.wait(SOON)
    assert joint.got == []
    flow.close_input(state, "desk", "answer")
    assert state.wait(LONG)
    assert joint.got == [{"text": ["a", "b"]}]


def test_the_outside_is_one_more_source_of_an_external_slot(engine):
    flow, joint = Flow("approval", engine=engine), Joint(gather="sources", external=True)
    flow.add_routine(Source(["draft"]), "source")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "joint", "input")
    state = flow.execute("source")
    assert (state.status, joint.got) == ("waiting", [])
    flow.send(state, "joint", "input", approved=True)
    flow.close_input(state, "joint", "input")
    assert state.wait(LONG)
    assert joint.got == [{"data": "draft", "approved": True}]


def test_a_source_from_outside_that_never_came_is_named(engine):
    flow, joint = Flow("approval", engine=engine), Joint(gather="sources", external=True, deadline=SOON)
    flow.add_routine(Source(["draft"]), "source")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "joint", "input")
    state = flow.execute("source")
    assert state.wait(LONG)
    assert state.error.type == "GatherError"
    assert state.error.message.endswith("came: source.output; missing: one from outside")


# --- what does not fit ------------------------------------------------------------------------------------------------


def refusals():
    return [
        ("no routine", ("dsk", "answer"), {"text": "x"}, DeclarationError, "no routine 'dsk'; did you mean 'desk'"),
        ("no slot", ("desk", "anwser"), {"text": "x"}, DeclarationError, "no slot 'anwser'; did you mean 'answer'"),
        ("empty", ("desk", "answer"), {}, PayloadError, "parameter 'text' is missing; the payload has nothing"),
        ("invalid", ("desk", "answer"), {"text": 5}, PayloadError, "parameter 'text' = 5 is not valid"),
    ]


@pytest.mark.parametrize(("place", "payload", "kind", "message"), [each[1:] for each in refusals()])
def test_what_does_not_fit_is_refused_and_the_job_knows_nothing_of_it(engine, place, payload, kind, message):
    flow, _, _ = desk_flow(engine)
    state = flow.execute("desk")
    with pytest.raises(kind, match=message):
        flow.send(state, *place, **payload)
    assert (state.status, state.pending_count) == ("waiting", 0)
    flow.cancel(state)


def approval_flow(engine, **options):
    """Return a flow with a draft that waits for a word from outside; and the job, which waits."""
    seen = []

    class Approval(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.take, external=True, **options)

        def take(self, data, approved: bool, note: str = ""):
            seen.append((data, approved))

    flow = Flow("approval", engine=engine)
    flow.add_routine(Source(["draft"]), "source")
    flow.add_routine(Approval(), "approval")
    flow.connect("source", "output", "approval", "input")
    return flow, flow.execute("source"), seen


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"approved": "perhaps"}, "parameter 'approved' = 'perhaps' is not valid"),
        ({"aproved": True}, "parameter 'approved' is missing; did you mean 'aproved'"),
        ({}, "parameter 'approved' is missing"),
        ({"approved": True, "note": 5}, "parameter 'note' = 5 is not valid"),
        ({"approved": True, "data": "mine"}, "parameter 'data' is delivered by a connection"),
    ],
)
def test_one_source_that_does_not_fit_is_refused_where_it_is_sent(engine, payload, message):
    flow, state, seen = approval_flow(engine, gather="sources")
    with pytest.raises(PayloadError, match=message):
        flow.send(state, "approval", "input", **payload)
    flow.send(state, "approval", "input", approved="yes")
    flow.close_input(state, "approval", "input")
    assert state.wait(LONG)
    assert (state.status, seen) == ("completed", [("draft", True)])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"key": 1, "data": "one"}, "parameter 'data' = 'one' is not valid: Input should be a valid integer"),
        ({"kye": 1, "data": 1}, "gathers by parameter 'key', which is missing.*did you mean 'kye'"),
        ({"key": [1], "data": 1}, r"\[1\] cannot be a key"),
    ],
)
def test_an_item_of_a_list_that_does_not_fit_is_refused_where_it_is_sent(engine, payload, message):
    sums = []

    def add(key: int, data: Annotated[list[int], MinLen(2)]):
        sums.append((key, sum(data)))

    flow = Flow("poll", engine=engine)
    flow.add_routine(Joint(add, gather="all", key="key", external=True), "poll")
    state = flow.execute("poll", {"key": 1, "data": 1})
    with pytest.raises(PayloadError, match=message):
        flow.send(state, "poll", "input", **payload)
    flow.send(state, "poll", "input", key=1, data=2)
    flow.close_input(state, "poll", "input")
    assert state.wait(LONG)
    assert (state.status, sums) == ("completed", [(1, 3)])


@pytest.mark.parametrize("how", ["completed", "cancelled", "closed"])
def test_sending_to_what_takes_in_nothing_more_says_why(engine, how):
    flow, _, _ = desk_flow(engine)
    flow.add_routine(Desk(), "other")
    state = flow.execute("desk")
    if how == "cancelled":
        flow.cancel(state)
    else:
        flow.close_input(state, "desk", "answer")
        if how == "completed":
            flow.close_input(state, "other", "answer")
            assert state.wait(LONG)
    with pytest.raises(StatusError, match=r"the input 'desk\.answer' was closed" if how == "closed" else f"is {how}"):
        flow.send(state, "desk", "answer", text="x")
    if how == "closed":
        flow.cancel(state)


def test_only_external_slots_are_closed():
    flow, _, _ = desk_flow()
    state = flow.execute("desk")
    with pytest.raises(ExecutionError, match=r"slot 'desk\.trigger' is not external.*external slots: desk\.answer"):
        flow.close_input(state, "desk", "trigger")
    flow.cancel(state)


def test_a_slot_that_takes_one_of_each_connection_takes_nothing_from_outside():
    flow, _, _ = desk_flow()
    flow.add_routine(Joint(gather="sources"), "joint")
    flow.connect("desk", "output", "joint", "input")
    state = flow.execute("desk")
    with pytest.raises(ExecutionError, match="takes one delivery of each connection"):
        flow.send(state, "joint", "input", text="x")
    flow.cancel(state)


def test_a_job_in_memory_whose_flow_is_shut_down_stays_as_it_is_and_keeps_nobody_waiting(tmp_path):
    flow, _, _ = desk_flow(deadline=SOON * 5)
    state = flow.execute("desk")
    errors = []

    def wait():
        try:
            state.wait()
        except ExecutionError as error:
            errors.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    flow.shutdown()
    waiting.join(LONG)
    assert errors == [f"flow 'desk' was shut down while job {state.job_id!r} is waiting; it goes on no more"]
    for change in (
        lambda: flow.send(state, "desk", "answer", text="x"),
        lambda: flow.close_input(state, "desk", "answer"),
        lambda: flow.resume(state),
    ):
        with pytest.raises(ExecutionError, match="was shut down"):
            change()
    assert (state.status, state._job.timers) == ("waiting", {})
    state.save(tmp_path / "job")
    again, _, sink = desk_flow(until="yes")
    loaded = again.load(tmp_path / "job")
    again.resume(loaded)
    again.send(loaded, "desk", "answer", text="yes")
    assert loaded.wait(LONG)
    assert sink.got == ["yes"]


def test_a_coroutine_that_waits_for_time_is_left_when_its_flow_is_shut_down_while_its_job_waits_for_the_outside():
    left = []

    class Napper(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("trigger", handler=self.nap)

        async def nap(self, ctx: AsyncContext):
            try:
                await ctx.step.wait_for_event("word", "never")
            finally:
                left.append(ctx.job_id)

    flow = Flow("napping")
    flow.add_routine(Napper(), "napper")
    state = flow.execute("napper")
    assert state.status == "waiting"
    flow.shutdown()
    with pytest.raises(ExecutionError, match="was shut down"):
        state.wait()
    assert (state.status, left) == ("waiting", [state.job_id])


def test_s5_what_cannot_be_kept_is_refused_where_it_is_sent():
    with Engine(store=open_store("memory:")) as engine:
        flow, sink = Flow("durable", engine=engine), Sink()
        flow.add_routine(Desk(), "desk")
        flow.add_routine(sink, "sink")
        state = flow.execute("desk")
        with pytest.raises(SaveError):
            flow.send(state, "sink", "input", data=object())
        flow.send(state, "sink", "input", data=1)
        flow.close_input(state, "desk", "answer")
        assert state.wait(LONG)
    assert sink.got == [1]


def test_a_routine_with_an_external_slot_is_reached_from_outside():
    flow, _, _ = desk_flow()
    answers = Routine()
    answers.define_slot("input", handler=lambda data: None, external=True)
    answers.define_event("output", ["data"])
    flow.add_routine(answers, "answers")
    flow.connect("answers", "output", "sink", "input")
    assert [finding for finding in flow.validate() if finding.kind == "unreachable"] == []


# --- elsewhere ------------------------------------------------------------------------------------------------------


def test_l4_a_waiting_job_is_saved_and_goes_on_in_another_process_and_no_handler_runs_again(tmp_path):
    flow, _, _ = desk_flow(deadline=3600.0)
    state = flow.execute("desk")
    state.save(tmp_path / "job")
    again, desk, sink = desk_flow(until="yes", deadline=3600.0)
    loaded = again.load(tmp_path / "job")
    assert loaded.status == "paused"
    again.resume(loaded)
    assert loaded.status == "waiting"
    assert loaded.open_inputs[0].deadline == state.open_inputs[0].deadline
    again.send(loaded, "desk", "answer", text="yes")
    assert loaded.wait(LONG)
    assert (loaded.status, sink.got, desk.asked) == ("completed", ["yes"], 0)
    flow.cancel(state)


def test_j6_a_waiting_job_survives_its_process_and_no_handler_runs_again(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Engine(store=open_store(url)) as engine:
        flow, desk, _ = desk_flow(engine)
        flow.execute("desk", job_id="j")
        assert desk.asked == 1
    with Engine(store=open_store(url)) as engine:
        flow, desk, sink = desk_flow(engine, until="yes")
        (state,) = engine.recover()
        assert state.status == "waiting"
        flow.send(state, "desk", "answer", text="yes")
        assert state.wait(LONG)
    assert (state.status, sink.got, desk.asked) == ("completed", ["yes"], 0)


def test_j6_a_job_that_sleeps_is_woken_by_its_deadline():
    with Engine(store=open_store("memory:")) as engine:
        flow, _, _ = desk_flow(engine, deadline=20 * SOON)
        state = flow.execute("desk", job_id="j")
        assert "j" in engine.keeping.sleepers
        assert state.wait(LONG)
        assert state.status == "completed"


def test_what_was_sent_first_is_handled_first_also_when_the_job_is_taken_in_between(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Engine(store=open_store(url)) as engine:
        flow, _, _ = desk_flow(engine)
        flow.execute("desk", job_id="j")
    with Engine(store=open_store(url)) as engine:
        flow, _, sink = desk_flow(engine)
        handle = engine.get("j")
        flow.send(handle, "desk", "answer", text="first")
        engine.recover()
        flow.send(handle, "desk", "answer", text="second")
        flow.close_input(handle, "desk", "answer")
        assert engine.get("j").wait(LONG)
        assert engine.store.receive(0) == []
    assert sink.got == ["first", "second"]


def test_what_was_sent_in_time_is_not_too_late_when_the_job_is_taken_after_its_deadline(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Engine(store=open_store(url)) as engine:
        flow, _, _ = desk_flow(engine, deadline=20 * SOON)
        deadline = flow.execute("desk", job_id="j").open_inputs[0].deadline
    with Engine(store=open_store(url)) as engine:
        flow, _, _ = desk_flow(engine, deadline=20 * SOON)
        flow.send(engine.get("j"), "desk", "answer", text="in time")
    while datetime.now(timezone.utc) <= deadline:
        threading.Event().wait(SOON)
    with Engine(store=open_store(url)) as engine:
        flow, _, sink = desk_flow(engine, deadline=20 * SOON)
        (state,) = engine.recover()
        assert state.wait(LONG)
    assert (state.status, sink.got) == ("completed", ["in time"])


def test_e4_what_was_sent_before_a_job_failed_is_handled_when_it_is_resumed(tmp_path):
    url, failing, got = f"sqlite:///{tmp_path}/jobs.db", [True], []

    class Fragile(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("trigger", handler=lambda: None)
            self.define_slot("input", handler=self.take, external=True)

        def take(self, data):
            if failing:
                raise OSError("the disk is full")
            got.append(data)

    def build(engine):
        flow = Flow("fragile", engine=engine)
        flow.add_routine(Fragile(), "fragile")
        return flow

    with Engine(store=open_store(url)) as engine:
        build(engine).execute("fragile", job_id="j")
    with Engine(store=open_store(url)) as engine:
        flow = build(engine)
        for data in ("first", "second"):
            flow.send(engine.get("j"), "fragile", "input", data=data)
    with Engine(store=open_store(url)) as engine:
        flow = build(engine)
        (state,) = engine.recover()
        assert state.wait(LONG)
        assert (state.status, engine.store.receive(0)) == ("failed", [])
        failing.clear()
        flow.resume(state)
        flow.close_input(state, "fragile", "input")
        assert state.wait(LONG)
    assert (state.status, got) == ("completed", ["first", "second"])


def test_j9_another_process_sends_and_closes_and_each_message_counts_once(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.db"
    stop = threading.Event()
    with Engine(store=open_store(url)) as engine:
        flow, _, sink = desk_flow(engine)
        state = flow.execute("desk", job_id="j")
        serving = threading.Thread(target=engine.serve, args=(stop,))
        serving.start()
        try:
            sent = subprocess.run(
                [sys.executable, "-c", SENDER, url],
                capture_output=True,
                text=True,
                timeout=60,
                cwd=Path(__file__).parent,
            )
            assert sent.stdout == "waiting\ncompleted\nStatusError\n", sent.stderr
            assert state.wait(LONG)
        finally:
            stop.set()
            serving.join()
    assert (state.status, sink.got) == ("completed", ["from", "elsewhere"])


SENDER = """
import sys
from routilux import Engine, StatusError, open_store
from test_inputs import desk_flow

with Engine(store=open_store(sys.argv[1])) as engine:
    flow, _, _ = desk_flow(engine)
    state = engine.get("j")
    print(state.status)
    flow.send(state, "desk", "answer", text="from")
    flow.send(state, "desk", "answer", text="elsewhere")
    flow.close_input(state, "desk", "answer")
    state.wait()
    print(state.status)
    try:
        flow.send(state, "desk", "answer", text="too late")
    except StatusError as error:
        print(type(error).__name__)
"""
