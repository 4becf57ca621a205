"""Slots that gather: which deliveries they handle together, when, and what becomes of the rest."""

from __future__ import annotations

import re
import sys
import threading
from functools import partial

import networkx
import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import LONG, Sink, Source, Step

from routilux import (
    Context,
    DeclarationError,
    Engine,
    ErrorHandler,
    Flow,
    GatherError,
    PayloadError,
    RecoveryError,
    Routine,
    open_store,
)
from routilux.core.deliveries import recounted
from routilux.core.fold import apply, fold
from routilux.core.foresight import status_after
from routilux.core.job_record import JobRecord
from routilux.core.points import Batch, Committed, Emission
from routilux.core.records import (
    Began,
    Cancelled,
    Emitted,
    Ended,
    ErrorRecord,
    InputClosed,
    Paused,
    Received,
    Resumed,
    Started,
)
from routilux.core.status import JobStatus

IN_MEMORY, DURABLE = "in memory", "durable"


@pytest.fixture(params=[IN_MEMORY, DURABLE])
def engine(request):
    """The engine of a flow: none of its own, or one with a store."""
    if request.param == IN_MEMORY:
        yield None
        return
    with Engine(store=open_store("memory:")) as made:
        yield made


class Joint(Routine):
    """Keeps what it was given, and passes on how much that was."""

    def __init__(self, handler=None, **options):
        super().__init__()
        self.got = []
        self.define_slot("input", handler=handler or self.keep, **options)
        self.define_event("output", ["data"])

    def keep(self, **payload):
        self.got.append(payload)
        self.emit("output", data=len(self.got))


class Numbers(Routine):
    """Emits ``data=n, odd=n % 2`` for all numbers below the one that it gets."""

    def __init__(self):
        super().__init__()
        self.define_slot("trigger", handler=self.count)
        self.define_event("output", ["data", "odd"])

    def count(self, to):
        for data in range(to):
            self.emit("output", data=data, odd=data % 2)


def mapped(engine=None, to=7, strategy="sequential", **options):
    """Run numbers through a routine that squares them into a slot that gathers; return the job and the slot's routine.

    Squares arrive in order, whatever the number of threads.
    """
    flow = Flow("mapped", engine=engine, execution_strategy=strategy)
    joint = Joint(**options)
    flow.add_routine(Numbers(), "numbers")
    flow.add_routine(Step(lambda step, data, odd: step.emit("output", data=data * data, odd=odd)), "square")
    flow.add_routine(joint, "joint")
    flow.connect("numbers", "output", "square", "input")
    flow.connect("square", "output", "joint", "input")
    with flow:
        return flow.execute("numbers", {"to": to}), joint


# --- so many ------------------------------------------------------------------------------------------------------


def test_a_number_of_deliveries_is_handled_together_in_order_of_arrival(engine):
    state, joint = mapped(engine, 6, gather=3)
    assert state.status == "completed"
    assert joint.got == [{"data": [0, 1, 4], "odd": [0, 1, 0]}, {"data": [9, 16, 25], "odd": [1, 0, 1]}]
    assert [record.slot for record in state.get_execution_history("joint")] == ["input", "input"]


@pytest.mark.parametrize(("rest", "last"), [(None, [[36]]), ("deliver", [[36]]), ("drop", [])])
def test_the_rest_of_a_number_is_delivered_or_dropped(engine, rest, last):
    state, joint = mapped(engine, 7, gather=3, rest=rest)
    assert state.status == "completed"
    assert [each["data"] for each in joint.got] == [[0, 1, 4], [9, 16, 25], *last]
    assert state.pending_count == 0


def test_the_rest_of_a_number_is_an_error_that_says_what_came_and_what_is_missing(engine):
    state, joint = mapped(engine, 4, gather=3, rest="error")
    assert state.status == "failed"
    assert len(joint.got) == 1
    with pytest.raises(
        GatherError, match=r"'mapped', routine 'joint', slot 'input'.*came: \{'data': 9, 'odd': 1\}; missing: 2 more$"
    ):
        state.raise_for_status()


def test_the_error_strategy_applies_to_a_rest_that_is_an_error(engine):
    flow = Flow("lenient", engine=engine)
    joint = Joint(gather=2, rest="error")
    joint.set_error_handler(ErrorHandler("continue"))
    flow.add_routine(Source([1, 2, 3]), "source")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "joint", "input")
    state = flow.execute("source")
    assert state.status == "completed"
    assert [error.type for error in state.errors] == ["GatherError"]
    assert [record.status for record in state.get_execution_history("joint")] == ["completed", "failed"]


def test_the_rest_is_delivered_as_soon_as_nothing_can_come_any_more():
    other, rest = threading.Event(), threading.Event()
    flow = Flow("early", execution_strategy="concurrent", max_workers=3)

    def long(step, **_):
        assert rest.wait(LONG)
        other.set()

    flow.add_routine(Source([1]), "source")
    flow.add_routine(Step(long), "long")
    flow.add_routine(Joint(lambda data: rest.set(), gather=5), "joint")
    for target in ("long", "joint"):
        flow.connect("source", "output", target, "input")
    with flow:
        assert flow.execute("source").status == "completed"
    assert other.is_set()


