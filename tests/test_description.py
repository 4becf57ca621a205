"""A flow as data: what its description holds, that it comes back the same, and that bad data is one clear error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st
from parts import Sink, Source, Step, chain

from routilux import DeclarationError, ErrorHandler, ErrorStrategy, Flow, Routine


class Relay(Routine):
    """Passes on what arrives in either slot."""

    def __init__(self) -> None:
        super().__init__()
        self.define_slot("left", handler=self.process)
        self.define_slot("right", handler=self.process)
        self.define_event("output")
        self.define_event("other", ["a", "b"])

    def process(self, **payload: Any) -> None:
        self.emit("output", **payload, factor=self.get_config("factor"))


class Refused(Exception):
    """An exception that is not builtin."""


class ConnectionError(Exception):
    """An exception with the name of a builtin one."""


CLASSES = [Relay, Source, Sink]


def described() -> dict[str, Any]:
    """Return a description that has something of everything."""
    options = {"max_workers": 3, "max_pending": 7, "history_limit": None, "copy_payloads": False}
    flow = Flow("f", version="2024-1", execution_strategy="concurrent", **options)  # type: ignore[arg-type]
    flow.set_error_handler(ErrorHandler(ErrorStrategy.SKIP))
    flow.add_routine(Source(), "source")
    relay = Relay()
    relay.set_config(factor=2, nested={"list": [1, None, True, 0.5, "text"]})
    relay.set_as_critical(max_retries=5)
    flow.add_routine(relay, "relay")
    flow.connect("source", "output", "relay", "left", {"data": "value"})
    flow.connect("relay", "other", "relay", "right")
    return flow.to_dict()


# --- what it holds ----------------------------------------------------------------------------------------------


def test_a_description_holds_all_that_was_declared() -> None:
    policy = {"max_retries": 3, "retry_delay": 1.0, "retry_backoff": 2.0, "max_delay": 60.0, "jitter": 0.0}
    policy["retryable_exceptions"] = ["Exception"]  # type: ignore[assignment]
    assert described() == {
        "format": 1,
        "flow_id": "f",
        "options": {
            "version": "2024-1",
            "execution_strategy": "concurrent",
            "max_workers": 3,
            "max_pending": 7,
            "history_limit": None,
            "copy_payloads": False,
        },
        "error_handler": {"strategy": "skip", **policy},
        "routines": [
            {"id": "source", "class": "Source", "config": {}, "error_handler": None},
            {
                "id": "relay",
                "class": "Relay",
                "config": {"factor": 2, "nested": {"list": [1, None, True, 0.5, "text"]}},
                "error_handler": {"strategy": "retry", **policy, "max_retries": 5},
            },
        ],
        "connections": [
            {
                "source_id": "source",
                "event": "output",
                "target_id": "relay",
                "slot": "left",
                "param_mapping": {"data": "value"},
            },
            {"source_id": "relay", "event": "other", "target_id": "relay", "slot": "right", "param_mapping": {}},
        ],
    }


def test_a_description_is_a_copy() -> None:
    routine = Relay()
    routine.set_config(items=[1])
    flow = chain(routine)
    flow.to_dict()["routines"][0]["config"]["items"].append(2)
    assert routine.get_config("items") == [1]


def test_tuples_and_subclasses_of_plain_types_are_described_as_json_has_them() -> None:
    routine = Relay()
    routine.set_config(size=(1, (2,)), strategy=ErrorStrategy.RETRY)
    config = chain(routine).to_dict()["routines"][0]["config"]
    assert config == {"size": [1, [2]], "strategy": "retry"}
    assert type(config["strategy"]) is str


def circular() -> list[Any]:
    items: list[Any] = []
    items.append({"again": items})
    return items


def deep() -> list[Any]:
    items: list[Any] = []
    for _ in range(200):
        items = [items]
    return items


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0, object()]}, r"flow 'chain': routine 'r0': config\['key'\]\['a'\]\[1\] is <object object"),
        ({1, 2}, r"config\['key'\] is \{1, 2\}, which JSON has no form for"),
        (b"", r"config\['key'\] is b''"),
        (math.nan, r"config\['key'\] is nan"),
        (-math.inf, r"config\['key'\] is -inf"),
        ({"a": {1: 2}}, r"config\['key'\]\['a'\] has the key 1, and JSON has only strings as keys"),
        (circular(), r"config\['key'\]\[0\]\['again'\] is one of the containers that it is in"),
        (deep(), r"is nested more than 100 levels deep"),
    ],
)
def test_configuration_that_json_has_no_form_for_is_refused_with_its_path(value: Any, message: str) -> None:
    routine = Relay()
    routine.set_config(key=value)
    with pytest.raises(DeclarationError, match=message):
        chain(routine).to_dict()


def test_one_container_in_two_places_is_no_circle() -> None:
    shared = [1]
    routine = Relay()
    routine.set_config(a=shared, b=[shared, shared])
    assert chain(routine).to_dict()["routines"][0]["config"] == {"a": [1], "b": [[1], [1]]}


def test_two_classes_with_one_name_cannot_be_described() -> None:
    flow = Flow("f")
    flow.add_routine(Relay(), "r0")
    flow.add_routine(type("Relay", (Relay,), {})(), "r1")
    with pytest.raises(DeclarationError, match="routine 'r1' and routine 'r0' are of two classes"):
        flow.to_dict()


def test_an_error_handler_of_a_class_of_its_own_cannot_be_described() -> None:
    class Patient(ErrorHandler):
        pass

    flow = Flow("f")
    flow.set_error_handler(Patient())
    with pytest.raises(DeclarationError, match="flow 'f': an error handler of class Patient cannot be described"):
        flow.to_dict()


# --- that it comes back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("registry", [CLASSES, {each.__name__: each for each in CLASSES}, iter(CLASSES)])
def test_a_flow_comes_back_the_same(registry: Any) -> None:
    data = described()
    again = Flow.from_dict(json.loads(json.dumps(data)), registry)
    assert again.to_dict() == data
    assert list(again.routines) == ["source", "relay"]
    assert again.error_handler == ErrorHandler("skip")  # type: ignore[arg-type]


def test_a_flow_that_comes_back_runs() -> None:
    relay, sink = Relay(), Sink()
    relay.set_config(factor=3)
    flow = Flow("f")
    for routine_id, routine in [("source", Source()), ("relay", relay), ("sink", sink)]:
        flow.add_routine(routine, routine_id)
    flow.connect("source", "output", "relay", "left", {"data": "value"})
    flow.connect("relay", "output", "sink", "input")
    again = Flow.from_dict(flow.to_dict(), CLASSES)
    assert str(again.execute("source", {"items": [1, 2]}).status) == "completed"
    assert again.routines["sink"].got == [{"value": 1, "factor": 3}, {"value": 2, "factor": 3}]  # type: ignore[attr-defined]


def test_a_subclass_of_flow_comes_back_as_itself() -> None:
    class Special(Flow):
        pass

    assert type(Special.from_dict(described(), CLASSES)) is Special


def test_what_a_class_configures_itself_is_overridden_by_what_was_recorded() -> None:
    class Tuned(Relay):
        def __init__(self) -> None:
            super().__init__()
            self.set_config(factor=1, kept=True)
            self.set_as_optional()

    routine = Tuned()
    routine.set_config(factor=9)
    routine.set_as_critical()
    data = chain(routine).to_dict()
    again = Flow.from_dict(data, [Tuned])
    assert again.to_dict() == data
    assert again.routines["r0"].get_config("factor") == 9


@pytest.mark.parametrize("registry", [[Refused, ConnectionError], iter([Refused, ConnectionError])])
def test_exceptions_are_found_among_the_builtin_ones_and_those_that_are_passed(registry: Any) -> None:
    flow = Flow("f")
    flow.set_error_handler(ErrorHandler(retryable_exceptions=(OSError, Refused, ConnectionError)))
    data = flow.to_dict()
    again = Flow.from_dict(json.loads(json.dumps(data)), [], exceptions=registry)
    assert again.error_handler == flow.error_handler
    assert again.to_dict() == data


def test_exceptions_can_be_passed_by_full_or_by_short_name() -> None:
    flow = Flow("f")
    flow.set_error_handler(ErrorHandler(retryable_exceptions=(Refused, ConnectionError)))
    short = {"Refused": Refused, f"{__name__}.ConnectionError": ConnectionError}
    assert Flow.from_dict(flow.to_dict(), [], exceptions=short).error_handler == flow.error_handler


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
POLICIES = st.none() | st.builds(
    ErrorHandler,
    st.sampled_from(ErrorStrategy),
    st.integers(0, 9),
    st.floats(0, 9),
    st.floats(1, 9),
    st.floats(0, 99),
    st.floats(0, 1),
    st.lists(st.sampled_from([OSError, Refused, ConnectionError]), unique=True).map(tuple),
)


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    flow = Flow(
        draw(st.text(min_size=1)),
        version=draw(st.none() | st.text(min_size=1)),
        execution_strategy=draw(st.sampled_from(["sequential", "concurrent"])),
        max_workers=draw(st.integers(1, 99)),
        max_pending=draw(st.integers(1, 99)),
        history_limit=draw(st.none() | st.integers(0, 99)),
        copy_payloads=draw(st.booleans()),
    )
    names = st.text(min_size=1).filter(lambda name: name != "self")
    ids = draw(st.lists(st.text(min_size=1), max_size=4, unique=True))
    for holder in [flow, *(Relay() for _ in ids)]:
        if (policy := draw(POLICIES)) is not None:
            holder.set_error_handler(policy)
        if isinstance(holder, Relay):
            holder.set_config(**draw(st.dictionaries(names, JSON, max_size=3)))
            flow.add_routine(holder, ids[len(flow.routines)])
    if ids:
        end = st.sampled_from(ids)
        mappings = st.sampled_from([{}, {"a": "x"}, {"a": "b", "b": "a"}])
        slots = st.sampled_from(["left", "right"])
        wires = st.lists(st.tuples(end, end, slots), max_size=4, unique=True)
        for source, target, slot in draw(wires):
            flow.connect(source, "other", target, slot, draw(mappings))
    return flow


@given(flows())
def test_every_flow_comes_back_the_same(flow: Flow) -> None:
    data = flow.to_dict()
    again = Flow.from_dict(json.loads(json.dumps(data)), CLASSES, exceptions=[Refused, ConnectionError])
    assert again.to_dict() == data
    assert json.dumps(again.to_dict()) == json.dumps(data)  # the order as well
    assert again.connections == flow.connections


# --- bad data ---------------------------------------------------------------------------------------------------


def put(*path: Any) -> Callable[[Any], None]:
    """Return a change of a description: sets what the path leads to; its last part is the value."""
    *way, key, value = path

    def change(data: Any) -> None:
        for part in way:
            data = data[part]
        data[key] = value

    return change


R, C = "routines", "connections"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", 2), "format 2 is unknown; this version of routilux reads 1"),
        (put("format", True), "'format' must be a whole number, not True"),
        (put("format", "1"), "'format' must be a whole number, not '1'"),
        (put("flow_id", ""), "flow_id must be a non-empty string"),
        (put("flow_id", 3), "'flow_id' must be a string, not 3"),
        (put("routnies", []), "has no key 'routnies'; did you mean 'routines'"),
        (put("options", []), r"flow 'f': options must be a mapping, not \[\]"),
        (put("options", "max_wokers", 1), "has no key 'max_wokers'; did you mean 'max_workers'"),
        (put("options", "max_workers", "8"), "options: flow 'f': max_workers must be a whole number"),
        (put("options", "execution_strategy", "sequental"), "did you mean 'sequential'"),
        (put("options", "execution_strategy", []), r"unknown execution_strategy \[\]"),
        (put("options", "copy_payloads", "no"), "'copy_payloads' must be true or false, not 'no'"),
        (put("error_handler", 1), "error_handler must be a mapping, not 1"),
        (put("error_handler", "strategy", "skp"), "error_handler: ErrorHandler: unknown strategy 'skp'; did you mean"),
        (put("error_handler", "jitter", 2), "error_handler: ErrorHandler: jitter must be"),
        (put("error_handler", "retryable_exceptions", "OSError"), "'retryable_exceptions' must be a list"),
        (put("error_handler", "retryable_exceptions", [1]), "retryable_exceptions must name classes, not contain 1"),
        (put("error_handler", "retryable_exceptions", ["eval"]), "exception 'eval' is neither builtin nor among"),
        (put("error_handler", "retryable_exceptions", ["int"]), "exception 'int' is neither builtin nor among"),
        (put("error_handler", "retryable_exceptions", ["x.Refusd"]), "exception 'x.Refusd' is neither .*Refused"),
        (put(R, {}), "'routines' must be a list"),
        (put(R, 1, "relay"), r"flow 'f': routines\[1\] must be a mapping, not 'relay'"),
        (put(R, 1, "id", 1), r"routines\[1\]: 'id' must be a string, not 1"),
        (put(R, 1, "id", ""), r"routines\[1\], routine '': flow 'f': routine_id must be a non-empty string"),
        (put(R, 1, "id", "source"), r"routines\[1\].* there is a routine 'source' already"),
        (put(R, 1, "class", "Relya"), "routine 'relay': the registry has no class 'Relya'; did you mean 'Relay'"),
        (put(R, 1, "class", None), "routine 'relay': 'class' must be a string, not None"),
        (put(R, 1, "class", "Step"), r"routine 'relay': Step\(\) failed with TypeError: .*without arguments"),
        (put(R, 1, "class", "Failing"), r"routine 'relay': Failing\(\) failed with ZeroDivisionError"),
        (put(R, 1, "config", []), r"'config' must be a mapping, not \[\]"),
        (put(R, 1, "config", {"a": [object()]}), r"routine 'relay': config\['a'\]\[0\] is <object"),
        (put(R, 1, "config", {1: 1}), "config has the key 1"),
        (put(R, 1, "error_handler", []), r"routine 'relay': error_handler must be a mapping, not \[\]"),
        (put(R, 1, "error_handler", "max_retries", -1), "routine 'relay': error_handler: ErrorHandler: max_retries"),
        (put(C, None), "'connections' must be a list, not None"),
        (put(C, 0, []), r"connections\[0\] must be a mapping"),
        (put(C, 0, "source_id", "sorce"), r"connections\[0\]: flow 'f' has no routine 'sorce'; did you mean 'source'"),
        (put(C, 0, "event", "outptu"), "routine 'source' has no event 'outptu'; did you mean 'output'"),
        (put(C, 0, "target_id", []), r"'target_id' must be a string, not \[\]"),
        (put(C, 0, "slot", "lfet"), "routine 'relay' has no slot 'lfet'; did you mean 'left'"),
        (put(C, 0, "param_mapping", []), r"'param_mapping' must be a mapping, not \[\]"),
        (put(C, 0, "param_mapping", {"dta": "x"}), "has no parameter 'dta'; did you mean 'data'"),
        (put(C, 0, "param_mapping", {"data": 1}), r"connections\[0\]: .*must map parameter names to parameter names"),
        (put(C, 1, described()[C][0]), r"connections\[1\]: .*is connected already"),
    ],
)
def test_malformed_data_is_one_error_that_says_what_and_where(change: Any, message: str) -> None:
    class Failing(Relay):
        def __init__(self) -> None:
            raise ZeroDivisionError

    data = described()
    change(data)
    with pytest.raises(DeclarationError, match=message) as caught:
        Flow.from_dict(data, [*CLASSES, Step, Failing], exceptions=[Refused])
    assert str(caught.value).startswith("description of ")


@pytest.mark.parametrize("data", [None, [], 1, "{}", b"{}", {1: 2}, {}])
def test_what_is_no_description_is_refused(data: Any) -> None:
    with pytest.raises(DeclarationError, match="description of a flow"):
        Flow.from_dict(data, CLASSES)


def test_json_text_is_refused_with_what_to_do() -> None:
    with pytest.raises(DeclarationError, match=r"load JSON text with json.loads\(\) first"):
        Flow.from_dict(json.dumps(described()), CLASSES)  # type: ignore[arg-type]


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything in a description, except inside a configuration or a mapping of parameters."""
    if path and path[-1] in ("config", "param_mapping"):
        return []
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in items for place in [(*path, key), *places(value, (*path, key))]]


