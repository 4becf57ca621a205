"""Events and slots that are declared in the body of a class, and connections between the objects themselves."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import Sink, Source, chain
from pydantic import BaseModel, Field
from typing_extensions import get_overloads

import routilux
from routilux import (
    Context,
    ContextError,
    DeclarationError,
    Engine,
    Event,
    Flow,
    PayloadError,
    Resource,
    Routine,
    Slot,
    open_store,
    slot,
)
from routilux.routine.declaration import declaration_of
from routilux.routine.slot import SlotOptions

LONG = 20.0


class Order(BaseModel):
    number: str


class Handle:
    """An object that can only be checked by its class."""


class Scorer(Routine):
    scored = Event("text", score=float)
    done = Event.without_parameters()

    @slot
    def trigger(self, texts: list[str]) -> int:
        for text in texts:
            self.scored.emit(text=text, score=len(text))
        self.done.emit()
        return len(texts)


class Board(Routine):
    @slot(name="lines", merge_strategy="append", concurrency=3, timeout=1.5)
    async def show(self, text: str = "", score: float = 0.0) -> str:
        return f"{text}: {score}"


def flow_of(**routines):
    flow = Flow("f")
    for routine_id, routine in routines.items():
        flow.add_routine(routine, routine_id)
    return flow


def emitting(event, **params):
    """Return the state of a job in which a routine that has this event emits it once."""

    class Emits(Routine):
        output = event

        @slot
        def trigger(self):
            self.output.emit(**params)

    return flow_of(r=Emits()).execute("r")


# --- what is on the class and what on the instance ----------------------------------------------------------------


def test_the_attribute_is_the_event_of_the_instance():
    routine, other = Scorer(), Scorer()
    event = routine.scored
    assert isinstance(event, Event)
    assert (event.name, event.output_params, dict(event.types)) == ("scored", ("text", "score"), {"score": float})
    assert event.routine is routine
    assert routine.scored is event
    assert other.scored is not event
    assert declaration_of(routine).events == {"scored": event, "done": routine.done}
    assert isinstance(Scorer.scored, Event)
    assert (Scorer.scored.name, Scorer.scored.routine) == ("scored", None)
    assert (repr(Scorer.scored), repr(event)) == ("<Event 'scored'>", "<Event 'scored' of Scorer>")


def test_the_attribute_is_the_slot_of_the_instance():
    routine = Board()
    found = routine.show
    assert isinstance(found, Slot)
    assert found is routine.show
    assert found is not Board().show
    assert found.routine is routine
    assert declaration_of(routine).slots == {"lines": found}
    assert "'lines'" in repr(Board.show)
    assert not isinstance(Board.show, Slot)


def test_a_slot_is_the_one_that_define_slot_would_have_made():
    def show(text: str = "", score: float = 0.0):
        pass

    made = Routine().define_slot("lines", show, "append", 3, 1.5)
    found = Board().show
    for option in fields(SlotOptions):
        assert getattr(found, option.name) == getattr(made, option.name)
    for part in ("names", "needed", "rest", "hints", "context", "sole", "direct"):
        assert getattr(found.binding, part) == getattr(made.binding, part)
    assert (found.name, found.binding.on_loop) == ("lines", True)


@pytest.mark.parametrize(
    "declares",
    [Routine.define_slot, get_overloads(slot)[-1], get_overloads(routilux.routine)[-1]],
    ids=["define_slot", "slot", "routine"],
)
def test_every_way_to_declare_a_slot_takes_every_option(declares):
    takes = {each.name: each.default for each in inspect.signature(declares).parameters.values()}
    options = {each.name: each.default for each in fields(SlotOptions)}
    assert options.items() <= takes.items()


def test_defining_returns_what_is_bound_as_well():
    routine = Routine()
    event = routine.define_event("scored", {"text": Any, "score": float})
    assert (event.name, event.output_params, dict(event.types)) == ("scored", ("text", "score"), {"score": float})
    assert event.routine is routine
    assert routine.define_slot("input").routine is routine


@pytest.mark.parametrize(
    ("event", "params"),
    [
        (Event(), None),
        (Event("a", "b"), ("a", "b")),
        (Event("a", b=int, c=Any), ("a", "b", "c")),
        (Event(names=str, types=int, self=int), ("names", "types", "self")),
        (Event.without_parameters(), ()),
    ],
)
def test_b5_the_parameters_of_an_event(event, params):
    assert event.output_params == params


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Event("a", "a"), r"^Event: output_params must be distinct names, not \['a', 'a'\]$"),
        (lambda: Event("a", a=int), r"^Event: output_params must be distinct names"),
        (lambda: Event(""), r"^Event: output_params must be distinct names"),
        (lambda: Event(["a"]), r"^Event: output_params must be distinct names"),
        (lambda: Event(a=5), r"^Event: the annotation 5 of parameter 'a' cannot be checked by pydantic"),
        (lambda: Event(a="float"), r"^Event: the annotation 'float' of parameter 'a' cannot be checked by pydantic"),
        (
            lambda: Routine().define_event("e", {"a": 5}),
            r"^Routine, event 'e': the annotation 5 of parameter 'a' cannot be checked",
        ),
    ],
)
def test_b5_an_event_that_cannot_work_is_refused_where_it_is_made(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


def test_a_slot_can_be_called_and_calls_the_handler():
    with pytest.raises(ContextError, match=r"^Scorer\.emit\('scored'\): it is only possible inside a handler"):
        Scorer().trigger(texts=["a"])
    assert asyncio.run(Board().show("a", score=1)) == "a: 1"
    got = []
    routine = Routine()
    assert routine.define_slot("input", lambda value: got.append(value))(value=3) is None
    assert routine.define_slot("nothing")(value=3) is None
    assert got == [3]


def test_a_slot_has_the_signature_and_the_words_of_its_method():
    class Reads(Routine):
        @slot
        def input(self, value: int) -> None:
            """Read a value."""

    assert list(inspect.signature(Reads().input).parameters) == ["value"]
    assert list(inspect.signature(Reads.input).parameters) == ["self", "value"]
    assert Reads.input.__doc__ == Reads().input.__doc__ == "Read a value."


def test_slots_and_events_are_there_whether_or_not_init_calls_ours():
    class Own(Routine):
        output = Event("value")

        def __init__(self):
            self.seen = [self.output.name, self.input.name]
            self.define_event("more")

        @slot
        def input(self): ...

    routine = Own()
    assert routine.seen == ["output", "input"]
    assert list(declaration_of(routine).events) == ["output", "more"]


def test_a_name_is_declared_once_in_whichever_form():
    class Twice(Routine):
        output = Event("value")

        def __init__(self, what):
            super().__init__()
            getattr(self, f"define_{what}")("output" if what == "event" else "input")

        @slot
        def input(self): ...

    for what, name in (("event", "output"), ("slot", "input")):
        with pytest.raises(DeclarationError, match=rf"^Twice, {what} '{name}': this {what} is defined already$"):
            Twice(what)


def test_a_dataclass_may_be_a_routine():
    @dataclass
    class Scale(Routine):
        factor: int = 2
        scaled = Event(value=int)

        @slot
        def input(self, value: int) -> None:
            self.scaled.emit(value=self.factor * value)

    state = flow_of(r=Scale(3)).execute("r", {"value": 2})
    assert state.get_execution_history()[0].data == {"value": 6}


def test_one_handler_may_serve_two_slots():
    class Reads(Routine):
        def __init__(self):
            self.got = []
            self.define_slot("more", handler=self.input)

        @slot
        async def input(self, value: int) -> None:
            self.got.append(value)

    routine = Reads()
    flow = flow_of(r=routine)
    flow.execute("r", {"value": "1"}, slot="input").raise_for_status()
    flow.execute("r", {"value": "2"}, slot="more").raise_for_status()
    assert routine.got == [1, 2]


def test_the_signature_of_a_method_is_read_once_for_all_instances(monkeypatch):
    class Reads(Routine):
        @slot
        def input(self, value: int): ...

    first = Reads()
    monkeypatch.setattr(inspect, "signature", None)
    second = Reads()
    assert second.input.binding.validators is first.input.binding.validators
    assert second.input.handler.__self__ is second


def test_names_that_are_defined_later_may_stand_in_annotations():
    assert Late().input.binding.hints == (Later,)


class Late(Routine):
    @slot
    def input(self, value: Later): ...


class Later:
    pass


def test_an_annotation_that_cannot_be_resolved_is_told_when_the_routine_is_made():
    class Reads(Routine):
        @slot
        def input(self, value: NoSuchClass): ...  # noqa: F821

    with pytest.raises(DeclarationError, match=r"^Reads, slot 'input': an annotation of handler .* cannot be resolved"):
        Reads()


def test_b0_contexts_and_resources_reach_methods():
    got = []

    class Reads(Routine):
        @slot
        def input(self, ctx: Context, handle: Annotated[Handle, Resource(Handle)], value: int) -> None:
            got.append((ctx.slot_name, type(handle), value))

    flow_of(r=Reads()).execute("r", {"value": 1}).raise_for_status()
    assert got == [("input", Handle, 1)]


# --- what @slot refuses -------------------------------------------------------------------------------------------


def test_an_abstract_slot_has_to_be_written():
    class Reads(Routine, ABC):
        @slot
        @abstractmethod
        def input(self, value): ...

    class Prints(Reads):
        @slot
        def input(self, value):
            return value

    with pytest.raises(TypeError, match="abstract"):
        Reads()
    assert Prints().input(1) == 1


def plain(self): ...


def generator(self):
    yield


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: slot("input"),
            r"^@slot makes a slot of a method, not of 'input'; write @slot or @slot\(name=\.\.\.\)",
        ),
        (lambda: slot(int), r"^@slot makes a slot of a method, not of <class 'int'>"),
        (lambda: slot(Scorer.trigger), r"^@slot makes a slot of a method, not of <slot 'trigger'"),
        (lambda: slot(functools.partial(plain)), r"^@slot makes a slot of a method"),
        (lambda: slot(generator), r"^@slot generator: handler .* is a generator function"),
        (lambda: slot(name="")(plain), r"^@slot plain: a slot name must be a non-empty string, not ''$"),
        (lambda: slot(name=5)(plain), r"a slot name must be a non-empty string, not 5$"),
        (lambda: slot(concurrency=0)(plain), r"^@slot plain: concurrency must be a whole number from 1 to 1,000,000"),
        (lambda: slot(timeout=-1)(plain), r"^@slot plain: timeout must be a number above 0"),
        (lambda: slot(merge_strategy="apend")(plain), r"^@slot plain: unknown merge_strategy 'apend'; use 'override'"),
        (lambda: slot(merge_strategy=lambda: 0)(plain), r"^@slot plain: the merge function must take two dicts"),
    ],
)
def test_a_slot_that_cannot_work_is_refused_where_it_is_declared(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


# --- inheritance --------------------------------------------------------------------------------------------------


def declared(cls):
    found = declaration_of(cls())
    return list(found.slots), list(found.events)


class Base(Routine):
    first = Event("value")
    second = Event("value")

    @slot
    def input(self, value=0):
        return f"base {value}"

    @slot
    def other(self): ...


class Mixin:
    extra = Event("value")

    @slot
    def more(self): ...


def test_declarations_are_inherited_those_of_bases_first():
    class Derived(Mixin, Base):
        third = Event()

    assert declared(Derived) == (["input", "other", "more"], ["first", "second", "extra", "third"])
    assert declared(Base) == (["input", "other"], ["first", "second"])


def test_a_subclass_may_replace_a_slot_and_call_that_of_its_base():
    class Derived(Base):
        first = Event("value", more=int)

        @slot(concurrency=2)
        def input(self, value=0):
            return [super().input(value), Base.input(self, value + 1), super().first.output_params]

    routine = Derived()
    assert declared(Derived) == declared(Base)
    assert routine.input.concurrency == 2
    assert routine.first.output_params == ("value", "more")
    assert routine.input(value=1) == ["base 1", "base 2", ("value",)]


def test_none_takes_away_what_a_base_declares():
    class Derived(Base):
        second = None
        other = None

    class Again(Derived):
        second = Event()

    assert declared(Derived) == (["input"], ["first"])
    assert Derived().other is None
    assert declared(Again) == (["input"], ["first", "second"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"input": plain},
            r"^Derived: Derived\.input replaces the slot 'input' of Base by what is none; make it a method with @slot "
            r"above its def, give it another name, or set it to None to take the slot away$",
        ),
        ({"input": Event()}, r"^Derived: Derived\.input replaces the slot 'input' of Base by what is none"),
        (
            {"first": "text"},
            r"^Derived: Derived\.first replaces the event 'first' of Base by what is none; make it an Ev",
        ),
        ({"first": slot(plain)}, r"^Derived: Derived\.first replaces the event 'first' of Base by what is none"),
        (
            {"emit": Event()},
            r"^Derived\.emit: event 'emit' would hide what every routine has under this name; choose an",
        ),
        (
            {"set_config": slot(plain)},
            r"^Derived\.set_config: slot 'set_config' would hide what every routine has .*@slot\(name='set_config'\)",
        ),
        ({"_declaration": Event()}, r"^Derived\._declaration: event '_declaration' would hide"),
        (
            {"again": slot(name="input")(plain)},
            r"^Derived: slot 'input' is declared twice, as 'input' and as 'again'$",
        ),
        ({"again": Base.first}, r"^Derived\.again: this Event is declared as 'first' already; make another$"),
    ],
    ids=str,
)
def test_what_cannot_be_declared_is_refused_when_the_class_is_made(body, message):
    with pytest.raises(DeclarationError, match=message):
        type("Derived", (Base,), body)


def test_a_plain_method_of_a_mixin_does_not_silently_replace_a_slot():
    class Plain:
        def input(self): ...

    with pytest.raises(DeclarationError, match=r"^Derived: Plain\.input replaces the slot 'input' of Base"):
        type("Derived", (Plain, Base), {})


def test_a_slot_may_have_the_name_of_what_every_routine_has():
    class Named(Routine):
        @slot(name="emit")
        def input(self): ...

    assert declared(Named) == (["emit"], [])


# --- B5: what is emitted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "params", "emitted"),
    [
        (Event(), {"a": 1, "b": [2]}, {"a": 1, "b": [2]}),
        (Event.without_parameters(), {}, {}),
        (Event("a", b=int), {"a": "1", "b": "1"}, {"a": "1", "b": 1}),
        (Event("a", b=int), {"a": "1"}, {"a": "1"}),
        (Event(a=list[float]), {"a": ("1", 2)}, {"a": [1.0, 2.0]}),
        (Event(a=Order), {"a": {"number": "1"}}, {"a": Order(number="1")}),
        (Event(a=Annotated[int, Field(gt=0)]), {"a": 1}, {"a": 1}),
        (Event(a=int | None), {"a": None}, {"a": None}),
        (Event(a=Any), {"a": "x"}, {"a": "x"}),
    ],
)
def test_b5_parameters_with_a_type_are_coerced_at_the_emit(event, params, emitted):
    state = emitting(event, **params)
    state.raise_for_status()
    (record,) = state.get_execution_history()
    assert (record.event_name, record.data) == ("output", emitted)


def test_b8_what_only_its_class_can_check_is_handed_on_as_it_is():
    handle = Handle()
    assert emitting(Event(a=Handle), a=handle).get_execution_history()[0].data["a"] is handle


@pytest.mark.parametrize(
    ("event", "params", "message"),
    [
        (
            Event("text", score=float),
            {"text": "a", "score": "high"},
            r"^flow 'f': routine 'r': event 'output': parameter 'score' = 'high' is not valid: score: Input should",
        ),
        (Event(a=Order), {"a": {}}, r"parameter 'a' = \{\} is not valid: a\.number: Field required$"),
        (Event(a=Handle), {"a": 1}, r"parameter 'a' = 1 is not valid: a: Input should be an instance of Handle$"),
        (Event("text"), {"txt": 1}, r"event 'output' has no parameter 'txt' .*did you mean 'text'"),
        (Event.without_parameters(), {"a": 1}, r"event 'output' has no parameter 'a'"),
    ],
)
def test_b5_what_does_not_fit_is_an_error_at_the_emit(event, params, message):
    state = emitting(event, **params)
    assert state.status == "failed"
    with pytest.raises(PayloadError, match=message):
        state.raise_for_status()


@pytest.mark.parametrize("durable", [False, True])
def test_b5_every_way_to_emit_validates(durable):
    class Emits(Routine):
        output = Event(score=float)

        @slot
        def trigger(self, ctx: Context):
            for emit in (
                self.output.emit,
                functools.partial(self.emit, "output"),
                functools.partial(ctx.emit, "output"),
                functools.partial(self.emit_deferred_event, "output"),
            ):
                emit(score="1.5")
                with pytest.raises(PayloadError, match="parameter 'score' = 'high' is not valid"):
                    emit(score="high")

    with Engine(store=open_store("memory:") if durable else None) as engine:
        flow = Flow("f", engine=engine)
        flow.add_routine(Emits(), "r")
        sink = Sink()
        flow.add_routine(sink, "sink")
        flow.connect("r", "output", "sink", "input")
        state = flow.execute("r")
        assert state.status == "paused"
        flow.resume(state)
        assert state.wait(timeout=LONG)
        state.raise_for_status()
        assert sink.got == [{"score": 1.5}] * 4


def test_a_type_of_an_event_is_known_to_those_who_save(tmp_path):
    class Emits(Routine):
        output = Event(order=Order)

        @slot
        def trigger(self):
            self.output.emit(order=Order(number="1"))

    flow = flow_of(r=Emits())
    flow.execute("r").save(tmp_path / "job.json")
    loaded = flow.load(tmp_path / "job.json")
    assert loaded.get_execution_history()[0].data == {"order": Order(number="1")}


def test_an_event_of_a_class_cannot_be_emitted():
    with pytest.raises(
        ContextError, match=r"^event 'scored' is that of a class; emit that of a routine: self\.scored$"
    ):
        Scorer.scored.emit(text="a")


# --- connect ------------------------------------------------------------------------------------------------------


def test_connect_takes_the_objects_themselves():
    scorer, board, sink = Scorer(), Board(), Sink()
    flow = flow_of(scorer=scorer, board=board, sink=sink)
    made = [
        flow.connect(scorer.scored, board.show),
        flow.connect(scorer.scored, board.show, {"text": "score", "score": "text"}),
        flow.connect(scorer.done, declaration_of(sink).slots["input"], param_mapping=None),
    ]
    assert [str(each) for each in made] == [
        "scorer.scored -> board.lines",
        "scorer.scored -> board.lines",
        "scorer.done -> sink.input",
    ]
    assert made[1].param_mapping == (("text", "score"), ("score", "text"))
    assert flow.connections == tuple(made)


def test_connect_takes_objects_that_were_defined_in_init():
    class Old(Routine):
        def __init__(self):
            super().__init__()
            self.output = self.define_event("output", ["value"])
            self.input = self.define_slot("input", handler=lambda value: None)

    first, second = Old(), Old()
    flow = flow_of(a=first, b=second)
    assert str(flow.connect(first.output, second.input)) == "a.output -> b.input"


def test_one_routine_in_two_flows_is_connected_in_each_by_its_id_there():
    scorer, board = Scorer(), Board()
    for prefix in "ab":
        flow = flow_of(**{f"{prefix}1": scorer, f"{prefix}2": board})
        assert str(flow.connect(scorer.done, board.show)) == f"{prefix}1.done -> {prefix}2.lines"


SCORER, BOARD = Scorer(), Board()
FORMS = r"^flow 'f': connect\(source_id, event, target_id, slot\) takes four names, and connect\(source\.output, "


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (SCORER.scored, Board().show),
            r"^flow 'f': slot 'lines' is that of a Board which is not in this flow; add it wi",
        ),
        ((Scorer().done, BOARD.show), r"^flow 'f': event 'done' is that of a Scorer which is not in this flow; add it"),
        ((Scorer.scored, BOARD.show), r"^flow 'f': event 'scored' is that of a class; connect that of a routine"),
        ((SCORER.scored, Board.show), r"^flow 'f': slot 'lines' is that of a class; connect that of a routine"),
        (
            (BOARD.show, SCORER.scored),
            r"^flow 'f': the event comes first, as in connect\(source\.output, sink\.input\)$",
        ),
        ((BOARD.show, BOARD.show), FORMS),
        ((SCORER.scored, SCORER.done), FORMS),
        ((SCORER.scored, "board", "lines"), FORMS),
        ((SCORER.scored, "board"), FORMS),
        (("scorer", "scored", BOARD.show), FORMS),
        (("scorer", SCORER.scored, "board", BOARD.show), FORMS),
        ((SCORER.scored, BOARD.show, "board"), FORMS),
        ((SCORER, "scored", BOARD, "lines"), FORMS),
        ((SCORER, BOARD), FORMS),
        (("scorer", "scored"), FORMS),
        ((SCORER.scored, BOARD.show, {"txt": "text"}), r"event 'scored' has no parameter 'txt'; did you mean 'text'\?"),
        ((SCORER.scored, BOARD.show, None, None, 5), r"param_mapping must map event parameters to slot parameters"),
    ],
)
def test_a_connection_that_cannot_be_made_says_why(arguments, message):
    flow = flow_of(scorer=SCORER, board=BOARD)
    with pytest.raises(DeclarationError, match=message):
        flow.connect(*arguments)
    assert flow.connections == ()


# --- the same history in both forms -------------------------------------------------------------------------------


def history(state):
    found = []
    for each in state.get_execution_history():
        error = each.error and (each.error.type, each.error.message)
        found.append((each.routine_id, each.slot, each.event_name, each.data, each.status, each.emitted, error))
    return found


def work(self, value, slot_name):
    """Emit a value a few times; a negative one is an error half way."""
    values = value if isinstance(value, list) else [value]
    for each in values[-3:]:
        self.emit("output", value=each, by=slot_name)
        if each < 0:
            raise ValueError(f"no good: {each}")
        if each % 2:
            self.emit("odd", value=each - 1)


def imperative(first, second):
    class Works(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.input, **first)
            self.define_slot("other", handler=self.other, **second)
            self.define_event("output", ["value", "by"])
            self.define_event("odd", {"value": int})

        def input(self, value: Any):
            work(self, value, "input")

        def other(self, value: Any):
            work(self, value, "other")

    return Works


def declarative(first, second):
    class Works(Routine):
        output = Event("value", "by")
        odd = Event(value=int)

        @slot(**first)
        def input(self, value: Any):
            work(self, value, "input")

        @slot(**second)
        def other(self, value: Any):
            work(self, value, "other")

    return Works


def run(works, values, engine, strategy):
    flow = Flow("f", engine=engine)
    flow.add_routine(Source(values), "source")
    flow.add_routine(works(), "a")
    flow.add_routine(works(), "b")
    flow.connect("source", "output", "a", "input", {"data": "value"})
    flow.connect("a", "output", "b", "input")
    flow.connect("a", "odd", "b", "other")
    if strategy is not None:
        flow.routines["a"].set_as_optional(strategy)
    state = flow.execute("source")
    return history(state), str(state.status), flow.to_dict(), flow.validate()


OPTIONS = st.fixed_dictionaries({"merge_strategy": st.sampled_from(["override", "append"])})


@examples(40)
@given(
    options=st.tuples(OPTIONS, OPTIONS),
    values=st.lists(st.integers(-1, 5), max_size=6),
    durable=st.booleans(),
    strategy=st.sampled_from([None, "continue", "skip"]),
)
def test_h1_both_forms_of_a_program_give_the_same_history(options, values, durable, strategy):
    found = []
    for make in (imperative, declarative):
        with Engine(store=open_store("memory:") if durable else None) as engine:
            found.append(run(make(*options), values, engine, strategy))
    assert found[0] == found[1]


def test_d2_the_options_of_a_declared_slot_count():
    together = threading.Barrier(2)

    class Meets(Routine):
        @slot(concurrency=2)
        def input(self, data):
            together.wait(LONG)

        @slot(timeout=0.01)
        def late(self, data):
            threading.Event().wait(0.05)

    meets, source = Meets(), Source([1, 2])
    with Flow("f", execution_strategy="concurrent", max_workers=3) as flow:
        flow.add_routine(meets)
        flow.add_routine(source, "source")
        flow.connect("source", "output", "Meets", "input")
        flow.execute("source").raise_for_status()
        state = flow.execute("Meets", {"data": 1}, slot="late")
        assert "longer than its timeout" in state.error.message


def test_d11_the_declarations_of_a_class_hold_nothing_of_its_instances():
    got = []

    class Reads(Routine):
        @slot
        def input(self, data):
            got.append(self)

    first, second = Reads(), Reads()
    flow = chain(Source([1]), first)
    other = chain(Source([1]), second)
    flow.execute("r0").raise_for_status()
    other.execute("r0").raise_for_status()
    assert got == [first, second]


# --- type checkers ------------------------------------------------------------------------------------------------

PROGRAM = """
from collections.abc import Iterator

