"""J1, J3, J4: a snapshot stands for the facts before it, whenever it is taken, and says which flows it fits."""

from __future__ import annotations

import copy
import json
from random import Random
from types import SimpleNamespace

import orjson
import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import Step, chain
from pydantic import BaseModel

from routilux import Engine, ErrorRecord, Flow, JobState, JobStatus, LoadError, Routine, SaveError
from routilux.core.commits import unfinished
from routilux.core.fold import apply, fold
from routilux.core.history import History
from routilux.core.job_record import JobRecord
from routilux.core.life import resumed
from routilux.core.machine import started, suspended
from routilux.core.points import Answered, Batch, Committed, Emission, Noted, Point, Published, Read, Wait
from routilux.core.records import Cancelled, Failed, Logged, Paused, Resumed, Sent, Wrote
from routilux.core.scheduling import list_waiting
from routilux.graph.compatibility import differences, fingerprint, shape_of
from routilux.store.documents import read_snapshot, recovered, snapshot_document
from routilux.store.fact_reading import FactReader
from routilux.store.fact_writing import FactWriter
from routilux.store.reading import Reader
from routilux.store.record_copying import snapshot
from routilux.store.values import Writer

EPOCH = 1_700_000_000_000_000_000
BOOM = ErrorRecord("Boom", "it broke", "trace", "b", "s", 2)


class State(BaseModel):
    count: int = 0
    items: tuple[int, ...] = ()


def merge(old, new):
    return {**old, **new}


def make_flow(**options):
    """Three routines: an event of the first goes to both others, one of the second to the third."""
    flow = Flow("snapshots", **options)
    for name, how, concurrency in (("a", "override", 1), ("b", "append", 2), ("c", merge, 1)):
        routine = Routine()
        routine.define_slot("s", merge_strategy=how, concurrency=concurrency)
        routine.define_event("e")
        flow.add_routine(routine, name)
    flow.connect("a", "e", "b", "s")
    flow.connect("a", "e", "c", "s", {"x": "y"})
    flow.connect("b", "e", "c", "s")
    return flow


FLOW = make_flow()
TYPED = make_flow(state_schema=State)


def begun(flow, limit=None):
    record = JobRecord(
        flow.plan(), "job", EPOCH, 0, "session", None, "parent", durable=True, history=History(limit), holds=0
    )
    if flow.schema is not None:
        record.shared.update(State().__dict__)
    started(record, record.plan.slots[0], {"x": 1}, False, 1)
    return record