# --- all ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["sequential", "concurrent"])
def test_all_are_handled_together_when_no_more_can_come(engine, strategy):
    state, joint = mapped(engine, 100, strategy, gather="all")
    assert state.status == "completed"
    assert [each["data"] for each in joint.got] == [[n * n for n in range(100)]]


def test_a_gather_of_all_to_which_nothing_came_is_not_handled(engine):
    state, joint = mapped(engine, 0, gather="all")
    assert state.status == "completed"
    assert joint.got == []


def test_two_joins_in_a_row(engine):
    flow = Flow("two", engine=engine)
    sums, last = Joint(lambda data: sums.emit("output", data=sum(data)), gather=2), Joint(gather="all")
    flow.add_routine(Source(range(5)), "source")
    flow.add_routine(sums, "sums")
    flow.add_routine(last, "last")
    flow.connect("source", "output", "sums", "input")
    flow.connect("sums", "output", "last", "input")
    state = flow.execute("source")
    assert state.status == "completed"
    assert last.got == [{"data": [1, 5, 4]}]


def test_a_join_of_all_after_a_join_of_all(engine):
    flow = Flow("two", engine=engine)
    ends = [Joint(gather="all"), Joint(gather="all"), Joint(gather="all")]
    flow.add_routine(Source(range(4)), "source")
    for number, joint in enumerate(ends):
        flow.add_routine(joint, f"j{number}")
        flow.connect("source", "output", f"j{number}", "input")
    flow.connect("j0", "output", "j1", "input")
    flow.connect("j1", "output", "j2", "input")
    assert flow.execute("source").status == "completed"
    assert [joint.got for joint in ends] == [
        [{"data": [0, 1, 2, 3]}],
        [{"data": [0, 1, 2, 3, 1]}],
        [{"data": [0, 1, 2, 3, 1]}],
    ]


def test_a_join_inside_a_cycle_gathers_what_goes_round_before_it_goes_on(engine):
    flow = Flow("rounds", engine=engine)
    rounds: list[list[int]] = []

    def again(step, data):
        rounds.append(data)
        if len(data) > 1:
            for left, right in zip(data[::2], data[1::2], strict=False):
                step.emit("output", data=left + right)

    flow.add_routine(Source(range(8)), "source")
    reduce = Step(lambda step, data: step.emit("output", data=data))
    flow.add_routine(reduce, "reduce")
    flow.add_routine(Step(again, gather="all"), "joint")
    flow.connect("source", "output", "joint", "input")
    flow.connect("joint", "output", "reduce", "input")
    flow.connect("reduce", "output", "joint", "input")
    assert flow.execute("source").status == "completed"
    assert rounds == [[0, 1, 2, 3, 4, 5, 6, 7], [1, 5, 9, 13], [6, 22], [28]]


def test_of_two_joins_in_one_cycle_that_with_the_oldest_delivery_is_first(engine):
    flow = Flow("ring", engine=engine)
    order = []

    def handler(name, step, data):
        order.append((name, data))
        if len(order) < 4:
            step.emit("output", data=len(order))

    flow.add_routine(Source([0]), "first")
    flow.add_routine(Source([0]), "second")
    flow.add_routine(Step(lambda step, **_: step.emit("output")), "start")
    for name in ("a", "b"):
        flow.add_routine(Step(partial(handler, name), gather="all"), name)
    flow.connect("start", "output", "second", "trigger")
    flow.connect("start", "output", "first", "trigger")
    flow.connect("first", "output", "a", "input")
    flow.connect("second", "output", "b", "input")
    flow.connect("a", "output", "b", "input")
    flow.connect("b", "output", "a", "input")
    assert flow.execute("start").status == "completed"
    assert order == [("b", [0]), ("a", [0, 1]), ("b", [2]), ("a", [3])]


def test_all_waits_for_what_is_retried_upstream(engine):
    flow = Flow("retried", engine=engine)
    joint = Joint(gather="all")
    failed = []

    def once(step, data):
        if data == 1 and not failed:
            failed.append(data)
            raise ValueError("not at first")
        step.emit("output", data=data)

    worker = Step(once, concurrency=4)
    worker.set_error_handler(ErrorHandler("retry", max_retries=2, retry_delay=0.001))
    flow.add_routine(Source(range(3)), "source")
    flow.add_routine(worker, "worker")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "worker", "input")
    flow.connect("worker", "output", "joint", "input")
    state = flow.execute("source")
    assert state.status == "completed"
    assert [sorted(each["data"]) for each in joint.got] == [[0, 1, 2]]


def test_all_waits_for_a_turn_that_waits_upstream(engine):
    flow = Flow("waiting", engine=engine)
    joint = Joint(gather="all")

    async def nap(data, ctx):
        if data == 0:
            await ctx.step.wait_for("nap", seconds=0.005)
        ctx.emit("output", data=data)

    class Napper(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.nap, concurrency=3)
            self.define_event("output")

        async def nap(self, data, ctx: Context):
            await nap(data, ctx)

    flow.add_routine(Source(range(3)), "source")
    flow.add_routine(Napper(), "napper")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "napper", "input")
    flow.connect("napper", "output", "joint", "input")
    with flow:
        assert flow.execute("source").status == "completed"
    assert [sorted(each["data"]) for each in joint.got] == [[0, 1, 2]], "several at a time give up order"