from routilux import Event, Flow, FunctionRoutine, Routine, Slot, routine, slot


class Source(Routine):
    scored = Event("text", score=float)

    @slot
    def trigger(self, texts: list[str]) -> int:
        for text in texts:
            self.scored.emit(text=text, score=len(text))
        return len(texts)


class Sink(Routine):
    @slot(merge_strategy="append", concurrency=2)
    async def input(self, text: str, score: float = 0.0) -> None: ...


class Longer(Source):
    @slot
    def trigger(self, texts: list[str], more: int = 0) -> int:
        return super().trigger(texts) + Source.trigger(self, texts) + more


@routine
def double(value: int) -> int:
    return 2 * value


@routine(emits="text", concurrency=2)
def words(text: str) -> Iterator[str]:
    yield from text.split()


def bare(one: Slot, routine: FunctionRoutine) -> Slot:
    return routine.define_slot("more", one)


source, sink = Source(), Sink()
flow = Flow("f")
flow.add_routine(source, "source")
flow.add_routine(sink, "sink")
flow.add_routine(words)
flow.connect(source.scored, sink.input)
flow.connect(source.scored, words.input, {"score": "other"})
flow.connect(words.output, sink.input, param_mapping=None)
flow.connect("source", "scored", target_id="sink", slot="input", param_mapping={"text": "score", "score": "text"})
reveal_type(source.trigger(["a"]))
reveal_type(double.new()(3))
reveal_type(words("a b"))
"""

WRONG = {
    "a misspelled event": ("self.scored.emit", "self.scord.emit"),
    "a misspelled event in connect": ("source.scored, sink", "source.scord, sink"),
    "a misspelled slot": ("source.scored, sink.input", "source.scored, sink.inptu"),
    "an argument of the wrong type": ('source.trigger(["a"])', "source.trigger([1])"),
    "an argument of the wrong name": ('source.trigger(["a"])', 'source.trigger(text=["a"])'),
    "an argument of a function": ("double.new()(3)", 'double.new()("3")'),
    "the slot first": ("source.scored, sink.input", "sink.input, source.scored"),
    "the slot of a class": ("source.scored, sink.input", "source.scored, Sink.input"),
    "an option that is none": ("concurrency=2)\n    async", "concurency=2)\n    async"),
}


def test_type_checkers_know_what_is_declared_and_what_is_not(tmp_path):
    mypy = pytest.importorskip("mypy.api")
    files = {"right": PROGRAM}
    for name, (old, new) in WRONG.items():
        assert PROGRAM.count(old) == 1, name
        files[name.replace(" ", "_")] = PROGRAM.replace(old, new)
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    out, _, _ = mypy.run(["--strict", *(str(tmp_path / f"{name}.py") for name in files)])
    said = [(Path(place).stem, text) for place, _, text in (line.partition(".py:") for line in out.splitlines())]
    kinds = [text.split('"')[1] for name, text in said if name == "right" and "Revealed" in text]
    assert kinds == ["int", "int", "typing.Iterator[str]"], out
    wrong = {name for name, text in said if ": error: " in text}
    assert wrong == set(files) - {"right"}, out
