"""What routines and flows may declare, what they refuse, and when they can change."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest
from parts import Sink, Source, Step, chain

from routilux import DeclarationError, ErrorHandler, ErrorStrategy, Event, Flow, RoutiluxError, Routine, Slot

LONG = 20.0
NAN, INF = float("nan"), float("inf")
HUGE = {"1e400": 10**400, "1e5000": 10**5000, "-1e400": -(10**400), "-1e5000": -(10**5000)}
NO_NUMBERS = {"text": "1", "list": [1], "dict": {}, "complex": 1j, "class": int}
ABSURD = {"nan": NAN, "inf": INF, "-inf": -INF, "-1": -1, "True": True, "False": False, **HUGE, **NO_NUMBERS}
NO_NAMES = [None, "", 5, b"name", ["name"], True]


def nothing(**payload):
    pass


def flow_of(**routines):
    flow = Flow("f")
    for routine_id, routine in routines.items():
        flow.add_routine(routine, routine_id)
    return flow


# --- slots and events ---------------------------------------------------------------------------------------------


def test_defining_returns_what_was_defined():
    slot = Routine().define_slot("input", nothing, "append", 3, 1.5)
    assert isinstance(slot, Slot)
    assert (slot.name, slot.handler, slot.merge_strategy, slot.concurrency, slot.timeout) == (
        "input",
        nothing,
        "append",
        3,
        1.5,
    )
    event = Routine().define_event("output", iter(["a", "b"]))
    assert isinstance(event, Event)
    assert (event.name, event.output_params) == ("output", ("a", "b"))
    assert Routine().define_event("output").output_params is None
    assert Routine().define_event("output", []).output_params == ()


def test_a_slot_or_event_is_defined_once():
    routine = Sink()
    routine.define_event("output")
    with pytest.raises(DeclarationError, match=r"^Sink, slot 'input': this slot is defined already$"):
        routine.define_slot("input")
    with pytest.raises(DeclarationError, match=r"^Sink, event 'output': this event is defined already$"):
        routine.define_event("output")
    routine.define_slot("output")  # slots and events have names of their own
    routine.define_event("input")


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_a_name_is_a_non_empty_string(name):
    for define, kind in ((Routine().define_slot, "slot"), (Routine().define_event, "event")):
        with pytest.raises(DeclarationError, match=f"^Routine: an? {kind} name must be a non-empty string, not "):
            define(name)


@pytest.mark.parametrize("strategy", [None, "", "apend", 5, ["append"], {}], ids=repr)
def test_b7_an_unknown_merge_strategy_is_refused(strategy):
    with pytest.raises(
        DeclarationError, match=r"^Routine, slot 'input': unknown merge_strategy .*'override', 'append'"
    ):
        Routine().define_slot("input", merge_strategy=strategy)


@pytest.mark.parametrize("params", ["data", b"data", 5, [1], ["a", None], [""], ["a", "b", "a"], [["a"]]], ids=repr)
def test_b5_output_params_are_distinct_names(params):
    with pytest.raises(DeclarationError, match=r"^Routine, event 'output': output_params must be "):
        Routine().define_event("output", params)


# --- absurd numbers -----------------------------------------------------------------------------------------------

MORE = {
    "concurrency": {"0": 0, "1.5": 1.5, "None": None, "2.0": 2.0},
    "timeout": {"0": 0, "-0.0": -0.0, "two centuries": 2e10},
    "max_workers": {"0": 0, "1.5": 1.5, "None": None, "too many": 10**9},
    "max_pending": {"0": 0, "1.5": 1.5, "None": None, "too many": 10**12},
    "history_limit": {"1.5": 1.5, "too many": 10**12},
}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        pytest.param(option, value, id=f"{option}={name}")
        for option, more in MORE.items()
        for name, value in {**ABSURD, **more}.items()
    ],
)
def test_an_absurd_number_is_one_declaration_error_that_names_the_option(option, value):
    if option in ("concurrency", "timeout"):
        with pytest.raises(DeclarationError, match=f"^Routine, slot 'input': {option} must be a "):
            Routine().define_slot("input", nothing, **{option: value})
    else:
        with pytest.raises(DeclarationError, match=f"^flow 'f': {option} must be a whole number "):
            Flow("f", **{option: value})


def test_the_ends_of_each_range_are_allowed():
    routine = Routine()
    routine.define_slot("a", concurrency=1, timeout=1e-9)
    routine.define_slot("b", concurrency=1_000_000, timeout=10**9)
    routine.define_slot("c", timeout=None)
    Flow(max_workers=1, max_pending=1, history_limit=0)
    Flow(max_workers=10_000, max_pending=10**9, history_limit=None)


@pytest.mark.parametrize("option", ["max_retries", "retry_delay", "retry_backoff"])
@pytest.mark.parametrize("value", [NAN, -1, "2", True], ids=repr)
def test_e2_set_as_critical_refuses_absurd_numbers(option, value):
    with pytest.raises(DeclarationError, match=f"{option} must be a "):
        Routine().set_as_critical(**{option: value})


# --- flows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow_id", ["", 5, b"f", ["f"], True], ids=repr)
def test_a_flow_id_is_a_non_empty_string(flow_id):
    with pytest.raises(DeclarationError, match=r"^flow_id must be a non-empty string, not "):
        Flow(flow_id)


def test_flows_without_an_id_get_different_ones():
    assert len({Flow().flow_id for _ in range(1_000)}) == 1_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_processes_that_were_made_by_fork_give_different_ids():
    program = """