def test_all_waits_for_deferred_events_until_the_job_is_resumed(engine):
    flow = Flow("deferred", engine=engine)
    joint = Joint(gather="all")

    def later(step, **_):
        step.emit_deferred_event("output", data=2)
        step.emit("output", data=1)

    flow.add_routine(Step(later), "source")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "joint", "input")
    with flow:
        state = flow.execute("source")
        assert (state.status, joint.got, state.pending_count) == ("paused", [], 1)
        assert flow.resume(state).wait(LONG)
    assert joint.got == [{"data": [1, 2]}]


# --- one of each source ---------------------------------------------------------------------------------------------


def two_sources(engine=None, left=(1, 2), right=("a", "b"), **options):
    """Return a flow in which one slot gets ``number`` of one routine and ``letter`` of another; and its routine."""
    flow = Flow("pairs", engine=engine)
    joint = Joint(**{"gather": "sources", **options})
    flow.add_routine(Step(lambda step, **_: step.emit("output")), "start")
    flow.add_routine(Source(left), "left")
    flow.add_routine(Source(right), "right")
    flow.add_routine(joint, "joint")
    for source, name in (("left", "number"), ("right", "letter")):
        flow.connect("start", "output", source, "trigger")
        flow.connect(source, "output", "joint", "input", {"data": name})
    return flow, joint


def test_one_of_each_source_is_handled_together_first_with_first(engine):
    flow, joint = two_sources(engine)
    assert flow.execute("start").status == "completed"
    assert joint.got == [{"number": 1, "letter": "a"}, {"number": 2, "letter": "b"}]


def test_a_source_that_did_not_deliver_is_an_error_that_names_it(engine):
    flow, joint = two_sources(engine, left=(1, 2, 3), right=("a",))
    state = flow.execute("start")
    assert joint.got == [{"number": 1, "letter": "a"}]
    with pytest.raises(GatherError, match=r"came: left\.output \(2 times\); missing: right\.output"):
        state.raise_for_status()


def test_what_is_left_of_sources_is_delivered_one_by_one_when_that_is_asked_for(engine):
    flow, joint = two_sources(engine, left=(1, 2, 3), right=("a",), rest="deliver")
    assert flow.execute("start").status == "completed"
    assert joint.got == [{"number": 1, "letter": "a"}, {"number": 2}, {"number": 3}]


def test_two_sources_that_deliver_the_same_parameter_are_refused_when_they_are_connected():
    flow = Flow("same")
    for name in ("left", "right"):
        flow.add_routine(Source(), name)
    flow.add_routine(Joint(gather="sources"), "joint")
    flow.connect("left", "output", "joint", "input")
    with pytest.raises(
        DeclarationError, match=r"right\.output -> joint\.input and left\.output.*'data'.*param_mapping"
    ):
        flow.connect("right", "output", "joint", "input")


def test_two_sources_that_deliver_the_same_undeclared_parameter_fail_the_activation(engine):
    flow = Flow("same", engine=engine)
    flow.add_routine(Step(lambda step, **_: step.emit("output")), "start")
    for name in ("left", "right"):
        flow.add_routine(Step(lambda step, **_: step.emit("output", value=1)), name)
        flow.connect("start", "output", name, "input")
    flow.add_routine(Joint(gather="sources"), "joint")
    for name in ("left", "right"):
        flow.connect(name, "output", "joint", "input")
    with pytest.raises(PayloadError, match=r"left\.output and right\.output both deliver parameter 'value'"):
        flow.execute("start").raise_for_status()


def test_two_connections_of_one_routine_are_two_sources(engine):
    class Splitter(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("trigger", handler=self.split)
            self.define_event("head", ["head"])
            self.define_event("body", ["body"])

        def split(self):
            for number in range(2):
                self.emit("head", head=number)
            for number in range(2):
                self.emit("body", body=number)

    flow = Flow("split", engine=engine)
    joint = Joint(gather="sources")
    flow.add_routine(Splitter(), "splitter")
    flow.add_routine(joint, "joint")
    for event in ("head", "body"):
        flow.connect("splitter", event, "joint", "input")
    assert flow.execute("splitter").status == "completed"
    assert joint.got == [{"head": 0, "body": 0}, {"head": 1, "body": 1}]


def test_an_execution_cannot_start_with_a_slot_that_takes_one_of_each_connection():
    flow, _ = two_sources()
    with pytest.raises(DeclarationError, match="'joint': slot 'input' takes one delivery of each connection"):
        flow.execute("joint")


# --- by key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"gather": "all"}, [([0, 4, 16, 36], 0), ([1, 9, 25], 1)]),
        ({"gather": 2}, [([0, 4], 0), ([1, 9], 1), ([16, 36], 0), ([25], 1)]),
        ({"gather": 2, "rest": "drop"}, [([0, 4], 0), ([1, 9], 1), ([16, 36], 0)]),
    ],
)
def test_each_value_of_the_key_is_gathered_for_itself(engine, options, groups):
    state, joint = mapped(engine, 7, key="odd", **options)
    assert state.status == "completed"
    assert [(each["data"], each["odd"]) for each in joint.got] == groups