class Run:
    """One history of a durable job: draws facts that may follow, and folds them."""

    def __init__(self, flow, seed, length, limit=None):
        self.record = begun(flow, limit)
        self.typed = flow.schema is not None
        self.facts = []
        self.chance, self.clock = Random(seed), 1
        while len(self.facts) < length and (makers := self.legal()):
            fact = self.pick(makers)()
            apply(self.record, fact)
            self.facts.append(fact)

    def choose(self):
        return self.chance.randrange(10_000)

    def pick(self, options):
        return options[self.choose() % len(options)]

    def tick(self):
        self.clock += 1
        return self.clock

    def legal(self):
        record, makers = self.record, []
        if record.status in (JobStatus.PAUSED, JobStatus.FAILED):
            makers = [lambda: Resumed(self.tick())] * 2
        elif record.status in (JobStatus.RUNNING, JobStatus.WAITING):
            turns = [*self.waiting_turns()]
            makers = [lambda each=each: self.turn(*each) for each in turns] * 3
            makers += [lambda: Paused("a break")] * (self.choose() % 5 == 0)
            ending = self.choose() % 15 == 0
            makers += [lambda: Cancelled("enough", self.tick())] * ending
            makers += [lambda: Failed(BOOM, self.tick())] * (ending and record.status is JobStatus.RUNNING)
        for activation in record.running.values():
            makers += [lambda it=activation: self.turn(it.id, it.slot)] * 4
        if not record.closed and makers:
            makers += [
                self.publish,
                lambda: Noted(self.choose()),
                self.write,
                lambda: Logged({"l": 1}, self.tick()),
            ]
            makers += [
                lambda it=it, job_id=job_id: Answered(it.id, job_id, {"status": "completed"})
                for it in record.waiting.values()
                for job_id in it.wait.jobs
            ]
        return makers

    def waiting_turns(self):
        record = self.record
        for each in (*record.retrying.values(), *record.waiting.values()):
            yield each.id, each.slot
        for box in record.mailboxes:
            yield from ((each.id, each.slot) for each in box.resumed)
            yield from ((each.id, each.slot) for each in box.deliveries())

    def publish(self):
        return Published(self.pick(["t", "u"]), [self.choose()], self.choose() % 2 == 0, self.tick(), self.choose())

    def write(self, area=None):
        if self.typed and area is None:
            return Wrote(None, {"items": (self.choose(),), "extra": {1}})
        return Wrote(area, {self.pick("xy"): (self.choose(),)}, ("z",))

    def batch(self, slot):
        if self.choose() % 2:
            return Batch()
        emissions = tuple(
            Emission("e", {"x": [self.choose()]}, True, self.choose() % 7 == 0)
            for _ in range(self.choose() % 3 if len(self.facts) < 25 else 0)
        )
        writes = (self.write(self.pick([None, slot.routine_id])),)
        return Batch(emissions, writes, (Logged({"n": 1}, self.tick()),), (Sent("a", "o", {"k": (1,)}, self.tick()),))

    def turn(self, delivery, slot):
        kind = self.pick(["end", "end", "merge", "start", "failure", "step", "wait", "wait", "edit", "flush", "retry"])
        name = self.pick(["one", "two"]) if kind in ("start", "failure", "step", "wait") else None
        began, batch, reads = self.tick(), self.batch(slot), (Read(None, "x", [{"~": "tuple", "v": [1]}], 3, "look"),)
        if self.record.closed or (kind == "merge" and slot.merge == "override"):
            kind = "end"
        return Committed(delivery, slot.index, began, kind, name, self.outcome(kind, slot), batch, reads, self.tick())

    def outcome(self, kind, slot):
        number = self.choose()
        if kind == "end":
            if number % 6 == 0:
                return "failed", 3, self.tick(), BOOM, number % 12 == 0, None
            return "completed", 3, self.tick(), None, False, ((number, 1),) if number % 11 == 0 else None
        return {
            "retry": (4, self.tick() + 50),
            "merge": {"merged": (number,)} if slot.merges else None,
            "start": ["job-1", "job-2"] if number % 2 else None,
            "failure": BOOM,
            "step": BOOM if number % 3 == 0 else ({"v": number},),
            "wait": (self.pick([Wait(99), Wait(None, "t"), Wait(99, "u"), Wait(None, None, ("job-1", "job-2"))]), 5),
        }.get(kind)


def written(flow, record):
    plan = flow.plan()
    return snapshot_document(snapshot(record), Writer("the job", flow.known_types, None), "1", shape_of(plan), "origin")


def read(flow, body, epoch=EPOCH, limit=None):
    values = Reader("the job", flow.known_types, None)
    return recovered(read_snapshot(body, values), flow.plan(), values, "1", epoch, limit)


def kept(flow, facts, slots):
    """Facts as they are read again."""
    writer = FactWriter(flow.plan(), Writer("the job", flow.known_types, None), EPOCH)
    reader = FactReader(flow.plan(), slots, Reader("the job", flow.known_types, None), EPOCH)
    return [reader.read(writer.write(fact)) for fact in facts]


SEED, LENGTH = st.integers(0, 2**32), st.integers(0, 60)


@examples(150)
@given(SEED, LENGTH, st.floats(0, 1), st.sampled_from([FLOW, TYPED]), st.sampled_from([None, 2]))
def test_j4_a_snapshot_and_the_facts_after_it_are_all_facts(seed, length, share, flow, limit):
    run = Run(flow, seed, length, limit)
    cut = int(share * len(run.facts))
    begin, slots = read(flow, written(flow, begun(flow, limit)), limit=limit)
    assert begin == begun(flow, limit)
    facts = kept(flow, run.facts, slots)
    assert facts == run.facts
    part = fold(begun(flow, limit), facts[:cut])
    taken, slots = read(flow, written(flow, part), limit=limit)
    assert taken == part, "the snapshot is the fold"
    whole = fold(begin, facts)
    assert whole == run.record
    assert fold(taken, facts[cut:]) == whole
    assert [*taken.waiting] == [*whole.waiting], "who has waited longest is first"
    for record in (taken, whole):
        unfinished(record)
        list_waiting(record)
    assert taken == whole
    assert [box.tickets for box in taken.mailboxes] == [box.tickets for box in whole.mailboxes]


