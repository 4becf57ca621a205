"""The builtin routines: each by itself, connected to one another, and in durable jobs."""

from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel

from routilux import DeclarationError, Engine, ErrorHandler, Flow, PayloadError, Routine, builtin, open_store
from routilux.builtin import Aggregate, Batch, Collect, Filter, Map, Router, Split, Validate
from routilux.routine.declaration import declaration_of


class Order(BaseModel):
    item: str
    count: int = 1


class Taker(Routine):
    """Keeps what arrives, with the name of the event."""

    def __init__(self, event, got):
        super().__init__()
        self.event, self.got = event, got
        self.define_slot("input", handler=self.take)

    def take(self, **payload):
        self.got.append((self.event, payload))


@pytest.fixture(params=["in memory", "durable"])
def engine(request):
    """The engine of a flow: none of its own, or one with a store."""
    if request.param == "in memory":
        yield None
        return
    with Engine(store=open_store("memory:")) as made:
        yield made


def run(engine, payload, *routines):
    """Run routines one after the other; return the job, and what the last one has emitted, by event."""
    got = []
    flow = Flow("builtin" if engine is None else None, engine=engine)
    ids = [flow.add_routine(routine, f"r{number}") for number, routine in enumerate(routines)]
    for left, right in pairwise(ids):
        flow.connect(left, "output", right, "input")
    for event in declaration_of(routines[-1]).events:
        taker = flow.add_routine(Taker(event, got))
        flow.connect(ids[-1], event, taker, "input")
    return flow.execute("r0", payload), got


def emitted(engine, payload, *routines):
    """Run routines one after the other; return what the last one has emitted."""
    state, got = run(engine, payload, *routines)
    state.raise_for_status()
    return got


def doubled(number: int) -> int:
    return 2 * number


async def doubled_later(number: int) -> int:
    return 2 * number


# --- one by one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [doubled, doubled_later])
def test_map_emits_what_a_function_makes_of_a_value_and_passes_the_others_along(engine, function):
    assert emitted(engine, {"value": "4", "note": "n"}, Map(function)) == [("output", {"value": 8, "note": "n"})]
    got = emitted(engine, {"text": "abc", "n": 0}, Map(len, of="text", emits="n"))
    assert got == [("output", {"text": "abc", "n": 3})]


def test_map_emits_none_as_well():
    assert emitted(None, {"value": 1}, Map(lambda value: None)) == [("output", {"value": None})]


def test_b4_the_value_is_validated_as_the_function_annotates_it():
    state, _ = run(None, {"value": "four"}, Map(doubled))
    with pytest.raises(PayloadError, match=r"flow 'builtin', routine 'r0', slot 'input': parameter 'value' = 'four'"):
        state.raise_for_status()


def test_b4_a_payload_without_the_value_is_refused():
    state, _ = run(None, {"valeu": 4, "x": 1}, Map(doubled))
    with pytest.raises(PayloadError, match="parameter 'value' is missing; the payload has 'valeu', 'x'"):
        state.raise_for_status()


@pytest.mark.parametrize(("value", "event"), [(4, "output"), (1, "rejected")])
def test_filter_emits_what_passes_and_what_does_not(engine, value, event):
    payload = {"value": value, "note": "n"}
    assert emitted(engine, payload, Filter(lambda number: number > 2)) == [(event, payload)]


def test_split_emits_each_item_with_the_other_parameters(engine):
    got = emitted(engine, {"items": (1, [2]), "note": "n"}, Split(of="items", emits="item"))
    assert got == [("output", {"note": "n", "item": 1}), ("output", {"note": "n", "item": [2]})]


@pytest.mark.parametrize("value", ["text", b"bytes", 5, None])
def test_split_refuses_what_has_no_items(value):
    state, _ = run(None, {"value": value}, Split())
    with pytest.raises(PayloadError, match=r"routine 'r0', slot 'input': value = .* has no items"):
        state.raise_for_status()


def test_batch_emits_lists_and_the_rest_at_the_end(engine):
    got = emitted(engine, {"value": [1, 2, 3], "note": "n"}, Split(), Batch(2))
    assert got == [("output", {"value": [1, 2], "note": ["n", "n"]}), ("output", {"value": [3], "note": ["n"]})]


def test_batch_sorts_by_a_key_and_drops_the_rest_when_told_to(engine):
    rows = [{"k": "ab"[n % 2], "n": n} for n in range(5)]
    flat = Map(lambda row: row["k"], of="row", emits="k")
    got = emitted(engine, {"value": rows}, Split(emits="row"), flat, Batch(2, key="k", rest="drop"))
    assert [(each["k"], [row["n"] for row in each["row"]]) for _, each in got] == [("a", [0, 2]), ("b", [1, 3])]


def test_aggregate_makes_one_value_of_all(engine):
    assert emitted(engine, {"value": [0, 1, 2, 3, 4]}, Split(), Aggregate(sum)) == [("output", {"value": 10})]
    got = emitted(engine, {"value": [0, 1, 2, 3, 4], "k": "x"}, Split(), Aggregate(len, emits="count", key="k"))
    assert got == [("output", {"k": "x", "count": 5})]


@pytest.mark.parametrize(("kind", "event"), [("refund", "refunds"), ("question", "questions"), ("rant", "others")])
def test_a_router_looks_the_event_up_in_a_table(engine, kind, event):
    router = Router({"refund": "refunds", "question": "questions"}, of="kind", default="others")
    assert emitted(engine, {"kind": kind, "n": 1}, router) == [(event, {"kind": kind, "n": 1})]


@pytest.mark.parametrize(("value", "event"), [(500, "large"), (50, "medium"), (5, "small")])
def test_a_router_takes_the_first_event_whose_predicate_is_true(engine, value, event):
    router = Router([(lambda n: n > 100, "large"), (lambda n: n > 10, "medium")], default="small")
    assert emitted(engine, {"value": value}, router) == [(event, {"value": value})]