def test_sources_are_gathered_by_key_in_whatever_order_they_deliver(engine):
    flow = Flow("orders", engine=engine)
    joint = Joint(gather="sources", key="order")
    flow.add_routine(Step(lambda step, **_: step.emit("output")), "start")
    flow.add_routine(joint, "joint")
    for name, orders in (("price", "abc"), ("stock", "cab")):

        def send(step, name=name, orders=orders, **_):
            for order in orders:
                step.emit("output", order=order, **{name: f"{name} of {order}"})

        flow.add_routine(Step(send), name)
        flow.connect("start", "output", name, "input")
        flow.connect(name, "output", "joint", "input")
    assert flow.execute("start").status == "completed"
    assert joint.got == [{"order": o, "price": f"price of {o}", "stock": f"stock of {o}"} for o in "cab"]


def test_what_is_left_of_several_keys_is_delivered_in_order_of_arrival(engine):
    flow = Flow("left over", engine=engine)
    joint = Joint(gather="sources", key="key", rest="deliver")
    flow.add_routine(Step(lambda step, **_: step.emit("output")), "start")
    flow.add_routine(joint, "joint")
    for name, keys in (("left", "xxy"), ("right", "x")):

        def send(step, name=name, keys=keys, **_):
            for number, key in enumerate(keys):
                step.emit("output", key=key, **{name: number})

        flow.add_routine(Step(send), name)
        flow.connect("start", "output", name, "input")
        flow.connect(name, "output", "joint", "input")
    assert flow.execute("start").status == "completed"
    assert joint.got == [{"key": "x", "left": 0, "right": 0}, {"key": "x", "left": 1}, {"key": "y", "left": 2}]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"ordr": 1}, r"gathers by parameter 'order', which is missing.*did you mean 'ordr'"),
        ({"order": [1]}, r"gathers by parameter 'order', and \[1\] cannot be a key"),
    ],
)
def test_a_key_that_is_missing_or_cannot_be_one_is_an_error_of_that_delivery_alone(engine, payload, message):
    flow = Flow("keyless", engine=engine)
    joint = Joint(gather=2, key="order")
    joint.set_error_handler(ErrorHandler("continue"))

    def send(step, **_):
        step.emit("output", order="a")
        step.emit("output", **payload)
        step.emit("output", order="a")

    flow.add_routine(Step(send), "source")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "joint", "input")
    state = flow.execute("source")
    assert state.status == "completed"
    assert joint.got == [{"order": "a"}]
    assert [error.type for error in state.errors] == ["PayloadError"]
    assert re.search(message, state.error.message)


def test_a_key_that_an_event_does_not_declare_is_refused_when_it_is_connected():
    flow = Flow("misspelt")
    flow.add_routine(Numbers(), "numbers")
    flow.add_routine(Joint(gather="all", key="old"), "joint")
    with pytest.raises(
        DeclarationError, match=r"numbers\.output -> joint\.input: slot 'input' gathers by .*'old'.*did you"
    ):
        flow.connect("numbers", "output", "joint", "input")
    flow.connect("numbers", "output", "joint", "input", {"odd": "old"})


def test_drawings_show_how_slots_gather_and_what_comes_from_outside():
    flow = Flow("drawn")
    flow.add_routine(Numbers(), "numbers")
    flow.add_routine(Joint(gather=2, key="odd", external=True), "joint")
    flow.connect("numbers", "output", "joint", "input")
    assert flow.to_mermaid().splitlines()[3:] == [
        '    n0 -->|"output -> input#44;#32;gather 2 deliveries by#32;#39;odd#39;"| n1',
        '    outside(["outside"])',
        '    outside -->|"input#44;#32;gather 2 deliveries by#32;#39;odd#39;"| n1',
    ]
    assert flow.to_dot().splitlines()[4:] == [
        """    n0 -> n1 [label="output -> input, gather 2 deliveries by 'odd'"];""",
        "    outside [shape=ellipse];",
        """    outside -> n1 [label="input, gather 2 deliveries by 'odd'"];""",
        "}",
    ]


# --- what gathering does not change -----------------------------------------------------------------------------------


def test_b3_the_lists_are_validated_as_they_are_annotated(engine):
    got = []

    def take(data: list[str], odd: list[bool]):
        got.append((data, odd))

    flow = Flow("typed", engine=engine)
    flow.add_routine(Numbers(), "numbers")
    flow.add_routine(Joint(take, gather="all"), "joint")
    flow.connect("numbers", "output", "joint", "input", {"odd": "odd"})
    with pytest.raises(PayloadError, match=r"data\.0"):
        flow.execute("numbers", {"to": 2}).raise_for_status()
    assert got == []


def test_b8_the_handlers_lists_are_its_own(engine):
    flow = Flow("own", engine=engine)

    def spoil(data):
        data.clear()

    flow.add_routine(Source(["x", ["y"]]), "source")
    flow.add_routine(Joint(spoil, gather="all"), "joint")
    flow.connect("source", "output", "joint", "input")
    state = flow.execute("source")
    assert state.status == "completed"
    assert state.get_execution_history("joint")[0].data == {"data": ["x", ["y"]]}


def test_t3_what_a_failed_turn_emitted_is_taken_back_also_out_of_a_group_that_was_full():
    flow = Flow("taken back")
    joint = Joint(gather=2)
    failing = [True]

    def send(step, data):
        step.emit("output", data=data)
        if data == "bad" and failing:
            step.emit("output", data="never")
            raise ValueError("bad")

    flow.add_routine(Source(["good", "bad", "late"]), "source")
    flow.add_routine(Step(send), "sender")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "sender", "input")
    flow.connect("sender", "output", "joint", "input")
    state = flow.execute("source")
    assert (state.status, joint.got) == ("failed", [])
    assert state._record.gathers == recounted(state._record)
    failing.clear()
    assert flow.resume(state).wait(LONG)
    assert joint.got == [{"data": ["good", "bad"]}, {"data": ["late"]}]


