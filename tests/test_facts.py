"""J1, J5, J8: the facts of durable jobs as JSON, and back."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

import orjson
import pytest
from generated import examples
from hypothesis import given, strategies as st
from pydantic import BaseModel, Field, field_serializer

from routilux import ErrorRecord, Flow, LoadError, Routine, SaveError
from routilux.core.comparing import same
from routilux.core.points import Answered, Batch, Committed, Emission, Noted, Published, Read, Wait
from routilux.core.records import Cancelled, Failed, InputClosed, Logged, Paused, Received, Resumed, Sent, Wrote
from routilux.store.fact_reading import KINDS, OUTCOMES, FactReader
from routilux.store.fact_writing import FactWriter
from routilux.store.plain import _are_plain, looks_plain
from routilux.store.reading import Reader
from routilux.store.values import Writer

EPOCH = 1_700_000_000_000_000_000


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    numbers: list[int] = []
    when: datetime | None = None


class Outer(BaseModel):
    inner: Inner = Inner()
    anything: Any = None


@dataclass
class Pair:
    left: Any
    right: Any


def make_flow(schema=None):
    flow = Flow("facts", state_schema=schema)
    for name in ("a", "b"):
        routine = Routine()
        routine.define_slot("s")
        routine.define_slot("t", merge_strategy=lambda old, new: new)
        routine.define_event("e")
        routine.define_event("f")
        flow.add_routine(routine, name)
    flow.connect("a", "e", "b", "s")
    flow.register_types(Colour, Outer, Pair)
    return flow


def both(flow, epoch=EPOCH):
    """What writes the facts of a flow's jobs, and what reads them."""
    plan = flow.plan()
    writer = FactWriter(plan, Writer("the job", flow.known_types, None), EPOCH)
    return writer, FactReader(plan, [*plan.slots], Reader("the job", flow.known_types, None), epoch)


FLOW = make_flow()
WRITER, READER = both(FLOW)

# --- generated facts ----------------------------------------------------------------------------------------------

TEXT = st.text(max_size=5) | st.sampled_from(["", "~", "\ud800", "kind"])
LEAF = st.one_of(
    st.sampled_from([None, 0, "", False, 0.0, (), [], {}, set(), b"", 2**70, float("inf"), Colour.RED]),
    st.integers(-5, 5),
    TEXT,
    st.datetimes(timezones=st.sampled_from([None, timezone.utc, timezone(timedelta(hours=2))])),
    st.decimals(allow_nan=False, places=2),
    st.binary(max_size=4),
    st.builds(Inner, numbers=st.lists(st.integers(0, 9), max_size=2), when=st.none() | st.datetimes()),
)


def _around(inside):
    return st.one_of(
        st.lists(inside, max_size=3),
        st.lists(inside, max_size=3).map(tuple),
        st.dictionaries(TEXT | st.integers(0, 3), inside, max_size=3),
        st.builds(Outer, anything=inside),
        st.builds(Pair, inside, inside),
    )


VALUE = st.recursive(LEAF, _around, max_leaves=5)
FORM = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.characters(codec="utf-8"), max_size=3),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(st.sampled_from("xy~"), inside, max_size=2),
    max_leaves=4,
)
MAPPING = st.dictionaries(TEXT, VALUE, max_size=3)
TIME = st.integers(-(2**61), 2**61)
SPENT = st.integers(0, 2**40)
ERROR = st.builds(
    ErrorRecord, TEXT, TEXT, TEXT, st.none() | TEXT, st.none() | st.just("s"), st.none() | st.integers(1, 4)
)
SOURCE = st.sampled_from(["look", "copy", "edit"])
READ = st.builds(Read, st.none() | TEXT, st.none() | TEXT, st.lists(FORM, max_size=1), SPENT, SOURCE)
WROTE = st.builds(Wrote, st.sampled_from([None, "a", "b"]), MAPPING, st.lists(TEXT, max_size=2).map(tuple))
LOGGED = st.builds(Logged, MAPPING, TIME)
WAIT = st.builds(Wait, st.none() | TIME, st.none() | TEXT, st.lists(TEXT, max_size=2).map(tuple))


def some(each):
    return st.lists(each, max_size=2).map(tuple)


