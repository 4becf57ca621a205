"""B: how a payload becomes the arguments of a handler."""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import pydantic
import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import Sink, Source, Step, chain
from pydantic import BaseModel, Field

from routilux import DeclarationError, ErrorHandler, Flow, PayloadError, Routine
from routilux.routine.binding import Binding, Misfit


class Item(BaseModel):
    name: str
    tags: list[str] = []


class Half(BaseModel):
    """A model that was never finished: the class of its field does not exist."""

    other: "NoSuchClass"  # noqa: F821, UP037


class Handle:
    """An object that is neither a plain container nor a model."""

    def __init__(self):
        self.got = []


def flow_of(handler, *, events=(), **slot_options):
    routine = Routine()
    routine.define_slot("input", handler, **slot_options)
    for name, params in events:
        routine.define_event(name, params)
    flow = Flow("f")
    flow.add_routine(routine, "r")
    return flow


def call(handler, **payload):
    """Execute a flow of one handler with a payload; return the state of the job."""
    return flow_of(handler).execute("r", payload)


def call_well(handler, **payload):
    call(handler, **payload).raise_for_status()


def error_of(handler, **payload):
    """Return the message of the PayloadError with which an execution fails."""
    state = call(handler, **payload)
    assert (state.status, state.error.type) == ("failed", "PayloadError")
    assert isinstance(state._job.failure, PayloadError)
    return state.error.message


def recorder():
    """Return a list, and a function that appends what it is given."""
    got = []
    return got, lambda value: got.append(value)


# --- B1: by name --------------------------------------------------------------------------------------------------


def test_b1_parameters_are_bound_by_name_in_any_order():
    got = []
    call_well(lambda b, a: got.append((a, b)), a=1, b=2)
    assert got == [(1, 2)]


def test_b1_kwargs_receive_the_rest():
    got = []
    call_well(lambda a, **rest: got.append((a, rest)), a=1, b=2, c=3)
    assert got == [(1, {"b": 2, "c": 3})]


def test_b1_kwargs_alone_receive_all():
    got = []
    call_well(lambda **rest: got.append(rest), a=1, b=2)
    call_well(lambda **rest: got.append(rest))
    assert got == [{"a": 1, "b": 2}, {}]


def test_b1_unknown_keys_are_dropped():
    got = []
    call_well(lambda a, b: got.append((a, b)), a=1, b=2, c=3)
    call_well(lambda: got.append("called"), a=1)
    assert got == [(1, 2), "called"]


def test_b1_defaults_stand_for_what_is_absent():
    got = []
    call_well(lambda a, b="default", *, c="too": got.append((a, b, c)), a=1, c=3)
    assert got == [(1, "default", 3)]


def test_b1_positional_rest_parameters_receive_nothing():
    got = []
    call_well(lambda a, *more, b: got.append((a, more, b)), a=1, b=2, more=3)
    assert got == [(1, (), 2)]


def test_b1_falsy_values_are_values():
    got = []
    call_well(lambda a="x", b="x", c="x", d="x": got.append((a, b, c, d)), a=None, b=0, c="", d=[])
    assert got == [(None, 0, "", [])]


NAMES = st.sampled_from("abcd")


@examples(100)
@given(
    needed=st.sets(NAMES, max_size=3),
    optional=st.sets(NAMES, max_size=3),
    rest=st.booleans(),
    payload=st.dictionaries(st.sampled_from("abcdef"), st.integers()),
)
def test_b1_every_signature_gets_exactly_what_it_names(needed, optional, rest, payload):
    optional = optional - needed
    names = sorted(needed) + [f"{name}='default'" for name in sorted(optional)] + ["**rest"] * rest
    handler = eval(f"lambda {', '.join(names)}: dict(locals())")
    binding = Binding(handler, "here")
    named = needed | optional
    if len(named) == 1 and not rest and payload and not named & payload.keys():
        assert binding.bind(payload) == {next(iter(named)): payload}, "B2"
    elif needed - payload.keys():
        with pytest.raises(Misfit):
            binding.bind(payload)
    else:
        arguments = handler(**binding.bind(payload))
        expected = {name: payload.get(name, "default") for name in named}
        if rest:
            expected["rest"] = {name: value for name, value in payload.items() if name not in named}
        assert arguments == expected