@examples(50)
@given(SEED, LENGTH, st.floats(0, 1))
def test_j4_what_happens_after_a_snapshot_is_taken_does_not_change_it(seed, length, share):
    facts = Run(FLOW, seed, length).facts
    cut = int(share * len(facts))
    record = fold(begun(FLOW), facts[:cut])
    then, taken = written(FLOW, record), snapshot(record)
    fold(record, facts[cut:])
    body = snapshot_document(taken, Writer("the job", FLOW.known_types, None), "1", shape_of(FLOW.plan()), "origin")
    assert body == then


def test_j1_a_job_that_begins_is_written_with_what_it_has_and_no_more():
    form = orjson.loads(written(FLOW, begun(FLOW)))["record"]
    began = {"status", "created", "started", "next_id", "queue", "ready", "slots"}
    assert form.keys() == {"job_id", "session_id", "parent_job_id"} | began


WITH_ALL_PARTS = b"""{"format":1,"routilux":"0.1.0","flow_id":"snapshots","flow_version":"1","record":{"job_id":"job",
"session_id":"session","user_id":null,"status":"running","closed":false,"reason":"","created":1700000000000000000,
"started":1700000000000000001,"finished":null,"next_id":2,"result":null,"state":null,"shared":{},"routine_states":[],
"log":{"entries":[],"at":[]},"outputs":{"from":[],"data":[],"at":[]},"queue":{"id":[1],"slot":[0],"payload":[{"x":1}],
"isolate":[false],"at":[1700000000000000001],"origin":[0]},"ready":[0],"resumed":[],"retrying":[],"stopped":[],
"deferred":[],"buffers":[],"history":{"names":[],"routine":[],"slot":[],"event":[],"status":[],"data":[],"started":[],
"duration":[],"waited":[],"error":[],"attempt":[],"emitted":[],"dropped":0,"counted":0,"totals":[]},"job_errors":[],
"failure":null,"parent_job_id":"parent","slots":[["a","s"]],"errors":[]},"shape":{"slots":[["a","s","override",false],
["b","s","append",true],["c","s","function",false]],"events":[["a","e",[["b","s",null],["c","s",{"x":"y"}]]],
["b","e",[["c","s",null]]],["c","e",[]]],"state":null},"origin":"origin"}"""


def test_l4_j1_parts_that_are_empty_may_be_written_all_the_same():
    assert read(FLOW, WITH_ALL_PARTS) == read(FLOW, written(FLOW, begun(FLOW)))
    document = json.loads(WITH_ALL_PARTS)
    document["record"]["state"] = 5
    with pytest.raises(LoadError, match="'state' must be an object, not 5"):
        read(FLOW, orjson.dumps(document))


# --- one of each -------------------------------------------------------------------------------------------------


def turn(delivery, slot, kind, name, outcome, at, batch=(), **more):
    emissions = Batch(tuple(Emission("e", {"x": each}, False) for each in batch))
    return Committed(delivery, slot, at - 1, kind, name, outcome, emissions, at=at, **more)


MIDDLE = [
    turn(1, 0, "end", None, ("completed", 1, 5, None, False, None), 5, batch=(1, 2)),  # 2 and 4 to b, 3 and 5 to c
    turn(2, 1, "merge", None, None, 10),
    turn(2, 1, "start", "pay", None, 11, reads=(Read("b", "k", [1], 2, "copy"), Read(None, None, [], 0, "edit"))),
    turn(2, 1, "failure", "pay", BOOM, 12),
    turn(4, 1, "step", "ask", ({"~": "tuple", "v": []},), 13),
    turn(4, 1, "wait", "reply", (Wait(90, "answers"), 3), 14),
    turn(3, 2, "step", "ask", BOOM, 15),
    turn(3, 2, "retry", None, (2, 80), 16),
    turn(5, 2, "start", "child", ["job-1", "job-2"], 17),
    turn(5, 2, "wait", "child", (Wait(None, None, ("job-1", "job-2")), 3), 18),
    Answered(5, "job-2", {"status": "failed"}),
    Published("other", [1], True, 19, 12),
    Wrote("b", {"k": (1,)}),
]


