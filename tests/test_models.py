"""S2-S4: typed state as pydantic models have it: validation of what changes, isolation, aliases, methods, copies."""

from __future__ import annotations

import collections
import copy
import functools
import pickle
from collections import deque
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
import pytest
from parts import Step, attempt, chain, run
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    ValidationInfo,
    field_validator,
    model_validator,
)

from routilux import DeclarationError, ExecutionError, Flow, PathError, StateError
from routilux.core.copying import copy_value


class Item(BaseModel):
    qty: int = Field(default=0, ge=0)
    name: str = ""


class Shelf(BaseModel):
    item: Item = Item()
    row: list[Item] = []
    named: dict[str, Item] = {}
    pair: tuple[Item, int] = (Item(), 0)
    maybe: Item | None = None
    n: int = 0


class Counter(BaseModel):
    count: int = 0
    items: list[int] = []


class Priced(BaseModel):
    """Its validator must run once for a value: it does not leave what it has made alone."""

    price: int = 1
    count: int = 0

    @field_validator("price")
    @classmethod
    def in_cents(cls, value):
        return value * 100


class PricedWhole(Priced):
    @model_validator(mode="after")
    def accepted(self):
        return self


def refused(handler, message, **options):
    """Check that the handler fails with a StateError of which the message is a part; return the state of the job."""
    state = attempt(handler, **options)
    assert state.error is not None, "nothing was refused"
    assert (state.error.type, message in state.error.message) == ("StateError", True), state.error.message
    return state


# --- C: what lies inside -------------------------------------------------------------------------------------------


def change(where):
    """Return how to set ``qty`` of an item of a shelf in place."""
    return {
        "item": lambda state, qty: setattr(state.item, "qty", qty),
        "row.1": lambda state, qty: setattr(state.row[1], "qty", qty),
        "named.a": lambda state, qty: setattr(state.named["a"], "qty", qty),
        "pair.0": lambda state, qty: setattr(state.pair[0], "qty", qty),
        "maybe": lambda state, qty: setattr(state.maybe, "qty", qty),
    }[where]


BEGIN = {"row": [Item(), Item()], "named": {"a": Item()}, "maybe": Item()}
PLACES = ["item", "row.1", "named.a", "pair.0", "maybe"]


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("where", PLACES)
def test_s4_what_changes_inside_nested_models_is_validated_and_coerced(where, edited):
    def sets(qty):
        def handler(ctx):
            if edited:
                with ctx.store.edit_state() as state:
                    change(where)(state, qty)
            else:
                change(where)(ctx.state, qty)

        return handler

    state = refused(sets(-5), f"{where}.qty: Input should be greater", state_schema=Shelf, initial_state=BEGIN)
    assert "given -5" in state.error.message
    assert state.get_shared_data("item").qty == 0
    state = run(sets("7"), state_schema=Shelf, initial_state=BEGIN)
    field, *path = where.split(".")
    found = state.get_shared_data(field)
    for part in path:
        found = found[part] if part == "a" else found[int(part)]
    assert found.qty == 7


@pytest.mark.parametrize("where", PLACES)
def test_s2_a_path_into_nested_models_is_validated_and_coerced(where):
    def handler(ctx):
        with pytest.raises(StateError, match=rf"{where}\.qty: .*given 'bad'"):
            ctx.store.set(f"{where}.qty", "bad")
        ctx.store.set(f"{where}.qty", "7")
        assert ctx.store.get(f"{where}.qty") == 7
        assert ctx.store.get(f"{where}.name") == ""

    run(handler, state_schema=Shelf, initial_state=BEGIN)


def test_s4_a_new_nested_model_is_validated():
    def appends(ctx):
        ctx.state.row.append(Item.model_construct(qty="zz"))

    def assigns(ctx):
        ctx.state.named = {"a": Item.model_construct(qty=-1)}

    refused(appends, "row.0.qty: ", state_schema=Shelf)
    refused(assigns, "named.a.qty: ", state_schema=Shelf)
    refused(lambda ctx: ctx.store.set("item", Item.model_construct(qty=-1)), "item.qty: ", state_schema=Shelf)
    refused(lambda ctx: ctx.store.set_state({"item": Item.model_construct(qty=-1)}), "item.qty: ", state_schema=Shelf)