# --- B2: the whole payload ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("annotated", [False, True])
def test_b2_a_sole_parameter_that_is_not_among_the_keys_receives_the_whole_payload(annotated):
    got = []

    def plain(record):
        got.append(record)

    def checked(record: dict[str, int]):
        got.append(record)

    call_well(checked if annotated else plain, a=1, b=2)
    assert got == [{"a": 1, "b": 2}]


def test_b2_a_sole_parameter_that_is_among_the_keys_receives_its_value():
    got, handler = recorder()
    call_well(handler, value=1, other=2)
    assert got == [1]


def test_b2_a_sole_model_is_made_of_the_whole_payload():
    got = []

    def handler(item: Item):
        got.append(item)

    call_well(handler, name="a", tags=["x"])
    assert got == [Item(name="a", tags=["x"])]


def test_b2_a_sole_parameter_with_a_default_receives_the_whole_payload_too():
    got = []

    def handler(record=None):
        got.append(record)

    call_well(handler, a=1)
    call_well(handler)
    assert got == [{"a": 1}, None]


def test_b2_an_empty_payload_is_not_passed_as_a_whole():
    _, handler = recorder()
    assert "parameter 'value' is missing; the payload has nothing" in error_of(handler)


def test_b2_kwargs_or_a_second_parameter_switch_it_off():
    assert "'record' is missing" in error_of(lambda record, **rest: None, a=1)
    assert "'record' is missing" in error_of(lambda record, other=None: None, a=1)


def test_b2_the_whole_payload_is_the_handlers_own():
    def handler(record):
        record["mine"] = True

    state = call(handler, a=1)
    assert state.get_execution_history()[0].data == {"a": 1}


# --- B3: validation -----------------------------------------------------------------------------------------------


def test_b3_annotated_parameters_are_coerced():
    got = []

    def handler(n: int, x: float, flag: bool, when: Item, maybe: int | None, each: list[int]):
        got.append((n, x, flag, when, maybe, each))

    call_well(handler, n="5", x="1.5", flag="yes", when={"name": "a"}, maybe=None, each=("1", 2))
    assert got == [(5, 1.5, True, Item(name="a"), None, [1, 2])]


def test_b3_a_model_that_is_one_already_is_passed_on():
    got = []

    def handler(item: Item, n: int = 0):
        got.append(item)

    call_well(handler, item=Item(name="a", tags=["x"]))
    assert got == [Item(name="a", tags=["x"])]


def test_b3_defaults_are_not_validated():
    got = []

    def handler(a: int, b: int = "absent"):
        got.append((a, b))

    call_well(handler, a=1)
    assert got == [(1, "absent")]


def test_b3_constraints_of_an_annotation_hold():
    def handler(n: Annotated[int, Field(gt=0)], other: int = 0):
        pass

    call_well(handler, n=1)
    assert "n: Input should be greater than 0" in error_of(handler, n=0)


def test_b3_annotations_of_kwargs_hold_for_each_of_them():
    got = []

    def handler(a: str, **rest: int):
        got.append((a, rest))

    call_well(handler, a="1", b="2", c=3)
    assert got == [("1", {"b": 2, "c": 3})]
    assert "parameter 'c' = 'x' is not valid" in error_of(handler, a="1", b=2, c="x")


def test_b3_a_class_that_pydantic_does_not_know_is_checked_by_isinstance():
    handle, got = Handle(), []

    def handler(handle: Handle, other: int = 0):
        got.append(handle)

    call_well(handler, handle=handle)
    assert got[0] is handle
    assert "Input should be an instance of Handle" in error_of(handler, handle="no handle")


def test_b3_any_and_object_and_no_annotation_take_everything():
    got = []

    def handler(a: Any, b: object, c):
        got.append((a, b, c))

    call_well(handler, a=[1], b="x", c=None)
    assert got == [([1], "x", None)]