def test_j3_turns_that_have_not_ended_are_kept_with_their_points():
    record = fold(begun(FLOW), MIDDLE)
    body = written(FLOW, record)
    found = read(FLOW, body).record
    assert found == record
    assert (found.status, found.open, found.durable, found.reason) == ("running", True, True, "")
    assert (found.parent_job_id, found.inbox, found.revision) == ("parent", 12, 1)
    assert found.versions == {("b", "k"): 1}
    assert found.events == {"other": [[1]]}
    assert [*found.running] == [2]
    assert found.retrying[3].due == 80
    assert found.waiting[4].wait == Wait(90, "answers")
    reads = (Read("b", "k", [1], 2, "copy"), Read(None, None, [], 0, "edit"))
    assert found.points[2] == [Point("step", "pay", reads, failures=1)]
    assert found.points[5][0].arrived == {"job-2": {"status": "failed"}}
    assert found.points[5][0].form == (["job-1", "job-2"],)


def test_j4_what_ran_runs_again_first_and_waits_go_on():
    record = read(FLOW, written(FLOW, fold(begun(FLOW), MIDDLE))).record
    unfinished(record)
    list_waiting(record)
    assert not record.running
    assert [each.id for each in record.mailboxes[1].resumed] == [2]
    assert [each.index for each in record.ready] == [1], "the retry holds its mailbox"
    assert record.waiting.keys() == {4, 5}


@pytest.mark.parametrize("ended", [True, False])
def test_e4_l3_what_was_given_up_runs_again_when_the_process_died_before_the_job_had_failed(ended):
    last = [Failed(BOOM, 30)] if ended else []
    record = fold(begun(FLOW), [*MIDDLE, turn(2, 1, "given up", None, (BOOM, 29), 29), *last])
    record = read(FLOW, written(FLOW, record)).record
    unfinished(record)
    if ended:
        resumed(record, 31)
    assert [each.id for each in record.mailboxes[1].resumed] == [2]
    assert (record.queued, record.stopped) == (1, [])


@pytest.mark.parametrize("last", ["waiting", "paused", "failed", "cancelled", "completed"])
def test_l1_a_recovered_job_has_the_status_that_it_had(last):
    facts = {
        "waiting": [turn(1, 0, "wait", "w", (Wait(90), 1), 5)],
        "paused": [Paused("why")],
        "failed": [turn(1, 0, "end", None, ("failed", 1, 5, BOOM, True, None), 5)],
        "cancelled": [Cancelled("why", 5)],
        "completed": [turn(1, 0, "end", None, ("completed", 1, 5, None, False, None), 5)],
    }
    record = fold(begun(FLOW), facts[last])
    found = read(FLOW, written(FLOW, record)).record
    assert (found.status, found) == (last, record)
    assert not found.open


def test_l2_times_mean_the_same_on_another_clock():
    record = read(FLOW, written(FLOW, fold(begun(FLOW), MIDDLE)), epoch=EPOCH - 1000).record
    assert record.retrying[3].due == 1080
    assert (record.waiting[4].wait.due, record.points[4][-1].wait.due) == (1090, 1090)
    assert record.running[2].started == 1009


def test_j8_a_snapshot_of_another_flow_or_version_is_refused():
    body = written(FLOW, begun(FLOW))
    values = Reader("the job", FLOW.known_types, None)
    document = read_snapshot(body, values)
    with pytest.raises(LoadError, match="version '1' of the flow, and this is version '2'"):
        recovered(document, FLOW.plan(), values, "2", EPOCH, None)
    with pytest.raises(LoadError, match="another flow, 'snapshots'"):
        recovered(document, chain(Step(print)).plan(), values, "1", EPOCH, None)
    for damaged in (b"", body[:-1], b"[]", b"{}", orjson.dumps({**json.loads(body), "shape": 1})):
        with pytest.raises(LoadError, match=r"^the job"):
            read_snapshot(damaged, values)