BATCH = st.one_of(
    st.just(Batch()),
    st.builds(
        Batch,
        some(st.builds(Emission, st.sampled_from("ef"), MAPPING, st.booleans(), st.booleans())),
        some(WROTE),
        some(LOGGED),
        some(st.builds(Sent, TEXT, TEXT, MAPPING, TIME)),
    ),
)
STATUS = st.sampled_from(["completed", "failed", "skipped"])
FINISH = st.none() | VALUE.map(lambda value: (value,))
END = st.tuples(STATUS, SPENT, TIME, st.none() | ERROR, st.booleans(), FINISH)
BY_KIND = {
    "end": END | st.tuples(STATUS, SPENT, st.just(77), st.none(), st.just(False), st.none()),
    "given up": st.tuples(ERROR, TIME),
    "retry": st.tuples(SPENT, TIME),
    "begin": st.none(),
    "merge": st.none() | MAPPING,
    "start": st.none() | st.lists(FORM, max_size=2),
    "failure": ERROR,
    "step": ERROR | FORM.map(lambda form: (form,)),
    "wait": st.tuples(WAIT, SPENT),
    "edit": st.none(),
    "flush": st.none(),
}


def turns(kind):
    at = TIME | st.just(77)
    slot, name = st.integers(0, 3), st.none() | TEXT
    return st.builds(
        Committed, st.integers(1, 2**40), slot, TIME, st.just(kind), name, BY_KIND[kind], BATCH, some(READ), at
    )


FACTS = {
    **{kind: turns(kind) for kind in BY_KIND},
    "published": st.builds(Published, TEXT, FORM, st.booleans(), TIME, SPENT),
    "answered": st.builds(Answered, st.integers(1, 9), TEXT, FORM),
    "noted": st.builds(Noted, SPENT),
    "wrote": WROTE,
    "logged": LOGGED,
    "failed": st.builds(Failed, ERROR, TIME),
    "paused": st.builds(Paused, TEXT),
    "resumed": st.builds(Resumed, TIME),
    "cancelled": st.builds(Cancelled, TEXT, TIME),
    "received": st.builds(Received, st.integers(0, 3), MAPPING, st.booleans(), TIME, SPENT),
    "input closed": st.builds(InputClosed, st.integers(0, 3), TIME, SPENT),
}


def test_every_kind_of_fact_is_tried_here():
    assert FACTS.keys() == {*KINDS, *OUTCOMES}


@pytest.mark.parametrize("kind", FACTS)
def test_j1_j5_every_fact_comes_back_as_it_was(kind):
    @examples(30)
    @given(FACTS[kind])
    def check(fact):
        before = copy.deepcopy(fact)
        body = WRITER.write(fact)
        found = READER.read(body)
        assert type(found) is type(fact)
        assert same(tuple(found), tuple(fact)), "to the last detail"
        assert fact == before, "writing leaves it as it was"
        assert json.loads(body)["kind"] == kind

    check()


@examples(100)
@given(st.lists(VALUE, max_size=3))
def test_j5_a_few_values_are_told_to_be_plain_as_many_are(values):
    many = values * 200
    assert looks_plain(values) is _are_plain(values) is _are_plain(many) is looks_plain(many)


def test_l2_times_are_absolute_and_mean_the_same_on_another_clock():
    _, reader = both(FLOW, EPOCH - 1000)
    due = Wait(20, "t", ("j",))
    for fact, later in [
        (Committed(1, 0, 5, "wait", "w", (due, 3), at=8), (1005, (due._replace(due=1020), 3), 1008)),
        (Committed(1, 0, 5, "retry", None, (3, 20), at=8), (1005, (3, 1020), 1008)),
        (
            Committed(1, 0, 5, "end", None, ("failed", 3, 9, None, True, None), at=8),
            (1005, ("failed", 3, 1009, None, True, None), 1008),
        ),
    ]:
        found = reader.read(WRITER.write(fact))
        assert (found.started, found.outcome, found.at) == later
        assert json.loads(WRITER.write(fact))["at"] == EPOCH + 8


def test_j1_a_plain_turn_takes_few_bytes():
    outcome = ("completed", 12345, 6666, None, False, None)
    fact = Committed(12, 1, 5555, "end", None, outcome, Batch((Emission("e", {"data": 1}, False),)), at=6666)
    assert len(WRITER.write(fact)) <= 160


def test_j1_facts_are_read_under_a_flow_whose_slots_are_in_other_places():
    new = Flow("facts")
    extra = Routine()
    extra.define_slot("first")
    new.add_routine(extra, "extra")
    for name in ("b", "a"):
        new.add_routine(FLOW.routines[name], name)
    plan = new.plan()
    slots = [plan.nodes[slot.routine_id].slots[slot.name] for slot in FLOW.plan().slots]
    reader = FactReader(plan, slots, Reader("the job", new.known_types, None), EPOCH)
    for slot in FLOW.plan().slots:
        found = plan.slots[reader.read(WRITER.write(Committed(1, slot.index, 0, "flush", None, None))).slot]
        assert (found.routine_id, found.name) == (slot.routine_id, slot.name)