def test_s4_nested_models_have_their_own_validators_run_once_for_what_changed():
    class Prices(BaseModel):
        rows: list[PricedWhole] = []

    def handler(ctx):
        ctx.state.rows.append(PricedWhole(price=2))
        ctx.store.get("rows")
        ctx.state.rows.insert(0, PricedWhole(price=3))
        ctx.store.get("rows")
        ctx.state.rows[1].count = 5
        ctx.store.set("rows.0.count", 6)
        assert [(row.price, row.count) for row in ctx.store.get("rows")] == [(300, 6), (200, 5)]
        ctx.state.rows[0].price = 4
        assert [row.price for row in ctx.store.get("rows")] == [400, 200]

    run(handler, state_schema=Prices)


def test_s4_instances_of_pydantic_dataclasses_are_copied_and_validated():
    @pydantic.dataclasses.dataclass
    class Point:
        x: int = 0

    class Points(BaseModel):
        point: Point = Field(default_factory=Point)

    def handler(ctx):
        def edit():
            with ctx.store.edit_state() as state:
                state.point.x = 5
                raise KeyError

        with pytest.raises(KeyError):
            edit()
        assert ctx.store.get("point") == Point(0)
        ctx.state.point.x = "7"
        assert ctx.store.get("point") == Point(7)
        ctx.state.point.x = "bad"

    refused(handler, "point.x: ", state_schema=Points)


def test_s2_field_validators_see_the_other_fields_as_they_are():
    class Span(BaseModel):
        low: int = 0
        high: int = 10

        @field_validator("high")
        @classmethod
        def above(cls, value: int, info: ValidationInfo) -> int:
            assert value >= info.data["low"], "high below low"
            return value

    def handler(ctx):
        ctx.state.high = 5
        ctx.state.low = 4
        with pytest.raises(StateError, match="high below low"):
            ctx.store.set("high", 3)
        with ctx.store.edit_state() as state:
            state.high = 3
            state.low = 2

    state = run(handler, state_schema=Span)
    assert (state.get_shared_data("low"), state.get_shared_data("high")) == (2, 3)


@pytest.mark.parametrize("model", [Priced, PricedWhole])
def test_s2_a_value_is_validated_once(model):
    def price(handler=lambda ctx: None, **options):
        return run(handler, state_schema=model, **options).get_shared_data("price")

    assert price(lambda ctx: ctx.store.set("count", 1), initial_state={"price": 2}) == 200
    assert price(initial_state=model(price=2)) == 200
    assert price(lambda ctx: ctx.store.set_state(model(price=2))) == 200
    assert price(lambda ctx: ctx.store.set_state({"price": 2})) == 200
    assert price(lambda ctx: setattr(ctx.state, "price", 2)) == 200

    def gets_and_sets(ctx):
        state = ctx.store.get_state()
        state.count = 1
        ctx.store.set_state(state)
        assert ctx.state.price == 200
        state = ctx.store.get_state()
        state.price = 3
        ctx.store.set_state(state)

    assert price(gets_and_sets, initial_state={"price": 2}) == 300

    flow = chain(Step(lambda step, **_: None), state_schema=model)
    first = flow.execute("r0", initial_state={"price": 2})
    second = flow.execute("r0", job_state=first, initial_state={"count": "3"})
    assert (second.get_shared_data("price"), second.get_shared_data("count")) == (200, 3)
    third = flow.execute("r0", job_state=second, initial_state={"price": 5})
    assert (third.get_shared_data("price"), third.get_shared_data("count")) == (500, 3)


def test_s2_a_model_that_was_given_is_validated_all_the_same():
    def handler(ctx):
        state = ctx.store.get_state()
        state.count = "7"
        ctx.store.set_state(state)
        assert ctx.store.get("count") == 7
        for bad in (state, Counter()):
            bad.count = "bad"
            with pytest.raises(StateError, match="count: "):
                ctx.store.set_state(bad)
        for items in (["1"], [1]):
            given = Counter()
            given.items = items
            ctx.store.set_state(given)
            assert ctx.store.get("items") == [1]

    run(handler, state_schema=Counter)