SPOILERS = st.sampled_from([None, -1, 2**63, 0.5, "", "x", [], {}, [[]], {"~": "tuple", "v": 1}, True, [{"a": 1}]])
FULL = json.loads(
    written(FLOW, fold(begun(FLOW), [*MIDDLE, turn(2, 1, "end", None, ("failed", 1, 25, BOOM, True, None), 25)]))
)


@examples(300)
@given(st.data())
def test_j8_hostile_snapshots_raise_one_kind_of_error_or_are_records(data):
    document = copy.deepcopy(FULL)
    place = document if data.draw(st.booleans()) else document["record"]
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(SPOILERS)
    try:
        record = read(FLOW, orjson.dumps(document)).record
    except LoadError as error:
        refused = error
    else:
        unfinished(record)
        list_waiting(record)
        written(FLOW, record)
        return
    assert str(refused).startswith("the job")


# --- files --------------------------------------------------------------------------------------------------------


def make_wait(record):
    plan = record.plan.slots[0]
    fresh = JobRecord(record.plan, record.job_id, record.epoch, record.created, durable=record.durable)
    started(fresh, plan, {}, False, 1)
    if record.durable:
        return fold(fresh, [turn(1, 0, "wait", "reply", (Wait(None, "answers"), 1), 5)])
    (delivery,) = fresh.mailboxes[0].deliveries()
    fold(fresh, [turn(1, 0, "flush", None, None, 4)])
    fresh.points[1] = [Point("wait", "reply", wait=Wait(None, "answers"))]
    suspended(fresh, fresh.running[delivery.id], Wait(None, "answers"), 1, 5)
    return fresh


def test_t2_a_job_without_a_store_is_not_saved_while_a_handler_waits():
    flow = chain(Step(lambda step: None))
    plain = JobRecord(flow.plan(), "job", 0, 0)
    values = Writer("flow 'chain': job 'job'", flow.known_types, None)
    with pytest.raises(SaveError, match=r"^flow 'chain': job 'job': 'r0\.input' waits at 'reply'"):
        snapshot_document(snapshot(make_wait(plain)), values, None, shape_of(flow.plan()), "origin")


def test_l4_a_durable_job_that_waits_is_loaded_where_there_is_a_store():
    flow = chain(Step(lambda step: None), engine=Engine())
    record = make_wait(JobRecord(flow.plan(), "job", 0, 0, durable=True))
    values = Writer("job", flow.known_types, None)
    document = json.loads(snapshot_document(snapshot(record), values, None, shape_of(flow.plan()), "origin"))
    with pytest.raises(LoadError, match=r"the handler of 'r0\.input' was in the middle of a durable turn"):
        JobState.from_dict(document, flow)
    flow.engine.store = SimpleNamespace()
    loaded = JobState.from_dict(document, flow)._record
    assert (loaded.status, loaded.reason, loaded.durable) == ("paused", "it was saved while it waited", True)
    assert loaded.waiting[1].wait == Wait(None, "answers")
    assert loaded.points == record.points


# --- shapes -------------------------------------------------------------------------------------------------------


def structure(change=lambda flow: None, merge_b="append", events_of_a=("e",), **options):
    flow = Flow("snapshots", **options)
    for name, how in (("a", "override"), ("b", merge_b), ("c", merge)):
        routine = Routine()
        routine.define_slot("s", merge_strategy=how)
        for event in events_of_a if name == "a" else ("e",):
            routine.define_event(event)
        flow.add_routine(routine, name)
    if "e" in events_of_a:
        flow.connect("a", "e", "b", "s")
        flow.connect("a", "e", "c", "s", {"x": "y"})
    change(flow)
    return shape_of(flow.plan())


def extra_routine(flow):
    routine = Routine()
    routine.define_slot("s")
    routine.define_event("e")
    flow.add_routine(routine, "d")
    flow.connect("d", "e", "a", "s")


def more_slots_and_events(flow):
    flow.routines["b"].define_slot("t")
    flow.routines["b"].define_event("f")
    flow.connect("b", "f", "b", "t")


def without(routine_id):
    def change(flow):
        flow.remove_routine(routine_id)

    return change


OLD = structure()