PLACES = places(described())


@pytest.mark.parametrize("path", [path for path in PLACES if isinstance(path[-1], str)], ids=str)
def test_every_key_must_be_there(path: tuple[Any, ...]) -> None:
    data = inner = described()
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    with pytest.raises(DeclarationError, match=f"the key '{path[-1]}' is missing"):
        Flow.from_dict(data, CLASSES)


@given(st.sampled_from(PLACES), JSON)
def test_whatever_stands_in_a_place_gives_a_flow_or_a_declaration_error(path: tuple[Any, ...], value: Any) -> None:
    data = described()
    put(*path, value)(data)
    try:
        flow = Flow.from_dict(data, CLASSES)
    except DeclarationError:
        return
    assert flow.to_dict() == data


@pytest.mark.parametrize(
    ("registry", "message"),
    [
        (None, "registry must map names to classes or be a list of classes, not be None"),
        ("Relay", "registry must map names to classes"),
        ([Relay()], "registry takes subclasses of Routine by name"),
        ([int], "registry takes subclasses of Routine by name, not 'int'"),
        ({"Relay": None}, "registry takes subclasses of Routine by name, not 'Relay': None"),
        ({1: Relay}, "registry takes subclasses of Routine by name, not 1"),
        ([Relay, type("Relay", (Relay,), {})], "registry has two classes named 'Relay'"),
    ],
)
def test_a_registry_must_hold_routine_classes_by_distinct_names(registry: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        Flow.from_dict(described(), registry)


def test_exceptions_must_be_exception_classes() -> None:
    with pytest.raises(DeclarationError, match="exceptions takes subclasses of BaseException by name, not 'int'"):
        Flow.from_dict(described(), CLASSES, exceptions=[int])