def test_b3_what_is_appended_is_validated_as_the_lists_that_it_is():
    got = []

    def handler(data: list[int]):
        got.append(data)

    receiver = Routine()
    receiver.define_slot("input", handler, merge_strategy="append")
    flow = chain(Source(["1", 2]), receiver)
    flow.execute("r0").raise_for_status()
    assert got == [[1], [1, 2]]


# --- B4: what does not fit ----------------------------------------------------------------------------------------


def test_b4_a_missing_parameter_is_named_with_what_there_is():
    message = error_of(lambda a, b, c: None, a=1, d=2)
    assert message == (
        "flow 'f', routine 'r', slot 'input': parameter 'b', 'c' is missing; the payload has 'a', 'd'"
    )  # fmt: skip


def test_b4_an_invalid_parameter_is_named_with_its_value():
    def handler(n: int, other: int = 0):
        pass

    message = error_of(handler, n="five")
    assert message.startswith("flow 'f', routine 'r', slot 'input': parameter 'n' = 'five' is not valid: n: ")
    assert "valid integer" in message


def test_b4_a_field_inside_a_parameter_is_named_by_its_path():
    def handler(item: Item, other: int = 0):
        pass

    message = error_of(handler, item={"name": "a", "tags": ["x", 3]})
    assert "routine 'r', slot 'input': parameter 'item' = {'name': 'a', 'tags': ['x', 3]} is not valid" in message
    assert "item.tags.1: " in message


def test_b4_a_long_value_is_shown_in_part_and_one_without_repr_is_no_second_error():
    class Mute:
        def __repr__(self):
            raise RuntimeError

    def handler(n: int, other: int = 0):
        pass

    assert len(error_of(handler, n="x" * 100_000)) < 1000
    assert "<Mute whose repr raises RuntimeError>" in error_of(handler, n=Mute())


@pytest.mark.parametrize("bad", [{"n": "x"}, {}], ids=["invalid", "missing"])
@pytest.mark.parametrize(
    ("strategy", "status", "handled", "recorded"),
    [
        ("continue", "completed", [1, 3], ["completed", "failed", "completed"]),
        ("skip", "completed", [1, 3], ["completed", "skipped", "completed"]),
        ("stop", "failed", [1], ["completed", "failed"]),
        ("retry", "failed", [1], ["completed", "failed"]),
    ],
)
def test_b4_the_error_strategy_applies_and_the_rest_of_the_job_goes_on(strategy, status, handled, recorded, bad):
    got = []

    def handler(n: int, other: int = 0):
        got.append(n)

    receiver = Routine()
    receiver.define_slot("input", handler)
    receiver.set_error_handler(ErrorHandler(strategy, max_retries=2, retry_delay=0))
    source = Step(lambda step, items: [step.emit("output", **item) for item in items])
    state = chain(source, receiver).execute("r0", {"items": [{"n": 1}, {**bad, "other": 0}, {"n": 3}]})
    assert (state.status, got) == (status, handled)
    assert [record.status for record in state.get_execution_history("r1")] == recorded
    (error,) = state.errors
    assert (error.type, error.routine_id, error.slot) == ("PayloadError", "r1", "input")
    assert error.attempt == (3 if strategy == "retry" else 1)


def test_b4_an_error_that_a_handler_raises_itself_is_its_own():
    """A TypeError inside the handler is not mistaken for a payload that does not fit."""

    def handler(a):
        raise TypeError("unexpected keyword argument 'a'")

    state = call(handler, a=1)
    assert (state.error.type, state.error.message) == ("TypeError", "unexpected keyword argument 'a'")


# --- B5: what may be emitted --------------------------------------------------------------------------------------


def emitting(handle, events):
    """Run a handler of a routine with these events and a receiver; return what the receiver got."""
    routine, got = Routine(), []
    routine.define_slot("input", lambda **payload: handle(routine))
    receiver = Routine()
    receiver.define_slot("input", lambda **payload: got.append(payload))
    flow = Flow("f")
    flow.add_routine(routine, "r")
    flow.add_routine(receiver, "receiver")
    for name, params in events:
        routine.define_event(name, params)
        flow.connect("r", name, "receiver", "input")
    flow.execute("r").raise_for_status()
    return got