import os
from routilux import Flow

Flow()  # random digits are there for more ids
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, Flow().flow_id[12:].encode())
    os._exit(0)
os.close(write)
print(Flow().flow_id[12:] != os.read(read, 100).decode())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


@pytest.mark.parametrize("strategy", ["sequentiel", "", None, 5, ["sequential"]], ids=repr)
def test_d5_an_unknown_execution_strategy_names_what_there_is(strategy):
    with pytest.raises(DeclarationError, match=r"^flow 'f': unknown execution_strategy .* concurrent, sequential$"):
        Flow("f", execution_strategy=strategy)


def test_default_routine_ids_are_class_names_numbered_from_the_second_on():
    flow = Flow()
    assert flow.add_routine(Sink(), "Sink_2") == "Sink_2"
    assert [flow.add_routine(Sink()) for _ in range(3)] == ["Sink", "Sink_3", "Sink_4"]
    assert flow.add_routine(Source()) == "Source"
    assert list(flow.routines) == ["Sink_2", "Sink", "Sink_3", "Sink_4", "Source"]


def test_a_routine_is_added_once():
    flow, sink = Flow("f"), Sink()
    flow.add_routine(sink, "a")
    with pytest.raises(DeclarationError, match=r"^flow 'f': this Sink is in the flow already, as 'a'$"):
        flow.add_routine(sink, "b")
    with pytest.raises(DeclarationError, match=r"^flow 'f': there is a routine 'a' already$"):
        flow.add_routine(Sink(), "a")
    assert dict(flow.routines) == {"a": sink}


@pytest.mark.parametrize("routine_id", ["", 5, b"a", ["a"], True], ids=repr)
def test_a_routine_id_is_a_non_empty_string(routine_id):
    with pytest.raises(DeclarationError, match=r"^flow 'f': routine_id must be a non-empty string, not "):
        Flow("f").add_routine(Sink(), routine_id)


def test_a_class_in_place_of_an_instance_is_told_apart():
    with pytest.raises(
        DeclarationError, match=r"only a Routine can be added, not <class .*>; add an instance: Sink\(\)$"
    ):
        Flow("f").add_routine(Sink)