# --- what cannot be written -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fact", "where"),
    [
        (
            Committed(1, 0, 0, "flush", None, None, Batch((Emission("e", {"k": [object()]}, True),))),
            r"event 'e': 'k'\[0\]",
        ),
        (Wrote(None, {"k": (object(),)}), r"shared data 'k'\[0\]"),
        (Wrote("a", {"k": object()}), "the state of routine 'a': 'k'"),
        (Logged({"k": object()}, 0), "log entry: 'k'"),
        (Committed(1, 0, 0, "end", None, ("completed", 0, 0, None, False, (object(),))), "the result"),
        (Committed(1, 1, 0, "merge", None, {"k": object()}), r"what was merged for 'a\.t': 'k'"),
        (
            Committed(1, 0, 0, "flush", None, None, Batch(outputs=(Sent("a", "o", {"k": object()}, 0),))),
            "output 'o': 'k'",
        ),
        (Published("t", object(), True, 5), "a fact"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_s5_what_has_no_form_is_named_with_its_path(fact, where):
    with pytest.raises(SaveError, match=f"^the job: {where} "):
        WRITER.write(fact)


# --- hostile data ---------------------------------------------------------------------------------------------------

SPOILERS = st.sampled_from(
    [None, -1, 2**63, 0.5, "", "x", [], {}, [[]], {"~": "tuple", "v": 1}, {"~": []}, {"~": "object"}, True, [{"a": 1}]]
)


@examples(200)
@given(st.one_of(list(FACTS.values())), st.data())
def test_j8_spoilt_facts_raise_one_kind_of_error_or_are_facts(fact, data):
    form = json.loads(WRITER.write(fact))
    place = form
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    if data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(SPOILERS)
    try:
        found = READER.read(orjson.dumps(form))
    except LoadError as error:
        refused = error
    else:
        WRITER.write(found)
        return
    assert str(refused).startswith("the job: ")


@examples(100)
@given(st.one_of(list(FACTS.values())), st.data())
def test_j8_truncated_facts_are_refused(fact, data):
    body = WRITER.write(fact)
    with pytest.raises(LoadError, match=r"^the job: a fact is truncated or damaged"):
        READER.read(body[: data.draw(st.integers(0, len(body) - 1))])


GOOD = {"kind": "flush", "delivery": 1, "slot": 0, "started": 0, "at": 0}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ([], "a fact must be an object"),
        ({}, "the key 'kind' is missing"),
        ({"kind": "began"}, "of a kind that this version of routilux does not know: 'began'"),
        ({**GOOD, "more": 1}, r"keys that this version of routilux does not know: \['more'\]"),
        ({**GOOD, "slot": 4}, "'slot' refers to rows that are not there"),
        ({**GOOD, "slot": -1}, "'slot' refers to rows that are not there"),
        ({**GOOD, "delivery": 0}, "'delivery' must be at least 1"),
        ({**GOOD, "outcome": 1}, "a fact of kind 'flush' has the key 'outcome'"),
        ({**GOOD, "kind": "end"}, "a fact of kind 'end' lacks the key 'outcome'"),
        ({**GOOD, "kind": "end", "outcome": ["lost", 1]}, "'outcome' is 'lost', not one of"),
        ({**GOOD, "emissions": [["g", {}]]}, "routine 'a' emitted event 'g', which it does not have"),
        ({**GOOD, "writes": [{"area": "c"}]}, "the state of routine 'c', which the flow does not have"),
        ({**GOOD, "writes": [{"fields": {"n": 1}}]}, "the flow has no state_schema"),
        ({**GOOD, "log": [[{}]]}, "an item of 'log' must have 2 items"),
        ({"kind": "published", "name": "t"}, "the key 'outcome' is missing"),
        ({"kind": "wrote", "writes": [[{"~": "object", "class": "os.system", "v": {}}]]}, "must be an object"),
        ({"kind": "wrote", "writes": [{"set": [{"~": "object", "class": "os.system", "v": {}}]}]}, "'os.system'"),
    ],
    ids=str,
)
def test_j8_what_is_wrong_is_named(form, message):
    with pytest.raises(LoadError, match=f"^the job: .*{message}"):
        READER.read(orjson.dumps(form))


# --- the typed state --------------------------------------------------------------------------------------------------