@pytest.mark.parametrize(
    ("event", "params", "message"),
    [
        ("outptu", {}, r"^flow 'f': routine 'r' has no event 'outptu'; did you mean 'output'\? events: done, output$"),
        ("", {}, "routine 'r' has no event ''"),
        (None, {}, "routine 'r' has no event None"),
        (["output"], {}, r"routine 'r' has no event \['output'\]"),
        (
            "output",
            {"data": 1, "extar": "v"},
            r"^flow 'f': routine 'r': event 'output' has no parameter 'extar' \(emitted with 'v'\); "
            r"did you mean 'extra'\? parameters: data, extra$",
        ),
        ("done", {"x": 1}, r"event 'done' has no parameter 'x' \(emitted with 1\); there are no parameters$"),
    ],
)
def test_b5_what_is_not_declared_raises_at_the_emit_and_nothing_is_emitted(event, params, message):
    def handle(routine):
        with pytest.raises(PayloadError, match=message):
            routine.emit(event, **params)

    assert emitting(handle, [("output", ["data", "extra"]), ("done", [])]) == []


def test_b5_an_undeclared_emission_fails_a_handler_that_does_not_catch_it():
    state = call(Step(lambda step: step.emit("nothing")).process)
    assert state.status == "failed"


def test_b5_none_allows_any_parameter_and_an_empty_list_none():
    def handle(routine):
        routine.emit("anything", a=1, event_name=2, self=3)
        routine.emit("anything")
        routine.emit("nothing")

    events = [("anything", None), ("nothing", [])]
    assert emitting(handle, events) == [{"a": 1, "event_name": 2, "self": 3}, {}, {}]


def test_b5_omitted_parameters_are_absent():
    def handle(routine):
        routine.emit("output", b=2)
        routine.emit("output", a=None)

    assert emitting(handle, [("output", ["a", "b"])]) == [{"b": 2}, {"a": None}]


# --- B6: renaming -------------------------------------------------------------------------------------------------


def renaming(mapping, payload, params=None, handler=None):
    """Emit a payload over a connection with this mapping; return what arrives."""
    got = []
    flow = Flow("f")
    source = Step(lambda step, **entry: step.emit("out", **entry), events=())
    source.define_event("out", params)
    receiver = Routine()
    receiver.define_slot("input", handler or (lambda **rest: got.append(rest)))
    flow.add_routine(source, "a")
    flow.add_routine(receiver, "b")
    flow.connect("a", "out", "b", "input", mapping)
    state = flow.execute("a", payload)
    state.raise_for_status()
    return got[0] if got else {}


def test_b6_a_mapped_name_arrives_under_its_new_name_and_the_others_under_their_own():
    assert renaming({"a": "x"}, {"a": 1, "b": 2}) == {"x": 1, "b": 2}


def test_b6_a_mapped_name_does_not_pass_under_its_old_name():
    got = []
    renaming({"a": "x"}, {"a": 1}, handler=lambda x, a="absent": got.append((x, a)))
    assert got == [(1, "absent")]


def test_b6_two_names_can_be_exchanged():
    assert renaming({"a": "b", "b": "a"}, {"a": 1, "b": 2}, ["a", "b"]) == {"b": 1, "a": 2}


def test_b6_a_mapped_parameter_that_is_omitted_stays_absent():
    assert renaming({"a": "x", "b": "y"}, {"a": 1}) == {"x": 1}


def test_b6_a_renamed_value_wins_over_one_that_has_the_name_already():
    """Only possible when the event declares no parameters, so that nobody could tell beforehand."""
    assert renaming({"a": "b"}, {"a": 1, "b": 2}) == {"b": 1}


def test_b6_an_identity_mapping_changes_nothing():
    assert renaming({"a": "a"}, {"a": 1, "b": 2}, ["a", "b"]) == {"a": 1, "b": 2}