def test_e4_what_was_gathered_for_a_handler_that_failed_is_handled_when_the_job_is_resumed(engine):
    failing = [True]
    got = []

    def take(data):
        got.append(data)
        if failing:
            raise ValueError("not yet")

    flow = Flow("again", engine=engine)
    flow.add_routine(Source(range(3)), "source")
    flow.add_routine(Joint(take, gather=3, rest="error"), "joint")
    flow.connect("source", "output", "joint", "input")
    with flow:
        state = flow.execute("source")
        assert state.status == "failed"
        failing.clear()
        assert flow.resume(state).wait(LONG)
    assert state.status == "completed"
    assert got == [[0, 1, 2]] * 2


def test_d6_a_finished_or_cancelled_job_gathers_no_more(engine):
    flow = Flow("finished", engine=engine)
    joint = Joint(gather="all")

    def send(step, **_):
        step.emit("output", data=1)
        step.get_execution_context().finish("done")

    flow.add_routine(Step(send), "source")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "joint", "input")
    state = flow.execute("source")
    assert (state.status, state.result, joint.got, state.pending_count) == ("completed", "done", [], 0)


def test_d2_several_groups_are_handled_at_a_time_where_the_slot_allows_it():
    flow = Flow("many", execution_strategy="concurrent", max_workers=4)
    meeting = threading.Barrier(3, timeout=LONG)
    flow.add_routine(Source(range(6)), "source")
    flow.add_routine(Joint(lambda data: meeting.wait(), gather=2, concurrency=3), "joint")
    flow.connect("source", "output", "joint", "input")
    with flow:
        assert flow.execute("source").status == "completed"


def test_d7_what_waits_to_be_gathered_does_not_count_as_queued():
    flow = Flow("bounded", max_pending=10)
    joint = Joint(gather="all")
    flow.add_routine(Source(range(1000)), "source")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "joint", "input")
    assert flow.execute("source").status == "completed"
    assert [each["data"] for each in joint.got] == [list(range(1000))]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_d7_a_join_that_is_completed_inside_an_emit_is_handled_by_the_event_loop(concurrency):
    """With two deliveries pending at the most, what ``work`` emits makes it run ``last``, which completes the join."""
    flow, got = Flow("nested", max_pending=2), []

    def work(step, many):
        for _ in range(5 * many):
            step.emit("output", many=0)

    class Late(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.take, gather="all", concurrency=concurrency)

        async def take(self, data):
            got.append(data)

    def start(step, **_):
        step.emit("work", many=1)
        step.emit("last", data=1)

    flow.add_routine(Step(start, events=("work", "last")), "start")
    flow.add_routine(Step(work), "work")
    flow.add_routine(Step(lambda step, data: step.emit("output", data=data)), "last")
    flow.add_routine(Late(), "late")
    flow.connect("start", "work", "work", "input")
    flow.connect("start", "last", "last", "input")
    flow.connect("work", "output", "work", "input")
    flow.connect("last", "output", "late", "input")
    with flow:
        state = flow.start("start")
        assert state.wait(LONG)
    assert (state.status, got) == ("completed", [[1]])