def test_s2_fields_that_are_read_from_json_text_hold_what_was_in_it():
    class Texts(BaseModel):
        data: Json[list[int]] = []
        n: int = 0

        @model_validator(mode="after")
        def accepted(self):
            return self

    flow = chain(Step(lambda step, **_: step.get_execution_context().store.set("n", 1)), state_schema=Texts)
    for given in ({"data": "[1]"}, Texts(data="[1]")):
        state = flow.execute("r0", initial_state=given)
        state.raise_for_status()
        assert flow.execute("r0", job_state=state).get_shared_data("data") == [1]


def aliased(**config):
    class Aliased(BaseModel):
        model_config = ConfigDict(**config)
        count: int = Field(default=0, alias="Count")
        choice: int = Field(default=0, validation_alias=AliasChoices("one", "two"))
        path: int = Field(default=0, validation_alias=AliasPath("deep", 0))

    return Aliased


class AliasedWhole(aliased()):
    @model_validator(mode="after")
    def accepted(self):
        return self


@pytest.mark.parametrize("model", [aliased(), aliased(populate_by_name=True), AliasedWhole])
def test_s2_names_are_names_of_fields_whatever_the_aliases(model):
    values = {"count": 1, "choice": 2, "path": 3}

    def handler(ctx):
        assert ctx.store.get_state().model_dump() == values
        ctx.state.choice = 5
        ctx.store.set("path", 6)
        assert ctx.state.model_dump() == {"count": 1, "choice": 5, "path": 6}
        ctx.store.set_state({"choice": 7})
        assert ctx.store.get_state().model_dump() == {"count": 0, "choice": 7, "path": 0}

    run(handler, state_schema=model, initial_state=values)
    given = model.model_validate({"Count": 1, "one": 2, "deep": [3]})
    run(lambda ctx: ctx.store.get_state() == given or pytest.fail("differs"), state_schema=model, initial_state=given)
    with pytest.raises(StateError, match="no field 'Count'"):
        attempt(handler, state_schema=model, initial_state={"Count": 1})


def test_s2_what_is_written_from_outside_is_validated_too():
    def pauses(step, **_):
        step.get_execution_context().flow.pause(step.get_execution_context().job_state)

    for handler in (pauses, lambda step, **_: None):
        state = chain(Step(handler), state_schema=Counter).execute("r0")
        with pytest.raises(StateError, match=r"job .*: the state Counter refuses the change: count: .*given 'bad'"):
            state.update_shared_data("count", "bad")
        state.update_shared_data("count", "7")
        state.update_shared_data("beside", "any")
        assert (state.get_shared_data("count"), state.get_shared_data("beside")) == (7, "any")


# --- B: nobody else's containers ------------------------------------------------------------------------------------


class Meddling(BaseModel):
    item: Item = Item()
    bag: dict = {}
    n: int = 0

    @model_validator(mode="after")
    def meddle(self):
        self.item.qty = self.n
        self.bag["n"] = self.n
        if self.n > 5:
            raise ValueError("too many")
        return self


def test_s3_what_a_model_validator_did_before_it_refused_is_not_seen():
    def handler(ctx):
        ctx.store.set("n", 3)
        with pytest.raises(StateError, match="as a whole: Value error, too many"):
            ctx.state.n = 9
        assert ctx.store.get_state().model_dump() == {"item": {"qty": 3, "name": ""}, "bag": {"n": 3}, "n": 3}

    run(handler, state_schema=Meddling)


def test_s3_what_a_field_validator_does_to_other_fields_is_not_seen():
    class Nosy(BaseModel):
        bag: list[int] = []
        n: int = 0

        @field_validator("n")
        @classmethod
        def meddle(cls, value, info):
            info.data["bag"].append(value)
            return value

    def handler(ctx):
        ctx.store.set("n", 3)
        assert ctx.store.get("bag") == []

    run(handler, state_schema=Nosy)


def test_s2_a_cached_property_does_not_become_shared_data():
    class Cached(BaseModel):
        items: list[int] = [1]

        @functools.cached_property
        def total(self):
            return sum(self.items)

        @model_validator(mode="after")
        def positive(self):
            assert self.total >= 0
            return self

    def handler(ctx):
        ctx.store.set("items", [1, 2])
        assert ctx.state.total == 3
        ctx.store.set("items", [1, 2, 3])

    state = run(handler, state_schema=Cached)
    assert state.get_shared_data("total", "none") == "none"