def test_b6_each_connection_renames_for_itself():
    got = {}
    flow = Flow("f")
    flow.add_routine(Source(["v"]), "a")
    for name, mapping in {"plain": None, "renamed": {"data": "x"}}.items():
        receiver = Routine()
        receiver.define_slot("input", lambda name=name, **rest: got.setdefault(name, rest))
        flow.add_routine(receiver, name)
        flow.connect("a", "output", name, "input", mapping)
    state = flow.execute("a")
    assert got == {"plain": {"data": "v"}, "renamed": {"x": "v"}}
    assert state.get_execution_history("a")[0].data == {"data": "v"}


@examples(100)
@given(st.dictionaries(NAMES, st.integers()), st.permutations("wxyz"), st.sets(NAMES))
def test_b6_every_value_arrives_once_under_its_name(payload, new_names, mapped):
    mapping = {old: new for old, new in zip("abcd", new_names, strict=True) if old in mapped}
    assert renaming(mapping, payload) == {mapping.get(name, name): value for name, value in payload.items()}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"a": "x", "b": "x"}, "gives two parameters the same name"),
        ({"a": "b"}, "'a' would overwrite 'b', which event 'out' emits as well; map that too"),
        ({"aa": "x"}, r"event 'out' has no parameter 'aa'; did you mean 'a'\?"),
        ({"a": "xx"}, r"the handler of slot 'input' has no parameter 'xx'; did you mean 'x'\?"),
        ({"a": 1}, "must map parameter names to parameter names"),
        ({"a": ""}, "must map parameter names to parameter names"),
        ({1: "x"}, "must map parameter names to parameter names"),
        (["a"], "must map event parameters to slot parameters, not be"),
        ("a", "must map event parameters to slot parameters, not be"),
    ],
    ids=str,
)
def test_b6_a_mapping_that_does_not_fit_is_refused_when_it_is_connected(mapping, message):
    flow = Flow("f")
    source, receiver = Routine(), Routine()
    source.define_event("out", ["a", "b"])
    receiver.define_slot("input", lambda x, y=0, b=0: None)
    flow.add_routine(source, "a")
    flow.add_routine(receiver, "b")
    with pytest.raises(DeclarationError, match=rf"^flow 'f': .*param_mapping.*{message}"):
        flow.connect("a", "out", "b", "input", mapping)
    assert flow.connections == ()


# --- handlers that cannot work ------------------------------------------------------------------------------------


async def coroutine(data):
    pass


async def stream(data):
    yield data


def generator(data):
    yield data


class AsyncCall:
    async def __call__(self, data):
        pass

    async def method(self, data):
        pass

    def generate(self, data):
        yield data


def positional_only(data, /):
    pass


def unknown_name(data: NoSuchClass):  # noqa: F821
    pass


def unknown_attribute(data: os.NoSuchClass):
    pass


def no_expression(data):
    pass


no_expression.__annotations__["data"] = "1 +"


def two_types(data: (int, str), other: int):
    pass


def a_number(data: 5):
    pass


def a_number_as_it_is(data):
    pass


a_number_as_it_is.__annotations__["data"] = 5


def bad_constraint(data: Annotated[int, Field(gt="x")]):
    pass


def unfinished_model(data: Half):
    pass


REFUSED = {
    "no function": ("no function", "must be callable, not 'no function'"),
    "a number": (5, "must be callable, not 5"),
    "a list": ([coroutine], "must be callable"),
    "async generator": (stream, "is a generator function"),
    "generator": (generator, "is a generator function"),
    "generator method": (AsyncCall().generate, "is a generator function"),
    "generator partial": (functools.partial(generator), "is a generator function"),
    "positional-only": (positional_only, "parameter 'data' of the handler is positional-only"),
    "method of a list": ([].append, "parameter 'object' of the handler is positional-only"),
    "no signature": ({}.update, "the parameters of handler .* cannot be read"),
    "unknown name": (unknown_name, "annotation .*NoSuchClass"),
    "unknown attribute": (unknown_attribute, "annotation .*NoSuchClass"),
    "no expression": (no_expression, "annotation"),
    "two types": (two_types, "annotation"),
    "a number for a type": (a_number, "annotation"),
    "a number for a type, not as text": (a_number_as_it_is, "annotation"),
    "bad constraint": (bad_constraint, "annotation .* of parameter 'data' cannot be checked"),
    "unfinished model": (unfinished_model, "annotation .* of parameter 'data' cannot be checked"),
}