@pytest.mark.parametrize("thing", [None, "Sink", nothing, Flow("other"), object()], ids=lambda thing: str(type(thing)))
def test_only_routines_are_added(thing):
    with pytest.raises(DeclarationError, match=r"^flow 'f': only a Routine can be added, not "):
        Flow("f").add_routine(thing)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (("sorce", "output", "sink", "input"), r"^flow 'f' has no routine 'sorce'; did you mean 'source'\? "),
        (("source", "output", "sing", "input"), r"^flow 'f' has no routine 'sing'; did you mean 'sink'\? "),
        (("source", "outptu", "sink", "input"), r"routine 'source' has no event 'outptu'; did you mean 'output'\? "),
        (
            ("source", "output", "sink", "inptu"),
            r"routine 'sink' has no slot 'inptu'; did you mean 'input'\? slots: input$",
        ),
        (("sink", "output", "source", "trigger"), "routine 'sink' has no event 'output'; there are no events$"),
        ((None, "output", "sink", "input"), "has no routine None"),
        ((["source"], "output", "sink", "input"), r"has no routine \['source'\]"),
        (("source", 5, "sink", "input"), "has no event 5"),
    ],
    ids=str,
)
def test_unknown_names_of_a_connection_name_the_nearest(ends, message):
    flow = flow_of(source=Source(), sink=Sink())
    with pytest.raises(DeclarationError, match=message):
        flow.connect(*ends)
    assert flow.connections == ()


def test_many_names_are_shown_in_part():
    flow = flow_of(**{f"r{number:02}": Sink() for number in range(50)})
    with pytest.raises(DeclarationError, match=r"routines: r00, .*, r11 and 38 more$"):
        flow.connect("unknown", "output", "r00", "input")


def test_the_same_connection_is_made_once_and_another_mapping_is_another_connection():
    flow = flow_of(source=Source([1]), sink=Sink())
    flow.connect("source", "output", "sink", "input")
    with pytest.raises(DeclarationError, match=r"^flow 'f': source.output -> sink.input is connected already$"):
        flow.connect("source", "output", "sink", "input")
    flow.connect("source", "output", "sink", "input", {"data": "other"})
    flow.execute("source").raise_for_status()
    assert flow.routines["sink"].got == [1, {"other": 1}]


@pytest.mark.parametrize("handler", [None, "continue", ErrorStrategy.SKIP, ErrorHandler], ids=repr)
def test_e1_an_error_handler_is_an_error_handler(handler):
    for holder in (Flow("f"), Sink()):
        with pytest.raises(DeclarationError, match=r"expected an ErrorHandler, not "):
            holder.set_error_handler(handler)


def test_what_is_refused_leaves_the_flow_as_it_was():
    flow = flow_of(source=Source([1]), sink=Sink())
    flow.connect("source", "output", "sink", "input")
    flow.execute("source").raise_for_status()
    for refused in (
        lambda: flow.add_routine(Sink(), "sink"),
        lambda: flow.connect("source", "output", "sink", "input"),
        lambda: flow.routines["sink"].define_slot("input"),
        lambda: flow.routines["sink"].define_slot("more", "no function"),
        lambda: flow.routines["sink"].define_event("more", "name"),
    ):
        with pytest.raises(RoutiluxError):
            refused()
    flow.execute("source").raise_for_status()
    assert flow.routines["sink"].got == [1, 1]


def test_the_views_of_a_flow_cannot_be_changed():
    flow = flow_of(sink=Sink())
    with pytest.raises(TypeError):
        flow.routines["other"] = Sink()
    assert isinstance(flow.connections, tuple)


# --- changes ------------------------------------------------------------------------------------------------------