def test_s4_dataclasses_are_copied_as_models_are():
    @dataclass
    class Point:
        items: list

    @dataclass(frozen=True)
    class Fixed:
        items: Any

    @dataclass(slots=True)
    class Slotted:
        items: list

    @dataclass(frozen=True, slots=True)
    class FixedSlotted:
        items: Any

    for kind in (Point, Fixed, Slotted, FixedSlotted):
        original = kind([1])
        copied = copy_value({"a": [original]})["a"][0]
        assert copied == original
        assert type(copied) is kind
        copied.items.append(2)
        assert original.items == [1]
    plain = Fixed((1, "a"))
    assert copy_value([plain])[0] is plain
    point = Point([])
    point.items.append(point)
    copied = copy_value(point)
    assert copied is not point
    assert copied.items[0] is copied

    def handler(ctx):
        def edit():
            with ctx.store.edit_state() as state:
                state["point"].items.append(1)
                raise KeyError

        with pytest.raises(KeyError):
            edit()
        assert ctx.store.get("point").items == []
        ctx.state["point"].items.append(2)

    assert run(handler, initial_state={"point": Point([])}).get_shared_data("point").items == [2]


def test_s4_looking_at_a_dataclass_that_compares_by_identity_writes_nothing():
    @dataclass(eq=False)
    class Point:
        x: int = 0

    state = run(lambda ctx: ctx.state["points"], initial_state={"points": [Point()]})
    assert state._record.revision == 1


# --- frozen ---------------------------------------------------------------------------------------------------------


class Named(BaseModel):
    id: str = Field(default="x", frozen=True)
    tags: list[str] = Field(default=["a"], frozen=True)
    n: int = 0


def test_s2_frozen_fields_are_not_changed():
    def handler(ctx):
        for use in (
            lambda: setattr(ctx.state, "id", "y"),
            lambda: ctx.store.set("id", "y"),
            lambda: ctx.job_state.update_shared_data("id", "y"),
            lambda: ctx.store.set_state({"id": "y"}),
            lambda: ctx.store.set_state({"n": 5}),
        ):
            with pytest.raises(StateError, match="field 'id' of the state Named is frozen"):
                use()
        state = ctx.store.get_state()
        state.n = 1
        ctx.store.set_state(state)
        ctx.store.set_state({"id": "z", "n": 2})
        ctx.store.set("id", "z")
        with ctx.store.edit_state() as state:
            with pytest.raises(StateError, match="frozen"):
                state.id = "y"
            state.n += 1

    state = run(handler, state_schema=Named, initial_state={"id": "z"})
    assert (state.get_shared_data("id"), state.get_shared_data("n")) == ("z", 3)
    refused(lambda ctx: ctx.state.tags.append("b"), "field 'tags' of the state Named is frozen", state_schema=Named)


def test_s2_a_frozen_model_is_only_replaced():
    class Frozen(BaseModel):
        model_config = ConfigDict(frozen=True)
        n: int = 0

    def handler(ctx):
        with pytest.raises(StateError, match="frozen"):
            ctx.state.n = 5
        ctx.store.set_state(Frozen(n=2))
        ctx.store.set_state({"n": ctx.state.n + 1})

    flow = chain(Step(lambda step, **_: handler(step.get_execution_context())), state_schema=Frozen)
    state = flow.execute("r0")
    state.raise_for_status()
    assert state.get_shared_data("n") == 3
    assert flow.execute("r0", job_state=state, initial_state={"n": "9"}).error is None


def test_s4_a_nested_frozen_model_is_validated_when_what_it_holds_has_changed():
    class Fixed(BaseModel):
        model_config = ConfigDict(frozen=True)
        items: list[int] = []

    class Holder(BaseModel):
        fixed: Fixed = Fixed()

    def handler(ctx):
        ctx.state.fixed.items.append("1")
        assert ctx.store.get("fixed.items") == [1]
        ctx.state.fixed.items.append("x")

    refused(handler, "fixed.items.1: ", state_schema=Holder)