@pytest.mark.parametrize(
    "new",
    [structure(), structure(extra_routine), structure(more_slots_and_events), structure(events_of_a=("e", "f"))],
    ids=["the same", "a routine more", "a slot and an event more", "an event more"],
)
def test_j4_flows_that_have_more_fit(new):
    assert differences(OLD, new) == []
    assert differences(json.loads(json.dumps(OLD)), new) == []
    assert (fingerprint(OLD) == fingerprint(new)) is (new == OLD)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (structure(extra_routine), OLD, ["routine 'd' is gone"]),
        (structure(more_slots_and_events), OLD, ["slot 'b.t' is gone", "event 'b.f' is gone"]),
        (OLD, structure(merge_b="override"), ["slot 'b.s' takes in what arrives by 'override', and did by 'append'"]),
        (OLD, structure(events_of_a=()), ["event 'a.e' is gone"]),
        (
            OLD,
            structure(lambda flow: flow.connect("a", "e", "a", "s")),
            ["event 'a.e' goes to 'b.s' and 'c.s' (x as y) and 'a.s', and went to 'b.s' and 'c.s' (x as y)"],
        ),
        (
            OLD,
            structure(lambda flow: flow.connect("b", "e", "a", "s")),
            ["event 'b.e' goes to 'a.s', and went to nothing"],
        ),
        (OLD, structure(state_schema=State), ["the flow has the state_schema State, and had none"]),
        (structure(state_schema=State), OLD, ["the flow has no state_schema, and had State"]),
    ],
    ids=str,
)
def test_j4_what_does_not_fit_is_said(old, new, found):
    assert differences(old, new) == found
    assert differences(json.loads(json.dumps(old)), new) == found
    assert fingerprint(old) != fingerprint(new)


def test_j4_a_shape_is_made_once_per_plan_and_is_json():
    plan = FLOW.plan()
    assert shape_of(plan) is shape_of(plan)
    assert shape_of(plan)["slots"] == [
        ["a", "s", "override", False],
        ["b", "s", "append", True],
        ["c", "s", "function", False],
    ]
    again = json.loads(json.dumps(shape_of(plan)))
    assert again == shape_of(plan)
    assert fingerprint(again) == fingerprint(shape_of(plan)) == fingerprint(shape_of(make_flow().plan()))
    assert len(fingerprint(again)) == 64


@pytest.mark.parametrize(
    "shape",
    [
        None,
        [],
        {},
        {**OLD, "slots": [[]]},
        {**OLD, "events": 1},
        {**OLD, "events": [["a", "e", [["b", "s", 1]]]]},
        {**OLD, "events": [["a", "e", [["b", "nowhere", None]]]]},
    ],
)
def test_j8_what_is_no_shape_is_refused(shape):
    with pytest.raises(LoadError, match="this is no shape of a flow"):
        differences(shape, OLD)


def test_j4_a_snapshot_is_read_under_a_flow_that_has_more():
    new = Flow("snapshots")
    extra = Routine()
    extra.define_slot("s")
    new.add_routine(extra, "z")
    for name in ("c", "b", "a"):
        new.add_routine(FLOW.routines[name], name)
    for wire in FLOW.connections:
        new.connect(wire.source_id, wire.event, wire.target_id, wire.slot, dict(wire.param_mapping) or None)
    assert differences(shape_of(FLOW.plan()), shape_of(new.plan())) == []
    found, slots = read(new, written(FLOW, fold(begun(FLOW), MIDDLE)))
    assert [(slot.routine_id, slot.name) for slot in slots] == [("a", "s"), ("b", "s"), ("c", "s")]
    facts = [turn(2, 1, "end", None, ("completed", 1, 30, None, False, None), 30, batch=(7,))]
    writer = FactWriter(FLOW.plan(), Writer("job", FLOW.known_types, None), EPOCH)
    reader = FactReader(new.plan(), slots, Reader("job", new.known_types, None), EPOCH)
    fold(found, [reader.read(writer.write(fact)) for fact in facts])
    before = fold(begun(FLOW), [*MIDDLE, *facts])
    assert found.history == before.history
    assert (found.next_id, found.queued, found.shared) == (before.next_id, before.queued, before.shared)