@pytest.mark.parametrize(("handler", "message"), REFUSED.values(), ids=REFUSED)
def test_b3_a_handler_that_cannot_be_called_with_a_payload_is_one_error_at_its_declaration(handler, message):
    routine = Routine()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning is not enough
        with pytest.raises(DeclarationError, match=rf"(?s)^Routine, slot 'input': .*{message}"):
            routine.define_slot("input", handler)
    routine.define_slot("input", lambda data: None)  # nothing of it was kept


# --- handlers of every kind ---------------------------------------------------------------------------------------


class Callable_:
    def __init__(self):
        self.got = []

    def __call__(self, n: int, other: int = 0):
        self.got.append(n)


class Decorator:
    """A decorator class, which keeps the decorated function under a name that functools.partial uses as well."""

    def __init__(self, func):
        self.func = func
        self.got = []

    def __call__(self, n: int, other: int = 0):
        self.got.append(n)


class Made:
    got: list[int] = []  # noqa: RUF012

    def __init__(self, n: int, other: int = 0):
        self.got.append(n)


def twice(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        function(*args, **kwargs)
        function(*args, **kwargs)

    return wrapper


def text_of(n: str):
    raise AssertionError("not this one")


def take(got: list[Any], n: int, other: int = 0):
    got.append(n)


@twice
def take_twice(got: list[Any], n: int, other: int = 0):
    got.append(n)


class Holder:
    def __init__(self):
        self.got = []

    def take(self, n: int, other: int = 0):
        self.got.append(n)

    @twice
    def take_twice(self, n: int, other: int = 0):
        self.got.append(n)

    @classmethod
    def of_class(cls, n: int, other: int = 0):
        Made.got.append(n)

    @staticmethod
    def of_none(n: int, other: int = 0):
        Made.got.append(n)


def kinds():
    """Handlers that take an int ``n``, each with the list in which it keeps what it took."""
    holder, made = Holder(), Made.got
    made.clear()
    for each in (Callable_(), Decorator(text_of), Decorator("no function")):
        yield each, each.got
    got = []
    yield functools.partial(take, got), got
    yield functools.partial(functools.partial(take, got), other=5), got
    yield functools.partial(take_twice, got), got
    yield holder.take, holder.got
    yield holder.take_twice, holder.got
    yield functools.partial(holder.take, other=1), holder.got
    yield functools.lru_cache(Holder.of_none), made
    yield Holder.of_class, made
    yield holder.of_none, made
    yield Made, made


@pytest.mark.parametrize("index", range(13))
def test_b3_handlers_of_every_kind_get_validated_parameters(index):
    handler, got = list(kinds())[index]
    call_well(handler, n="5")
    assert set(got) == {5}
    assert "parameter 'n' = 'x' is not valid" in error_of(handler, n="x")


def test_b3_there_is_a_test_for_each_kind():
    assert len(list(kinds())) == 13


def test_b1_a_lambda_and_a_builtin_work():
    got = []
    call_well(lambda n: got.append(n), n=1)
    assert got == [1]
    numbers = [1, 3, 2]
    call_well(numbers.sort, reverse=True)
    assert numbers == [3, 2, 1]


def test_b1_a_partials_own_arguments_stay_and_a_payload_may_replace_its_keywords():
    got = []
    handler = functools.partial(lambda a, b, c: got.append((a, b, c)), 1, c=3)
    call_well(handler, b=2)
    call_well(handler, b=2, c=4)
    assert got == [(1, 2, 3), (1, 2, 4)]


def test_b1_a_slot_without_a_handler_takes_everything_and_records_it():
    state = call(None, a=1, b=[2])
    assert [(record.slot, record.data, record.status) for record in state.get_execution_history()] == [
        ("input", {"a": 1, "b": [2]}, "completed")
    ]


def test_b3_annotations_are_resolved_once_when_the_slot_is_declared(monkeypatch):
    def handler(n: int, other: Callable[[], int] | None = None):
        pass

    flow = flow_of(handler)
    monkeypatch.setattr(inspect, "signature", None)
    monkeypatch.setattr(pydantic, "TypeAdapter", None)
    flow.execute("r", {"n": 1}).raise_for_status()


# --- B7: merging --------------------------------------------------------------------------------------------------


def merging(merge_strategy, payloads, handle=lambda payload: None, **policy):
    """Deliver payloads to a slot that merges; return what its handler was given, and the state of the job."""
    got = []

    def handler(**payload):
        got.append(payload)
        handle(payload)

    receiver = Routine()
    receiver.define_slot("input", handler, merge_strategy=merge_strategy)
    if policy:
        receiver.set_error_handler(ErrorHandler(retry_delay=0, **policy))
    source = Step(lambda step, **_: [step.emit("output", **payload) for payload in payloads])
    return got, chain(source, receiver).execute("r0")


def collect(old, new):
    return {"a": [*old.get("a", []), new["a"]]}


def test_b7_override_is_the_default_and_sees_nothing_of_earlier_deliveries():
    got, _ = merging("override", [{"a": 1, "b": 1}, {"a": 2}])
    assert got == [{"a": 1, "b": 1}, {"a": 2}]


def test_b7_append_gives_lists_per_key():
    got, _ = merging("append", [{"a": 1, "b": 1}, {"a": 2}])
    assert got == [{"a": [1], "b": [1]}, {"a": [1, 2], "b": [1]}]


def test_b7_a_function_merges_the_old_and_the_new():
    got, _ = merging(lambda old, new: {"sum": old.get("sum", 0) + new["n"]}, [{"n": 1}, {"n": 2}, {"n": 3}])
    assert got == [{"sum": 1}, {"sum": 3}, {"sum": 6}]


@pytest.mark.parametrize("strategy", ["append", collect], ids=["append", "function"])
def test_b7_what_a_handler_does_to_its_payload_does_not_reach_the_buffer(strategy):
    got, _ = merging(strategy, [{"a": 1}, {"a": 2}], lambda payload: payload["a"].append("mine"))
    assert got == [{"a": [1, "mine"]}, {"a": [1, 2, "mine"]}]


def test_b7_a_merge_function_may_change_what_it_is_given():
    def extend(old, new):
        old.setdefault("a", []).append(new["a"])
        new.clear()
        return old

    got, state = merging(extend, [{"a": 1}, {"a": 2}])
    assert got == [{"a": [1]}, {"a": [1, 2]}]
    assert [record.data for record in state.get_execution_history("r1")] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("strategy", ["append", collect], ids=["append", "function"])
def test_b7_merging_happens_once_and_retries_see_the_same_payload(strategy):
    left = [ValueError(), ValueError()]

    def fail_twice(payload):
        payload["a"].append("mine")
        if left:
            raise left.pop()

    got, state = merging(strategy, [{"a": 1}, {"a": 2}], fail_twice, strategy="retry")
    assert state.status == "completed"
    assert [payload["a"][:-1] for payload in got] == [[1], [1], [1], [1, 2]]


def test_b7_a_merge_function_that_fails_is_called_again_at_the_retry():
    """Nothing was merged yet, so the handler must not be given the bare payload."""
    left = [ValueError("not yet")]

    def flaky(old, new):
        if left:
            raise left.pop()
        return {"merged": new["a"]}

    got, state = merging(flaky, [{"a": 1}], strategy="retry")
    assert state.status == "completed"
    assert got == [{"merged": 1}]


@pytest.mark.parametrize("bad", [None, 5, [1], {1: 2}], ids=repr)
def test_b7_a_merge_function_must_return_a_dict_of_names(bad):
    got, state = merging(lambda old, new: bad, [{"a": 1}])
    assert got == []
    assert (state.error.type, state.error.slot) == ("PayloadError", "input")
    assert "the merge function must return a dict" in state.error.message


# --- B8: isolation ------------------------------------------------------------------------------------------------


def fan(emitter, *receivers, **options):
    """Run an emitter whose event goes to each receiver."""
    flow = Flow("f", **options)
    flow.add_routine(Step(emitter), "source")
    for index, receive in enumerate(receivers):
        receiver = Routine()
        receiver.define_slot("input", receive)
        flow.add_routine(receiver, f"to{index}")
        flow.connect("source", "output", f"to{index}", "input")
    state = flow.execute("source", {"entry": [0]})
    state.raise_for_status()
    return state


def test_b8_what_the_emitter_does_afterwards_does_not_show():
    got, keep = recorder()

    def emitter(step, **_):
        data, item = {"deep": [1]}, Item(name="a")
        step.emit("output", value=[data, item])
        data["deep"].append(2)
        item.tags.append("late")

    state = fan(emitter, keep)
    assert got == [[{"deep": [1]}, Item(name="a")]]
    assert state.get_execution_history("source")[0].data == {"value": [{"deep": [1]}, Item(name="a")]}


def test_b8_what_one_receiver_does_another_does_not_see():
    got = []

    def spoil(value):
        got.append(list(value))
        value.append("spoiled")

    def emitter(step, **_):
        data = [1]
        step.emit("output", value=data)
        got.append(data)

    fan(emitter, spoil, spoil)
    assert got == [[1], [1], [1]]


def test_b8_emissions_that_are_held_are_isolated_too():
    got, keep = recorder()
    source = Step(lambda step: (data := [1], step.emit("output", value=data), data.append(2)))
    source.set_error_handler(ErrorHandler("retry"))
    receiver = Routine()
    receiver.define_slot("input", keep)
    chain(source, receiver).execute("r0").raise_for_status()
    assert got == [[1]]


def test_b8_every_attempt_sees_the_payload_as_it_came():
    got = []

    def spoil_and_fail(step, data):
        got.append(list(data))
        data.append("spoiled")
        if len(got) < 3:
            raise ValueError

    step = Step(spoil_and_fail)
    step.set_error_handler(ErrorHandler("retry", retry_delay=0))
    chain(Source([[1]]), step).execute("r0").raise_for_status()
    assert got == [[1], [1], [1]]


def test_b8_what_the_caller_does_with_its_entry_parameters_afterwards_does_not_show():
    data = [1]
    state = call(None, data=data)
    data.append(2)
    assert state.get_execution_history()[0].data == {"data": [1]}


def test_b8_the_callers_entry_parameters_are_not_the_handlers():
    data = [1]
    call_well(lambda value: value.append("mine"), value=data)
    assert data == [1]


def test_b8_other_objects_are_shared():
    handle, got = Handle(), []
    fan(lambda step, **_: step.emit("output", value=[handle]), *[lambda value: got.extend(value)] * 2)
    assert got[0] is got[1] is handle


def test_b8_two_parameters_that_are_one_object_stay_one():
    got = []

    def emitter(step, **_):
        data = [1]
        step.emit("output", a=data, b=data)

    fan(emitter, lambda a, b: got.append(a is b))
    assert got == [True]


def test_b8_without_copies_all_share_what_was_emitted():
    data, got = [1], []
    fan(
        lambda step, **_: step.emit("output", value=data),
        lambda value: got.append(value),
        lambda value: got.append(value),
        copy_payloads=False,
    )
    assert got[0] is got[1] is data


def test_b8_without_copies_what_is_appended_is_shared_too():
    data, got = [1], []
    receiver = Routine()
    receiver.define_slot("input", lambda data: got.append(data), merge_strategy="append")
    chain(Source([data]), receiver, copy_payloads=False).execute("r0").raise_for_status()
    assert got == [[data]]
    assert got[0][0] is data


def test_b8_without_copies_the_dict_of_the_payload_is_still_the_receivers_own():
    got = []

    def take(**payload):
        got.append(dict(payload))
        payload["mine"] = True

    fan(lambda step, **_: step.emit("output", value=1), take, take, copy_payloads=False)
    assert got == [{"value": 1}, {"value": 1}]


def test_b8_a_sink_of_many_keeps_them_apart():
    sink = Sink()
    batch = []

    def emitter(step):
        for number in range(3):
            batch.append(number)
            step.emit("output", data=batch)

    chain(Step(emitter), sink).execute("r0").raise_for_status()
    assert sink.got == [[0], [0, 1], [0, 1, 2]]