# --- private attributes, methods, copies ----------------------------------------------------------------------------


class Rich(BaseModel):
    n: int = 0
    items: list[int] = []
    _seen: list = PrivateAttr(default_factory=list)
    _late: int = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        self._late = 1

    def bump(self) -> None:
        self._seen.append(1)
        self.n += self._late

    @property
    def double(self) -> int:
        return self.n * 2

    @double.setter
    def double(self, value: int) -> None:
        self.n = value // 2


def test_s2_private_attributes_are_set_up_and_methods_and_properties_work():
    def handler(ctx):
        ctx.state.bump()
        ctx.state.bump()
        assert ctx.state._seen == [1, 1]
        assert ctx.state.double == 4
        ctx.state.double = 12
        assert ctx.store.get("n") == 6
        with ctx.store.edit_state() as state:
            state.bump()
        whole = ctx.store.get_state()
        assert whole._seen == []
        whole.bump()
        assert whole.n == 8

    assert run(handler, state_schema=Rich).get_shared_data("n") == 7


def test_s2_the_models_own_way_to_set_attributes_is_taken():
    names = []

    class Noting(BaseModel):
        n: int = 0

        def __setattr__(self, name, value):
            names.append(name)
            super().__setattr__(name, value)

    assert run(lambda ctx: setattr(ctx.state, "n", 1), state_schema=Noting).get_shared_data("n") == 1
    assert names == ["n"]


def test_s2_a_models_hooks_for_subclasses_see_none_of_the_engines():
    seen = []

    class Registry(BaseModel):
        n: int = Field(default=0, alias="N")
        m: int = 0

        def __init_subclass__(cls, **options):
            seen.append(cls)

        @classmethod
        def __pydantic_init_subclass__(cls, **options):
            seen.append(cls)

        @model_validator(mode="after")
        def accepted(self):
            return self

    run(lambda ctx: setattr(ctx.state, "n", 1), state_schema=Registry)
    assert seen == []


@pytest.mark.parametrize(
    "copied",
    [
        lambda state: state.model_copy(),
        lambda state: state.model_copy(deep=True),
        copy.copy,
        copy.deepcopy,
        copy_value,
        lambda state: pickle.loads(pickle.dumps(state)),
    ],
)
def test_s4_a_copy_of_the_state_is_a_plain_model(copied):
    def handler(ctx):
        ctx.state.n = 1
        ctx.state.items.append(1)
        made = copied(ctx.state)
        assert type(made) is Rich
        assert made.model_dump() == {"n": 1, "items": [1]}
        made.items.append(2)
        made.n = 5
        assert (ctx.state.n, ctx.state.items) == (1, [1])
        kept.append(made)

    kept = []
    run(handler, state_schema=Rich)
    assert kept[0].items == [1, 2]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, copy_value, lambda state: pickle.loads(pickle.dumps(state))]
)
def test_s4_a_copy_of_the_mapping_is_a_dict(copied):
    def handler(ctx):
        made = copied(ctx.state)
        assert type(made) is dict
        made["items"].append(1)
        assert ctx.state["items"] == []

    run(handler, initial_state={"items": []})


@pytest.mark.parametrize("model", [Counter, None])
def test_s4_the_state_can_be_emitted_stored_and_returned(model):
    got = []

    def emits(step, **_):
        ctx = step.get_execution_context()
        ctx.job_state.update_routine_state("r0", {"state": ctx.state})
        step.emit("output", data=ctx.state)

    def takes(step, data):
        got.append(data)
        step.get_execution_context().finish(step.get_execution_context().state)

    begin = {"count": 1, "items": [1]}
    state = chain(Step(emits), Step(takes), state_schema=model).execute("r0", initial_state=begin)
    state.raise_for_status()
    whole = Counter(**begin) if model else begin
    assert got == [whole]
    assert state.result == state.get_routine_state("r0")["state"] == whole
    assert type(state.result) is (model or dict)


def test_s2_a_typed_state_says_what_it_cannot():
    def handler(ctx):
        with pytest.raises(StateError, match="'count' cannot be deleted"):
            del ctx.state.count
        with pytest.raises(StateError, match=r"use state\.count"):
            ctx.state["count"] = 1
        with pytest.raises(StateError, match=r"use state\.count"):
            ctx.state["count"]

    run(handler, state_schema=Counter)