CHANGES = {
    "add a routine": lambda flow: flow.add_routine(Sink(), "more"),
    "connect": lambda flow: flow.connect("r0", "output", "r1", "input", {"data": "other"}),
    "flow's error handler": lambda flow: flow.set_error_handler(ErrorHandler()),
    "define a slot": lambda flow: flow.routines["r1"].define_slot("more"),
    "define an event": lambda flow: flow.routines["r1"].define_event("more"),
    "configure": lambda flow: flow.routines["r1"].set_config(value=2),
    "routine's error handler": lambda flow: flow.routines["r1"].set_error_handler(ErrorHandler()),
    "critical": lambda flow: flow.routines["r1"].set_as_critical(),
    "optional": lambda flow: flow.routines["r1"].set_as_optional(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_d11_nothing_is_declared_while_a_job_runs_and_all_can_be_before_and_after(change):
    started, go = threading.Event(), threading.Event()

    def hold(step, **payload):
        started.set()
        assert go.wait(LONG)

    with chain(Source(), Step(hold)) as flow:
        flow.routines["r1"].set_config(value=1)
        before = (dict(flow.routines), flow.connections)
        state = flow.start("r0", {"items": [1, 2]}, job_id="j")
        assert started.wait(LONG)
        with pytest.raises(DeclarationError, match=r"^flow 'chain': cannot .* while job 'j' runs; declare everything"):
            change(flow)
        assert (dict(flow.routines), flow.connections) == before
        assert flow.routines["r1"].get_config("value") == 1
        go.set()
        assert state.wait(LONG)
        assert state.status == "completed"
        assert state.performance("r1").count == 2
        change(flow)
        flow.execute("r0", {"items": [1]}).raise_for_status()


def test_d11_the_number_of_running_jobs_is_told():
    started, go = threading.Barrier(3), threading.Event()
    step = Step(lambda step: (started.wait(LONG), go.wait(LONG)))
    with chain(step, execution_strategy="concurrent", max_workers=2) as flow:
        states = [flow.start("r0"), flow.start("r0")]
        started.wait(LONG)
        with pytest.raises(DeclarationError, match=r"while 2 jobs run;"):
            flow.add_routine(Sink())
        go.set()
        assert all(state.wait(LONG) for state in states)


def test_d11_a_handler_cannot_change_the_declaration_of_its_own_job():
    def configure(step):
        with pytest.raises(DeclarationError, match=r"cannot Step: set its configuration while job"):
            step.set_config(counter=1)

    flow = chain(Step(configure))
    flow.execute("r0").raise_for_status()
    assert flow.routines["r0"].get_config("counter") is None


@pytest.mark.parametrize("how", ["complete", "fail", "cancel"])
def test_d11_a_job_that_has_ended_in_any_way_does_not_hold_the_declaration(how):
    def handler(step):
        if how == "fail":
            raise ValueError
        if how == "cancel":
            context = step.get_execution_context()
            context.flow.cancel(context.job_state)

    flow = chain(Step(handler))
    flow.execute("r0")
    assert flow.add_routine(Sink(), "more") == "more"


def test_d11_a_change_after_a_job_takes_effect_in_the_next():
    flow = chain(Source([1]), Sink())
    flow.execute("r0").raise_for_status()
    second = Sink()
    flow.add_routine(second, "second")
    flow.connect("r0", "output", "second", "input")
    flow.routines["r0"].define_event("more", [])
    flow.execute("r0").raise_for_status()
    assert (flow.routines["r1"].got, second.got) == ([1, 1], [1])


def test_d11_slots_and_events_may_be_declared_after_the_routine_was_added():
    got = []
    source, receiver = Routine(), Routine()
    flow = flow_of(source=source, receiver=receiver)
    source.define_event("output")
    source.define_slot("trigger", lambda: source.emit("output", n=1))
    receiver.define_slot("input", lambda n: got.append(n))
    flow.connect("source", "output", "receiver", "input")
    flow.execute("source").raise_for_status()
    assert got == [1]


# --- D11: one routine in several flows ----------------------------------------------------------------------------


def test_d11_one_routine_has_an_id_of_its_own_in_each_flow():
    seen = []
    step = Step(
        lambda step: seen.append((step.get_execution_context().flow.flow_id, step.get_execution_context().routine_id))
    )
    for flow_id, routine_id in (("f1", "a"), ("f2", "b")):
        flow = Flow(flow_id)
        flow.add_routine(step, routine_id)
        flow.execute(routine_id).raise_for_status()
    assert seen == [("f1", "a"), ("f2", "b")]


def test_d11_a_routine_that_runs_in_one_flow_cannot_change_through_another():
    started, go = threading.Event(), threading.Event()
    step = Step(lambda step: (started.set(), go.wait(LONG)))
    with chain(step) as running:
        other = flow_of(same=step)
        state = running.start("r0")
        assert started.wait(LONG)
        with pytest.raises(DeclarationError, match=r"^flow 'chain': cannot Step: define slot 'more' while job"):
            step.define_slot("more")
        other.add_routine(Sink(), "sink")  # the other flow itself runs nothing
        other.connect("same", "output", "sink", "input")
        flow_of(also=step)
        go.set()
        assert state.wait(LONG)
    step.define_slot("more")
    assert other.execute("same", slot="more").status == "completed"


def test_d11_each_flow_wires_the_routine_for_itself():
    source, first, second = Source([1]), Sink(), Sink()
    for sink in (first, second):
        flow = flow_of(source=source, sink=sink)
        flow.connect("source", "output", "sink", "input")
        flow.execute("source").raise_for_status()
    assert (first.got, second.got) == ([1], [1])


def test_d11_a_flow_that_is_gone_does_not_hold_its_routines():
    sink = Sink()
    flow = flow_of(sink=sink)
    flow.execute("sink")
    del flow
    gc.collect()
    sink.define_slot("more")
    assert flow_of(sink=sink).execute("sink", slot="more").status == "completed"


# --- D12: the names of a routine are its users' -------------------------------------------------------------------


def test_d12_a_routine_has_few_public_names():
    assert {name for name in dir(Routine) if not name.startswith("_")} == {
        "define_event",
        "define_slot",
        "emit",
        "emit_deferred_event",
        "get_config",
        "get_execution_context",
        "send_output",
        "set_as_critical",
        "set_as_optional",
        "set_config",
        "set_error_handler",
    }


HANDLERS = ["process", "validate", "send", "generate", "collect", "aggregate", "run", "handle"]
ATTRIBUTES = [
    "slots",
    "events",
    "name",
    "config",
    "state",
    "connections",
    "flow",
    "job",
    "context",
    "error_handler",
    "id",
]


class Taken(Routine):
    """Uses every name that comes to mind."""

    def __init__(self):
        super().__init__()
        for attribute in ATTRIBUTES:
            setattr(self, attribute, f"my {attribute}")
        self.calls = []
        for handler in HANDLERS:
            self.define_slot(handler, handler=getattr(self, handler))
        self.define_event("output")
        self.set_config(key="value")

    def process(self, n):
        self.took("process", n)

    def validate(self, n):
        self.took("validate", n)

    def send(self, n):
        self.took("send", n)

    def generate(self, n):
        self.took("generate", n)

    def collect(self, n):
        self.took("collect", n)

    def aggregate(self, n):
        self.took("aggregate", n)

    def run(self, n):
        self.took("run", n)

    def handle(self, n):
        self.took("handle", n)

    def took(self, name, n):
        self.calls.append((name, n))
        self.emit("output", n=n)
        self.send_output("kind", n=n)


@pytest.mark.parametrize("slot", HANDLERS)
def test_d12_handlers_may_have_the_tutorials_names(slot):
    routine, sink = Taken(), Sink()
    flow = flow_of(a=routine, b=sink)
    flow.connect("a", "output", "b", "input")
    state = flow.execute("a", {"n": 1}, slot=slot)
    state.raise_for_status()
    assert routine.calls == [(slot, 1)]
    assert (sink.got, len(state.outputs)) == ([{"n": 1}], 1)
    assert [getattr(routine, name) for name in ATTRIBUTES] == [f"my {name}" for name in ATTRIBUTES]
    assert routine.get_config("key") == "value"


def test_a_subclass_that_forgets_to_call_the_base_constructor_works():
    class Forgetful(Routine):
        def __init__(self, factor, *, offset=0):
            self.factor, self.offset, self.got = factor, offset, []
            self.define_slot("input", handler=self.process)

        def process(self, n):
            self.got.append(self.factor * n + self.offset)

    routine = Forgetful(3, offset=1)
    flow_of(r=routine).execute("r", {"n": 2}).raise_for_status()
    assert routine.got == [7]


def test_a_routine_may_be_a_dataclass_that_compares_by_value():
    @dataclass
    class Scale(Routine):
        factor: int = 2

        def __post_init__(self):
            self.define_slot("input", handler=lambda n: None)

    first, second = Scale(), Scale()
    assert first == second
    flow = flow_of(a=first, b=second)
    assert flow.execute("a", {"n": 1}).status == flow.execute("b", {"n": 1}).status == "completed"


def test_instances_of_one_class_declare_for_themselves():
    first, second = Routine(), Routine()
    first.define_slot("input")
    first.set_config(key=1)
    second.define_slot("input")
    assert second.get_config("key") is None


# --- configuration ------------------------------------------------------------------------------------------------


def test_s4_configuration_is_copied_in_and_out():
    values = [1]
    routine = Routine()
    routine.set_config(values=values)
    values.append("mine")
    routine.get_config("values").append("mine, too")
    assert routine.get_config("values") == [1]


def test_set_config_adds_and_replaces_keys():
    routine = Routine()
    routine.set_config(a=1, b=1)
    routine.set_config(b=2, c=None)
    assert [routine.get_config(key, "default") for key in "abcd"] == [1, 2, None, "default"]


def test_get_config_of_what_is_not_there_is_the_default():
    assert Routine().get_config("key") is None
    assert Routine().get_config("key", 5) == 5


def test_d11_configuration_is_seen_by_the_handlers_of_every_flow():
    got = []
    step = Step(lambda step: got.append(step.get_config("key")))
    step.set_config(key={"deep": [1]})
    for flow in (flow_of(r=step), flow_of(r=step)):
        flow.execute("r").raise_for_status()
    assert got == [{"deep": [1]}] * 2


# --- set_as_critical, set_as_optional -----------------------------------------------------------------------------


def failing(times):
    """A step that fails so many times, and the list of its attempts."""
    attempts = []

    def handler(step):
        attempts.append(step.get_execution_context().attempt)
        if len(attempts) <= times:
            raise ValueError("no good")

    return Step(handler), attempts


@pytest.mark.parametrize(
    ("times", "status", "expected"), [(0, "completed", [1]), (2, "completed", [1, 2, 3]), (3, "failed", [1, 2, 3])]
)
def test_e2_a_critical_routine_is_retried_and_then_fails_the_job(times, status, expected):
    step, attempts = failing(times)
    step.set_as_critical(max_retries=2, retry_delay=0, retry_backoff=1)
    assert chain(step).execute("r0").status == status
    assert attempts == expected


@pytest.mark.parametrize(
    ("arguments", "recorded"),
    [((), "failed"), (("continue",), "failed"), ((ErrorStrategy.SKIP,), "skipped"), (("skip",), "skipped")],
)
def test_e2_an_optional_routine_may_fail_without_failing_the_job(arguments, recorded):
    step, attempts = failing(1)
    step.set_as_optional(*arguments)
    state = chain(step).execute("r0")
    assert (state.status, attempts, len(state.errors)) == ("completed", [1], 1)
    assert state.get_execution_history()[0].status == recorded


@pytest.mark.parametrize("strategy", [ErrorStrategy.STOP, "retry", "skipp", None, 5], ids=repr)
def test_e2_an_optional_routine_goes_on_or_skips(strategy):
    """A strategy that fails the job would make the routine critical instead."""
    with pytest.raises(DeclarationError, match=r"strategy"):
        Routine().set_as_optional(strategy)


def test_e1_the_last_error_handler_that_was_set_counts():
    step, attempts = failing(1)
    step.set_as_optional()
    step.set_as_critical(max_retries=1, retry_delay=0)
    assert chain(step).execute("r0").status == "completed"
    assert attempts == [1, 2]