@pytest.mark.parametrize(
    ("routes", "value", "message"),
    [
        (
            {"refund": "refunds"},
            "refnud",
            r"no route for value = 'refnud', and no default event; did you mean 'refund'",
        ),
        ({"refund": "refunds"}, ["refund"], r"no route for value = \['refund'\]"),
        ({"refund": "refunds"}, ([1],), r"no route for value = \(\[1\],\)"),
        ([(lambda n: n == 1, "one")], 2, r"no route for value = 2, and no default event; events: one"),
    ],
)
def test_a_value_without_a_route_and_no_default_is_one_clear_error(routes, value, message):
    state, _ = run(None, {"value": value}, Router(routes))
    with pytest.raises(PayloadError, match=f"flow 'builtin', routine 'r0', slot 'input': there is {message}"):
        state.raise_for_status()


def test_a_table_may_map_to_its_default_and_to_one_event_several_times():
    router = Router({1: "odd", 2: "even", 3: "odd"}, default="even")
    assert list(declaration_of(router).events) == ["odd", "even"]


def test_validate_emits_models_as_valid_and_the_rest_with_its_errors_as_invalid(engine):
    assert emitted(engine, {"item": "lamp", "count": "2"}, Validate(Order)) == [
        ("valid", {"value": Order(item="lamp", count=2)})
    ]
    ((event, payload),) = emitted(engine, {"count": "many"}, Validate(Order))
    assert (event, payload["data"]) == ("invalid", {"count": "many"})
    assert [(each["loc"], each["type"]) for each in payload["errors"]] == [
        (("item",), "missing"),
        (("count",), "int_parsing"),
    ]


def test_validate_one_parameter_passes_the_others_along(engine):
    validate = Validate(Order, of="order", emits="order")
    assert emitted(engine, {"order": {"item": "lamp"}, "n": 1}, validate) == [
        ("valid", {"n": 1, "order": Order(item="lamp")})
    ]
    ((event, payload),) = emitted(engine, {"order": 5, "n": 1}, Validate(Order, of="order"))
    assert (event, payload["n"], payload["data"]) == ("invalid", 1, 5)


def test_collect_puts_all_values_into_the_shared_data(engine):
    state, got = run(engine, {"value": [3, 1, 2]}, Split(), Collect("numbers"))
    assert (state.status, got) == ("completed", [("output", {"value": [3, 1, 2]})])
    assert state.get_shared_data("numbers") == [3, 1, 2]


# --- together ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-50, 50)), st.integers(1, 5))
def test_they_can_be_connected_as_they_are(numbers, count):
    got = []
    flow = Flow("together")
    routines = [Split(), Map(lambda n: 3 * n), Filter(lambda n: n % 2 == 0), Batch(count), Map(sum), Aggregate(sum)]
    for number, routine in enumerate([*routines, Taker("", got)]):
        flow.add_routine(routine, f"r{number}")
        if number:
            flow.connect(f"r{number - 1}", "output", f"r{number}", "input")
    assert flow.execute("r0", {"value": numbers}).status == "completed"
    even = [3 * n for n in numbers if n % 2 == 0]
    assert got == ([("", {"value": sum(even)})] if even else [])


def test_e2_the_error_strategy_of_a_builtin_routine_applies(engine):
    fragile = Map(lambda n: 1 // n)
    fragile.set_error_handler(ErrorHandler("continue"))
    state, got = run(engine, {"value": [1, 0, -1]}, Split(), fragile)
    assert (state.status, got) == ("completed", [("output", {"value": 1}), ("output", {"value": -1})])
    assert [error.type for error in state.errors] == ["ZeroDivisionError"]


# --- declared wrongly -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Map(5), "Map: expected a plain function of one value, not 5"),
        (lambda: Map(lambda a, b: a), "Map: .* cannot be called with one value: missing a required argument: 'b'"),
        (lambda: Map(len, of="no name"), "of must be the name of a parameter, not 'no name'"),
        (lambda: Map(len, emits=""), "emits must be the name of a parameter, not ''"),
        (lambda: Filter(doubled_later), "Filter: expected a plain function of one value, not <function doubled_later"),
        (lambda: Batch(0), "Batch: count must be a whole number of at least 1, not 0"),
        (lambda: Batch("all"), "Batch: count must be a whole number of at least 1, not 'all'"),
        (lambda: Aggregate(max, of="k", key="k"), "key='k' cannot be the parameter that is aggregated"),
        (lambda: Router(None), "Router: there are no routes"),
        (lambda: Batch(2, rest="keep"), "unknown rest 'keep'"),
        (lambda: Aggregate(max, key=5), "key must be the name of a parameter"),
        (lambda: Router({}), "Router: there are no routes"),
        (lambda: Router([len]), "a route is a pair of a predicate and the name of an event, not <built-in"),
        (lambda: Router({"a": ""}), "an event name must be a non-empty string, not ''"),
        (lambda: Validate(dict), "expected a class of pydantic models, not <class 'dict'>"),
        (lambda: Collect("a b"), "into must be the name of a parameter"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_declared(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


# --- as code --------------------------------------------------------------------------------------------------------


def test_each_is_documented_and_takes_less_than_60_lines():
    folder = Path(builtin.__file__).parent
    for name in builtin.__all__:
        kind = getattr(builtin, name)
        assert "Args:" in inspect.getdoc(kind) or name == "Collect"
        assert len(Path(inspect.getfile(kind)).read_text().splitlines()) < 60
    assert {file.stem for file in folder.glob("*.py")} - {"__init__", "taking"} == {
        name.lower() for name in builtin.__all__
    }