def test_s2_an_untyped_state_says_what_it_cannot():
    def handler(ctx):
        with pytest.raises(StateError, match=r"state\['n'\], or give the flow a state_schema"):
            ctx.state.n = 1
        with pytest.raises(AttributeError, match=r"state\['n'\], or give the flow a state_schema"):
            ctx.state.n  # noqa: B018
        with pytest.raises(StateError, match="the state has string keys, not 1"):
            ctx.state[1] = 1
        assert 1 not in ctx.state

    run(handler)


def test_s2_fields_keep_their_order():
    def handler(ctx):
        ctx.state.items = [1]
        ctx.state.count = 2
        assert list(ctx.state.model_dump()) == list(ctx.store.get_state().model_dump()) == ["count", "items"]
        assert ctx.state.model_fields_set == {"count", "items"}
        assert repr(ctx.state) == repr(Counter(count=2, items=[1]))

    run(handler, state_schema=Counter)


def test_s2_a_model_that_allows_more_keeps_to_its_fields():
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        n: int = 0

    def handler(ctx):
        ctx.job_state.update_shared_data("beside", 1)
        ctx.state.n = 1
        assert repr(ctx.state) == repr(ctx.store.get_state()) == "Open(n=1)"

    run(handler, state_schema=Open)


def test_s2_defaults_that_are_made_and_fields_that_are_missing():
    class Made(BaseModel):
        a: int = 1
        b: list[int] = Field(default_factory=lambda: [1])

    flow = chain(Step(lambda step, **_: None), state_schema=Made)
    state = flow.execute("r0")
    del state._record.shared["b"]  # as a state that was saved before the field was added
    assert flow.execute("r0", job_state=state).get_shared_data("b") == [1]


# --- F: messages, paths, sizes --------------------------------------------------------------------------------------


def test_s2_a_root_model_is_no_schema():
    class Numbers(RootModel[list[int]]):
        pass

    with pytest.raises(DeclarationError, match=r"flow 'f': .*not the RootModel Numbers; make its root a field"):
        Flow("f", state_schema=Numbers)


def test_s2_a_nested_root_model_is_validated():
    class Numbers(RootModel[list[int]]):
        root: list[int] = []

    class Holder(BaseModel):
        numbers: Numbers = Numbers()

    def handler(ctx):
        ctx.state.numbers.root.append("1")
        assert ctx.store.get("numbers").root == [1]
        ctx.state.numbers = Numbers([2])
        ctx.state.numbers.root.append("x")

    refused(handler, "numbers.1: ", state_schema=Holder)


def test_s2_what_a_validator_raises_becomes_a_state_error_of_its_field():
    class Odd(BaseModel):
        n: int = 0

        @field_validator("n")
        @classmethod
        def odd(cls, value):
            raise KeyError("oops")

    state = refused(lambda ctx: ctx.store.set("n", 1), "n: its validation raised KeyError: 'oops'", state_schema=Odd)
    assert "given 1" in state.error.message
    assert "flow 'chain', routine 'r0', slot 'input'" in state.error.message


def test_s2_a_field_that_was_changed_badly_is_put_right_by_assigning_it():
    def handler(ctx):
        ctx.state.items.append("bad")
        with pytest.raises(StateError, match=r"items\.0: .*'items' was changed in place: assign it to put it right"):
            ctx.store.set("count", 1)
        if ctx.slot_name:
            ctx.state.items = [1]
        ctx.store.set("count", 2)
        ctx.state.items.append("worse")
        ctx.store.set("items", [3])

    state = run(handler, state_schema=Counter)
    assert (state.get_shared_data("count"), state.get_shared_data("items")) == (2, [3])


@pytest.mark.parametrize("given", [{"count": "bad"}, Counter.model_construct(count="bad")])
def test_s2_a_bad_whole_state_says_which_it_was(given):
    def handler(ctx):
        with pytest.raises(StateError) as caught:
            ctx.store.set_state(given)
        text = str(caught.value)
        assert text.startswith(
            "flow 'chain', routine 'r0', slot 'input': the state given to store.set_state() does not"
        )
        assert "count: Input should be a valid integer" in text

    run(handler, state_schema=Counter)
    with pytest.raises(StateError, match=r"^flow 'chain': the initial state does not fit Counter: count: "):
        attempt(handler, state_schema=Counter, initial_state=given)