class Celsius:
    """A class that only pydantic knows, by the annotation of its field."""

    def __init__(self, degrees):
        self.degrees = degrees

    def __eq__(self, other):
        return isinstance(other, Celsius) and other.degrees == self.degrees

    __hash__ = None

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return {
            "type": "function-plain",
            "function": {
                "type": "no-info",
                "function": lambda value: value if isinstance(value, Celsius) else cls(value),
            },
            "serialization": {"type": "function-plain", "function": lambda value: value.degrees},
        }


class State(BaseModel):
    count: int = 0
    items: tuple[int, ...] = ()
    inner: Inner = Inner()
    warm: Celsius = Celsius(0)
    price: Decimal = Decimal(0)


class OwnState(BaseModel):
    """One that brings a serializer of its own."""

    count: int = 0
    price: Decimal = Decimal(0)

    @field_serializer("price")
    def in_cents(self, price: Decimal) -> str:
        return f"{price:f}"


class Secretive(BaseModel):
    count: int = 0
    password: str = Field("", exclude=True)


def through(schema, write, **shared):
    flow = make_flow(schema)
    writer, reader = both(flow)
    body = writer.write(write, lambda: {**schema().__dict__, **shared})
    return json.loads(body)["writes"][0], reader.read(body)


def test_s2_fields_with_a_form_of_their_own_have_it():
    for values in ({"count": 3}, {"items": (1, 2), "price": Decimal("1.5"), "inner": Inner(numbers=[1]), "extra": {1}}):
        row, found = through(State, Wrote(None, values, ("gone",)))
        assert row.keys() == {"set", "removed"}
        assert same(found.values, values)
        assert found.removed == ("gone",)


def test_s2_fields_of_classes_that_only_pydantic_knows_have_its_form():
    values = {"count": 1, "warm": Celsius(20), "extra": (1,)}
    row, found = through(State, Wrote(None, values))
    assert row["fields"] == {"warm": 20}
    assert found == Wrote(None, values)
    flow = make_flow(State)
    assert both(flow)[1].read(both(flow)[0].write(Wrote(None, values))) == found, "the other fields are not needed"


def test_s3_a_model_with_serializers_of_its_own_is_written_by_pydantic():
    row, found = through(OwnState, Wrote(None, {"price": Decimal("1.50"), "extra": (1,)}), count=7)
    assert row["state"] == {"json": {"count": 7, "price": "1.50"}}
    assert found == Wrote(None, {"price": Decimal("1.50"), "extra": (1,)})
    row, found = through(OwnState, Wrote(None, {"count": 5}))
    assert (row["state"]["json"]["count"], found) == (5, Wrote(None, {"count": 5}))
    row, _ = through(OwnState, Wrote(None, {"extra": 5}))
    assert row == {"set": {"extra": 5}}


def test_s3_several_writes_of_one_turn_each_come_back():
    flow = make_flow(OwnState)
    writer, reader = both(flow)
    writes = (Wrote(None, {"count": 1}), Wrote("a", {"x": (1,)}), Wrote(None, {"price": Decimal(2)}))
    fact = Committed(1, 0, 0, "edit", None, None, Batch(writes=writes))
    body = writer.write(fact, lambda: OwnState().__dict__)
    assert reader.read(body) == fact
    assert json.loads(body)["writes"][2]["state"]["json"] == {"count": 1, "price": "2"}


def test_s3_excluded_fields_are_not_written():
    row, found = through(Secretive, Wrote(None, {"count": 1, "password": "secret"}))
    assert "secret" not in str(row)
    assert found == Wrote(None, {"count": 1})


def test_s5_a_field_without_any_form_is_named():
    with pytest.raises(SaveError, match=r"^the job: shared data 'items'"):
        through(State, Wrote(None, {"count": 1, "items": (object(),)}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"fields": {"warmth": 1}}, "the field 'warmth', which State does not have"),
        ({"fields": {"count": "x"}}, "shared data 'count' is not valid"),
        ({"fields": []}, "'fields' must be an object"),
        ({"fields": ["count"], "state": {"json": {"count": "x"}}}, "the state is not valid"),
        ({"fields": [[]], "state": {}}, r"the field \[\]"),
        ({"area": "a", "fields": {"count": 1}}, "in the state of a routine"),
    ],
    ids=str,
)
def test_j8_fields_are_validated_when_they_are_read(row, message):
    _, reader = both(make_flow(State))
    with pytest.raises(LoadError, match=f"^the job: .*{message}"):
        reader.read(orjson.dumps({"kind": "wrote", "writes": [row]}))