def test_d4_a_join_that_is_completed_is_handled_while_its_last_source_goes_on():
    """By another thread: the thread that has completed it still has deliveries of the same mailbox to handle."""
    flow, joined = Flow("early", execution_strategy="concurrent", max_workers=2), threading.Event()

    class Numbers(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("first", handler=self.first)
            self.define_slot("second", handler=self.second)
            self.define_event("output", ["data"])

        def first(self, data):
            self.emit("output", data=data)

        def second(self, data):
            assert joined.wait(LONG)

    def start(step, **_):
        step.emit("first", data=1)
        step.emit("second", data=2)

    flow.add_routine(Step(start, events=("first", "second")), "start")
    flow.add_routine(Numbers(), "numbers")
    flow.add_routine(Joint(lambda data: joined.set(), gather=1), "joint")
    for name in ("first", "second"):
        flow.connect("start", name, "numbers", name)
    flow.connect("numbers", "output", "joint", "input")
    with flow:
        assert flow.execute("start").status == "completed"


@pytest.mark.parametrize("gather", [1, 3, "all"])
def test_d8_an_execution_may_start_with_a_slot_that_gathers(engine, gather):
    flow = Flow("entry", engine=engine)
    joint = Joint(gather=gather)
    flow.add_routine(joint, "joint")
    with flow:
        assert flow.execute("joint", {"data": 5}).status == "completed"
        dropped = Flow("dropped", engine=engine)
        dropped.add_routine(Joint(gather=2, rest="drop"), "joint")
        assert dropped.execute("joint", {"data": 5}).status == "completed"
    assert joint.got == [{"data": [5]}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gather": 0}, "gather must be a whole number of at least 1, not 0"),
        ({"gather": True}, "gather must be a whole number"),
        ({"gather": "every"}, "unknown gather 'every'; use a number of deliveries, 'sources'"),
        ({"gather": 2, "merge_strategy": "append"}, "either gathers or merges"),
        ({"gather": 2, "key": ""}, "key must be the name of a parameter, not ''"),
        ({"gather": 2, "rest": "delver"}, "unknown rest 'delver'; did you mean 'deliver'"),
        ({"gather": "all", "rest": "drop"}, "gather='all' leaves no rest"),
        ({"key": "order"}, "key='order' is for a slot that gathers"),
        ({"rest": "drop"}, "rest='drop' is for a slot that gathers"),
        ({"external": 1}, "external must be True or False, not 1"),
        ({"deadline": 5}, "deadline=5 is for an external slot"),
        ({"external": True, "deadline": 0}, "deadline must be a number above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(DeclarationError, match=message):
        Routine().define_slot("input", **options)


# --- saved and continued elsewhere ----------------------------------------------------------------------------------


def test_l4_what_has_been_gathered_is_saved_and_goes_on_after_loading(tmp_path):
    def build():
        flow = Flow("saved")
        joint = Joint(gather=3, key="odd", rest="error")
        flow.add_routine(Numbers(), "numbers")
        pausing = Step(lambda step, **payload: pass_on(step, flow, **payload))
        flow.add_routine(pausing, "pausing")
        flow.add_routine(joint, "joint")
        flow.connect("numbers", "output", "pausing", "input")
        flow.connect("pausing", "output", "joint", "input")
        return flow, joint

    def pass_on(step, flow, data, odd):
        step.emit("output", data=data, odd=odd)
        if data == 4:  # one group is full and has not begun, one has two
            flow.pause(step.get_execution_context().job_state)

    flow, joint = build()
    state = flow.execute("numbers", {"to": 6})
    assert (state.status, joint.got) == ("paused", [])
    state.save(tmp_path / "job")
    again, joint = build()
    loaded = again.load(tmp_path / "job")
    assert loaded._record.gathers == recounted(loaded._record)
    assert loaded._record.gathers.ahead == state._record.gathers.ahead
    assert loaded.pending_count == state.pending_count
    with again:
        assert again.resume(loaded).wait(LONG)
    assert [(each["data"], each["odd"]) for each in joint.got] == [([0, 2, 4], 0), ([1, 3, 5], 1)]


def growing(engine, *, more):
    """A flow that joins one source with the outside, and one source more when it has grown."""
    flow, joint = Flow("growing", engine=engine), Joint(gather="sources", external=True)
    flow.add_routine(Source(["first"]), "source")
    flow.add_routine(Step(lambda step, data: step.emit("output", more=data)), "more")
    flow.add_routine(joint, "joint")
    flow.connect("source", "output", "joint", "input")
    if more:
        flow.connect("source", "output", "more", "input")
        flow.connect("more", "output", "joint", "input")
    return flow, joint


def test_j4_a_job_with_joins_goes_on_under_a_flow_that_has_one_source_more(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Engine(store=open_store(url)) as engine:
        flow, _ = growing(engine, more=False)
        assert flow.execute("source", job_id="j").status == "waiting"
    with Engine(store=open_store(url)) as engine:
        flow, joint = growing(engine, more=True)
        with pytest.raises(RecoveryError, match=r"event 'source\.output' goes to"):
            engine.recover()
        (state,) = engine.recover(allow_changes=True)
        assert state._record.gathers == recounted(state._record)
        flow.send(state, "more", "input", data="second")
        flow.send(state, "joint", "input", word="third")
        flow.close_input(state, "joint", "input")
        assert state.wait(LONG)
    assert joint.got == [{"data": "first", "more": "second", "word": "third"}]


def changing(engine, **options):
    """A flow that gathers pairs, after it has waited for the outside; what it has got, and the job."""
    flow, joint = Flow("changing", engine=engine), Joint(**options)
    flow.add_routine(Numbers(), "numbers")
    flow.add_routine(Step(lambda step, **_: None, external=True), "outside")
    flow.add_routine(joint, "joint")
    flow.connect("numbers", "output", "joint", "input")
    flow.connect("outside", "output", "numbers", "trigger")
    return flow, joint


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"gather": 2}, {"gather": "all"}, "by gather all, the rest: deliver, and did by gather 2 deliveries, the"),
        ({"gather": 2}, {"gather": 2, "rest": "drop"}, "the rest: drop, and did by gather 2 deliveries, the rest: del"),
        ({"gather": 2, "key": "odd"}, {"gather": 2}, "and did by gather 2 deliveries by 'odd'"),
        ({"gather": 2}, {}, "by 'override', and did by gather 2 deliveries"),
        ({}, {"external": True}, "by 'override', from outside as well, and did by 'override'"),
    ],
)
def test_j4_a_slot_that_takes_in_otherwise_what_arrives_is_a_change_of_the_flow(tmp_path, before, after, told):
    url = f"sqlite:///{tmp_path}/jobs.db"
    with Engine(store=open_store(url)) as engine:
        flow, joint = changing(engine, **before)
        state = flow.execute("numbers", {"to": 5}, job_id="j")
        assert state.status == "waiting"
        handled = len(joint.got)
    with Engine(store=open_store(url)) as engine:
        flow, joint = changing(engine, **after)
        with pytest.raises(RecoveryError, match=f"slot 'joint.input' takes in what arrives .*{re.escape(told)}"):
            engine.recover()
        if "gather" not in after:
            return
        (state,) = engine.recover(allow_changes=True)
        assert len(state.get_execution_history("joint")) == handled, "the facts were folded as they were made"
        flow.close_input(state, "outside", "input")
        assert state.wait(LONG)
    assert (state.status, state.pending_count) == ("completed", 0)