def test_s2_a_path_error_says_where_and_what_was_meant():
    def handler(ctx):
        with pytest.raises(
            PathError, match=r"^flow 'chain', routine 'r0', slot 'input': path 'itmes.0': .*mean 'items'"
        ):
            ctx.store.get("itmes.0")
        with pytest.raises(
            PathError, match=r"^flow 'chain', routine 'r0', slot 'input': path 'model\.cont': .*'count'"
        ):
            ctx.store.set("model.cont", 1)
        with pytest.raises(PathError, match=r"^flow 'chain', routine"):
            ctx.store.get("")

    run(handler, initial_state={"items": [], "model": Counter()})


def test_s2_a_path_leaves_containers_what_they_are():
    class Row(list):
        pass

    begin = {
        "counter": collections.Counter(b=1),
        "ordered": collections.OrderedDict(b=1),
        "row": Row([1]),
        "pair": (1, [2]),
        "queue": deque([1], maxlen=3),
    }

    def handler(ctx):
        for path in ("counter.a", "ordered.a", "row.0", "pair.1.0", "pair.-2", "queue.0"):
            ctx.store.set(path, 5)
            assert ctx.store.get(path) == 5

    state = run(handler, initial_state=begin)
    for key, value in begin.items():
        assert type(state.get_shared_data(key)) is type(value)
    assert state.get_shared_data("pair") == (5, [5])
    assert state.get_shared_data("queue").maxlen == 3


@pytest.mark.parametrize("index", ["1_0", "+1", "٣", " 1", "0x1"])
def test_s2_only_plain_numbers_are_indexes(index):
    def handler(ctx):
        with pytest.raises(PathError, match="is no index of a list of 11"):
            ctx.store.set(f"items.{index}", 1)

    run(handler, initial_state={"items": list(range(11))})


class ById(BaseModel):
    names: dict[int, str] = {}


@pytest.mark.parametrize("model", [ById, None])
def test_s2_a_path_names_string_keys_only(model):
    def handler(ctx):
        for use in (lambda: ctx.store.get("names.1"), lambda: ctx.store.set("names.1", "b")):
            with pytest.raises(PathError, match="a part of a path names string keys only, not 1"):
                use()

    run(handler, state_schema=model, initial_state={"names": {1: "a"}})


def test_s5_what_has_no_json_form_does_not_switch_the_limit_off():
    looped: list = []
    looped.append(looped)
    for odd in (object(), looped, {object(): 1}, b"\xff"):
        with pytest.raises(StateError, match=r"^flow 'chain': the state takes .* max_state_bytes=1,048,576"):
            attempt(lambda ctx: None, initial_state={"text": "x" * 2**20, "odd": odd})
        attempt(lambda ctx: None, initial_state={"text": "x", "odd": odd})


def test_l5_a_job_state_must_be_one_and_the_entry_of_the_flow():
    def pauses(step, **_):
        step.get_execution_context().flow.pause(step.get_execution_context().job_state)

    flow = chain(Step(pauses))
    with pytest.raises(ExecutionError, match="expected the JobState of a job, not 'x'"):
        flow.execute("r0", job_state="x")
    state = flow.execute("r0")
    with pytest.raises(DeclarationError, match="has no routine 'nosuch'"):
        flow.execute("nosuch", job_state=state)
    assert flow.execute("r0", job_state=state).status == "completed"


def test_s2_validators_in_annotations_run_once_for_what_changes():
    runs = []

    def noted(value: int) -> int:
        runs.append(value)
        return value

    class Annotations(BaseModel):
        a: Annotated[int, AfterValidator(noted)] = 0
        b: int = 0

    def handler(ctx):
        ctx.store.set("b", 1)
        ctx.store.set_state({"a": 2})
        with ctx.store.edit_state() as state:
            state.a = 3

    run(handler, state_schema=Annotations)
    assert runs == [2, 3]