def test_j4_a_new_source_of_a_new_event_does_not_change_what_was(tmp_path):
    """It is no change that jobs could not go on under; but what was full when there were less sources stays so."""

    def build(engine, *, more):
        flow, joint = Flow("more", engine=engine), Joint(gather="sources", rest="deliver")
        source = Source(["a"])
        flow.add_routine(source, "source")
        flow.add_routine(Step(lambda step, **_: None, external=True), "outside")
        flow.add_routine(joint, "joint")
        flow.connect("source", "output", "joint", "input")
        if more:
            source.define_event("new", ["new"])
            flow.connect("source", "new", "joint", "input")
        return flow, joint

    url = f"sqlite:///{tmp_path}/jobs.db"
    with Engine(store=open_store(url)) as engine:
        flow, joint = build(engine, more=False)
        assert flow.execute("source").status == "waiting"
        assert joint.got == [{"data": "a"}]
    with Engine(store=open_store(url)) as engine:
        flow, joint = build(engine, more=True)
        (state,) = engine.recover()
        flow.close_input(state, "outside", "input")
        assert state.wait(LONG)
    assert (state.status, joint.got, len(state.get_execution_history("joint"))) == ("completed", [], 1)


# --- whatever happens -----------------------------------------------------------------------------------------------

GATHERS = [
    {},
    {},
    {"gather": 2},
    {"gather": 2, "rest": "drop"},
    {"gather": 3, "key": "k"},
    {"gather": "all"},
    {"gather": "all", "key": "k"},
    {"gather": "sources"},
    {"gather": "sources", "rest": "deliver"},
    {"gather": "sources", "rest": "deliver", "key": "k"},
    {"gather": "sources", "rest": "drop", "external": True},
    {"gather": "all", "external": True},
    {"external": True},
]


@st.composite
def plans(draw):
    """A compiled flow of two to five routines that gather in all kinds of ways, wired at random."""
    flow = Flow("generated")
    count = draw(st.integers(2, 5))
    slots = []
    for number in range(count):
        routine = Routine()
        for index in range(draw(st.integers(1, 2))):
            routine.define_slot(f"s{index}", **draw(st.sampled_from(GATHERS)))
            slots.append((f"r{number}", f"s{index}"))
        routine.define_event("e")
        flow.add_routine(routine, f"r{number}")
    start = Routine()
    start.define_slot("trigger")
    start.define_event("e")
    flow.add_routine(start, "start")
    ends = st.tuples(st.sampled_from(["start", *(f"r{n}" for n in range(count))]), st.sampled_from(slots))
    for source, target in draw(st.lists(ends, min_size=2, max_size=9, unique=True)):
        flow.connect(source, "e", *target)
    return flow.plan()


class Run:
    """One history of a durable job, drawn at random: facts are applied one by one, and the record is checked."""

    durable = True

    def __init__(self, plan, choices):
        self.plan = plan
        self.record = JobRecord(plan=plan, job_id="job", epoch=0, created=0, durable=self.durable)
        self.choices = iter(choices)
        self.facts = []
        self.clock = 0
        ways = networkx.DiGraph()
        for slot in plan.slots:
            ways.add_node(slot.index)
            for route in slot.node.events["e"].routes:
                ways.add_edge(slot.index, route.slot.index)
        self.ways = {
            (a, b): any(networkx.has_path(ways, each, b) for each in ways.successors(a)) for a in ways for b in ways
        }

    def pick(self, options):
        return options[next(self.choices) % len(options)]

    def go(self):
        start = self.plan.nodes["start"].slots["trigger"]
        self.apply(Started(start.index, {"k": 0}, False, 0))
        try:
            while options := self.options():
                self.pick(options)()
        except StopIteration:
            pass
        return self

    def options(self):
        record = self.record
        options = [lambda it=activation: self.end(it) for activation in record.running.values()] * 2
        if record.status is JobStatus.FAILED and not record.running:
            options.append(lambda: self.apply(Resumed(self.tick())))
        if record.status.ended:
            return options
        if record.running and next(self.choices) % 20 == 0:
            options.append(lambda: self.apply(Cancelled("enough", self.tick())))
        if record.status is JobStatus.PAUSED:
            options += [lambda: self.apply(Resumed(self.tick()))] * 3
        if record.status is JobStatus.RUNNING and next(self.choices) % 9 == 0:
            options.append(lambda: self.apply(Paused("a break")))
        ready = [box for box in record.mailboxes if (box.queue or box.resumed) and record.open]
        options += [lambda box=box: self.handle(box) for box in ready] * 3
        for slot in self.plan.inputs:
            if slot.index in record.inputs:
                options.append(lambda slot=slot: self.receive(slot))
                options.append(lambda slot=slot: self.apply(InputClosed(slot.index, self.tick())))
        return options

    def tick(self):
        self.clock += 1
        return self.clock

    def receive(self, slot):
        if len(self.facts) < 40:
            self.apply(Received(slot.index, self.payload(), False, self.tick()))

    def payload(self):
        number = next(self.choices)
        return {} if number % 11 == 0 else {"k": number % 2}

    def handle(self, box):
        """Begin what is next in a mailbox, and often end it at once."""
        delivery = box.resumed[0] if box.resumed else box.deliveries()[0]
        self.apply(Committed(delivery.id, delivery.slot.index, self.tick(), "begin", None, None))
        if next(self.choices) % 3:
            self.end(self.record.running[delivery.id])

    def end(self, activation):
        growing = len(self.facts) < 40
        stop = len(self.facts) < 90 and next(self.choices) % (2 if self.record.closed else 6) == 0
        count = next(self.choices) % 4 if growing and not stop else 0
        emissions = [Emission("e", self.payload(), False, next(self.choices) % 7 == 0) for _ in range(count)]
        error = ErrorRecord("Boom", "it broke", "") if stop else None
        status = "failed" if stop or next(self.choices) % 5 == 0 else "completed"
        finish = (None,) if not stop and next(self.choices) % 30 == 0 else None
        at = self.tick()
        outcome = (status, 1, at, error, stop, finish)
        about = (activation.id, activation.slot.index, activation.started)
        self.apply(Committed(*about, "end", None, outcome, Batch(tuple(emissions)), (), at))

    def apply(self, fact):
        record, expected = self.record, None
        if not isinstance(fact, Started):
            activation = record.running.get(fact.delivery) if isinstance(fact, Committed) else None
            expected = status_after(record, activation, fact) or record.status
        apply(record, fact)
        self.facts.append(fact)
        assert expected in (None, record.status), (fact, expected, record.status)
        self.check()

    def check(self):
        record, reach = self.record, self.plan.reach
        if record.gathers is None or (record.closed and record.running):  # what still runs counts no more
            return
        assert record.gathers == recounted(record)
        assert not any(record.gathers.full(number) for number in range(len(reach.slots))), "what is full is delivered"
        busy = [each.slot.index for box in record.mailboxes for each in (*box.deliveries(), *box.resumed)]
        busy += [each.slot.index for each in (*record.running.values(), *record.stopped)]
        coming = [*record.inputs, *(r.slot.index for held in record.deferred for r in held.event.routes)]
        for number, slot in enumerate(reach.slots):
            mine = slot.index
            ahead = sum(self.ways[each, mine] for each in busy)
            ahead += sum(each == mine or self.ways[each, mine] for each in coming)
            for other, its in enumerate(reach.slots):
                there, back = self.ways[its.index, mine], self.ways[mine, its.index]
                if other != number and there and not back:
                    ahead += record.gathers.held[other]
            assert ahead == record.gathers.ahead[number]
            if record.status is not JobStatus.FAILED:
                assert ahead or not record.gathers.held[number], "what nothing can complete is closed"
        if record.status is JobStatus.COMPLETED:
            assert not any(record.gathers.held)


class RunInMemory(Run):
    """One history of a job without a store, in which turns fail and take back what they have emitted."""

    durable = False

    def options(self):
        options = super().options()
        if len(self.facts) < 60:
            options += [lambda it=activation: self.emit(it) for activation in self.record.running.values()] * 3
        return options

    def handle(self, box):
        self.apply(Began(box.index, self.tick()))

    def emit(self, activation):
        self.apply(Emitted(activation.id, "e", self.payload(), False, self.tick()))

    def end(self, activation):
        stop = next(self.choices) % 4 == 0 and len(self.facts) < 90
        error = ErrorRecord("Boom", "it broke", "") if stop else None
        at = self.tick()
        self.apply(Ended(activation.id, "failed" if stop else "completed", 1, at, error, stop, None))

    def apply(self, fact):
        apply(self.record, fact)
        self.facts.append(fact)
        self.check()


@examples(120)
@given(plans(), st.lists(st.integers(0, 1000), min_size=150, max_size=400))
def test_t3_whatever_is_taken_back_a_group_is_delivered_when_it_is_full(plan, choices):
    run = RunInMemory(plan, choices).go()
    again = JobRecord(plan=plan, job_id="job", epoch=0, created=0)
    assert fold(again, run.facts) == run.record


@examples(120)
@given(plans(), st.lists(st.integers(0, 1000), min_size=150, max_size=400))
def test_whatever_happens_a_gather_is_closed_when_nothing_can_reach_it_and_not_before(plan, choices):
    run = Run(plan, choices).go()
    again, restored = (JobRecord(plan=plan, job_id="job", epoch=0, created=0, durable=True) for _ in range(2))
    assert fold(again, run.facts) == run.record
    for fact in run.facts:  # a snapshot after each changes nothing
        apply(restored, fact)
        if not restored.closed:
            restored.gathers = recounted(restored)
    assert restored == run.record


def test_the_cost_of_a_delivery_does_not_grow_with_the_join():
    """Counted are lines of Python; per item, a large join may cost twice as many as a small one at the most."""

    def steps(items):
        flow = Flow("join")
        flow.add_routine(Source(range(items)), "source")
        flow.add_routine(Sink(gather="all"), "sink")
        flow.connect("source", "output", "sink", "input")
        lines = 0

        def count(frame, event, argument):
            nonlocal lines
            lines += 1
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            assert flow.execute("source").status == "completed"
        finally:
            sys.settrace(before)
        return lines

    small, large = steps(100), steps(10_000)
    assert large < 2 * 100 * small
