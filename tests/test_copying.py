"""B8 and S4: what is copied between writers and readers, and what they share."""

from __future__ import annotations

import copy
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, get_type_hints

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from routilux import Flow
from routilux.core import models
from routilux.core.copying import copy_payload, copy_value, needs_copy


class Item(BaseModel):
    name: str = "a"
    tags: list[Any] = []


class Order(BaseModel):
    model_config = ConfigDict(extra="allow")

    items: list[Item] = []
    _cache: dict[str, Any] = PrivateAttr(default_factory=dict)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)

    tags: list[Any] = []


class Names(RootModel[list[Any]]):
    pass


class Node(BaseModel):
    other: Any = None


class Point(NamedTuple):
    x: Any
    y: Any = 0


OldPoint = namedtuple("OldPoint", ["x", "y"])


class Pair(tuple):
    """A tuple class with a constructor of its own."""

    __slots__ = ()

    def __new__(cls, first, second):
        return super().__new__(cls, (first, second))


class Stack(list):
    pass


class Table(dict):
    pass


class ReadOnly(dict):
    """A dict that its users cannot change, as web frameworks hand them out."""

    def __setitem__(self, key, value):
        raise TypeError("read-only")

    def __reduce__(self):
        return ReadOnly, (dict(self),)


class MultiDict(dict):
    """A dict of lists whose shallow copy has lists of its own, and which shows the first of each, as for forms."""

    def items(self):
        return [(key, values[0]) for key, values in super().items()]

    def __copy__(self):
        return MultiDict({key: list(self[key]) for key in self})


class Handle:
    def __init__(self):
        self.data: list[Any] = []


class Color(Enum):
    RED = 1


# --- the invariant ------------------------------------------------------------------------------------------------

ATOMS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3), st.binary())
KEYS = st.text(max_size=3)


def containers(children):
    lists = st.lists(children, max_size=3)
    dicts = st.dictionaries(KEYS, children, max_size=3)
    return st.one_of(
        lists,
        dicts,
        lists.map(tuple),
        lists.map(deque),
        lists.map(lambda items: deque(items, maxlen=5)),
        lists.map(Stack),
        dicts.map(Table),
        dicts.map(OrderedDict),
        dicts.map(lambda items: defaultdict(list, items)),
        st.sets(ATOMS, max_size=3),
        st.binary(max_size=3).map(bytearray),
        st.builds(Point, children, children),
        st.builds(OldPoint, children, children),
        st.builds(Item, tags=lists),
        st.builds(lambda tags: Frozen(tags=tags), lists),
        lists.map(Names),
        st.builds(lambda tags, more: Order(items=[Item(tags=tags)], more=more), lists, children),
    )


VALUES = st.recursive(ATOMS, containers, max_leaves=12)


def spoil(value):
    """Change every container inside a value, at every depth."""
    if isinstance(value, BaseModel):
        spoil(value.__dict__)
        spoil(value.__pydantic_extra__)
        spoil(value.__pydantic_private__)
    elif isinstance(value, dict):
        for item in list(value.values()):
            spoil(item)
        if value.keys() != {"root"}:  # the text of a root model names it
            dict.__setitem__(value, "spoiled", True)
    elif isinstance(value, (list, tuple, deque)):
        for item in value:
            spoil(item)
        if not isinstance(value, tuple):
            value.append("spoiled")
    elif isinstance(value, set):
        value.add("spoiled")
    elif isinstance(value, bytearray):
        value.extend(b"spoiled")


@given(VALUES)
def test_b8_a_copy_equals_its_original_and_no_change_of_it_shows_there(value):
    kept = copy.deepcopy(value)
    copied = copy_value(value)
    assert copied == value
    assert type(copied) is type(value)
    spoil(copied)
    assert value == kept


@given(VALUES)
def test_b8_no_change_of_an_original_shows_in_its_copy(value):
    copied = copy_value(value)
    kept = copy.deepcopy(copied)
    spoil(value)
    assert copied == kept


@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_b8_a_payload_is_copied_value_by_value(payload):
    kept = copy.deepcopy(payload)
    copied = copy_payload(payload)
    assert copied == payload
    assert list(copied) == list(payload)
    spoil(copied)
    assert payload == kept


@given(st.dictionaries(KEYS, ATOMS))
def test_b8_a_payload_of_atoms_needs_no_copy_of_its_values(payload):
    assert not needs_copy(payload)
    assert needs_copy({**payload, "more": []})


# --- kinds of containers ------------------------------------------------------------------------------------------


def test_b8_a_defaultdict_keeps_its_factory():
    original = defaultdict(list, a=[1])
    copied = copy_value(original)
    copied["a"].append(2)
    copied["new"].append(3)
    assert original == {"a": [1]}
    assert copied == {"a": [1, 2], "new": [3]}


def test_b8_an_ordered_dict_keeps_its_order_and_its_methods():
    original = OrderedDict(b=[1], a=[2])
    copied = copy_value(original)
    copied.move_to_end("b")
    assert (list(original), list(copied)) == (["b", "a"], ["a", "b"])


def test_b8_a_deque_keeps_its_bound():
    copied = copy_value(deque([[1], [2]], maxlen=2))
    copied.append([3])
    assert copied == deque([[2], [3]])


def test_b8_a_counter_stays_a_counter():
    copied = copy_value(Counter("aab"))
    assert copied.most_common(1) == [("a", 2)]
    assert type(copied) is Counter


def test_b8_subclasses_of_list_and_dict_keep_their_class_and_attributes():
    for original in (Stack([[1]]), Table(a=[1])):
        original.label = "mine"
        copied = copy_value(original)
        assert type(copied) is type(original)
        assert copied.label == "mine"


def test_b8_named_tuples_keep_their_class():
    for kind in (Point, OldPoint):
        original = kind([1], 2)
        copied = copy_value(original)
        copied.x.append(2)
        assert type(copied) is kind
        assert original == ([1], 2)


def test_b8_a_tuple_class_with_a_constructor_of_its_own_is_no_error():
    original = Pair([1], 2)
    copied = copy_value(original)
    assert type(copied) is Pair
    assert copied == original


def test_b8_a_dict_that_refuses_changes_is_no_error():
    original = ReadOnly(a=[1])
    copied = copy_value(original)
    assert type(copied) is ReadOnly
    assert copied == original


def test_b8_dicts_with_ways_of_their_own_keep_all_that_they_hold():
    original = [MultiDict(a=[[n], 2], b=[-n]) for n in range(50)]
    copied = copy_value(original)
    assert copied == original
    copied[0]["a"][0].append("mine")
    copied[0]["a"].append("mine")
    assert original[0] == {"a": [[0], 2], "b": [0]}


def test_b8_sets_and_bytearrays_are_copied():
    original = {"set": {1}, "bytes": bytearray(b"x")}
    spoil(copy_value(original))
    assert original == {"set": {1}, "bytes": bytearray(b"x")}


# --- models -------------------------------------------------------------------------------------------------------


def test_b8_a_model_is_copied_with_its_extra_and_private_attributes():
    original = Order(items=[Item(tags=[1])], more={"deep": [1]})
    original._cache["seen"] = [1]
    copied = copy_value(original)
    assert copied == original
    copied.items[0].tags.append(2)
    copied.more["deep"].append(2)
    copied._cache["seen"].append(2)
    copied.items.append(Item())
    assert original.model_dump() == {"items": [{"name": "a", "tags": [1]}], "more": {"deep": [1]}}
    assert original._cache == {"seen": [1]}


def test_b8_root_models_in_one_value_keep_their_own_contents():
    """Copying one makes a short-lived list, whose memory the next one may get."""
    original = [Names([]), Names([None]), Names([[1]])]
    copied = copy_value(original)
    assert [names.root for names in copied] == [[], [None], [[1]]]
    copied[2].root[0].append(2)
    assert original[2].root == [[1]]


def test_b8_a_model_remembers_which_fields_were_set():
    copied = copy_value(Item(tags=[[1]]))
    assert copied.model_fields_set == {"tags"}
    assert copied.model_dump(exclude_unset=True) == {"tags": [[1]]}


def test_b8_a_frozen_model_is_isolated_inside_and_stays_frozen():
    original = Frozen(tags=[1])
    copied = copy_value(original)
    copied.tags.append(2)
    assert original.tags == [1]
    with pytest.raises(ValueError, match="frozen"):
        copied.tags = []


def test_b8_a_model_is_not_validated_again():
    item = Item.model_construct(name=5, tags=[])
    assert copy_value(item).name == 5


def test_b8_assigning_to_a_copied_model_leaves_the_original():
    original = Item()
    copy_value(original).name = "b"
    assert original.name == "a"


# --- aliases and cycles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [list, lambda: [[1]], dict, set, deque, bytearray, Item, lambda: Point([1]), lambda: ([1],)]
)
def test_b8_two_names_for_one_container_are_two_names_for_one_copy(make):
    shared = make()
    pair = copy_value([shared, shared])
    assert pair[0] is pair[1]
    assert pair[0] is not shared
    payload = copy_payload({"a": shared, "b": {"deep": shared}})
    assert payload["a"] is payload["b"]["deep"]


def test_b8_a_list_that_holds_itself():
    original = [1]
    original.append(original)
    copied = copy_value(original)
    assert copied is not original
    assert copied[1] is copied


def test_b8_a_dict_that_holds_itself():
    original = {}
    original["me"] = original
    copied = copy_value(original)
    assert copied is not original
    assert copied["me"] is copied


def test_b8_a_deque_that_holds_itself():
    original = deque()
    original.append(original)
    copied = copy_value(original)
    assert copied is not original
    assert copied[0] is copied


def test_b8_a_model_that_holds_itself():
    original = Node()
    original.other = [original]
    copied = copy_value(original)
    assert copied is not original
    assert copied.other[0] is copied


def test_b8_a_cycle_through_a_tuple():
    inner = []
    original = (inner, 1)
    inner.append(original)
    for copied in (copy_value(original), copy_value(inner)[0]):
        assert copied is not original
        assert copied[0] is not inner
        assert copied[0][0] is copied


# --- what is shared -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing",
    [Handle(), threading.Lock(), datetime.now, len, Handle, Color.RED, frozenset({1}), object(), iter([1]), 2**100],
    ids=lambda thing: type(thing).__name__,
)
def test_b8_any_other_object_is_shared_at_every_depth(thing):
    assert copy_value(thing) is thing
    assert copy_value([{"a": (thing, [])}])[0]["a"][0] is thing
    assert copy_value(Node(other=[thing])).other[0] is thing
    assert copy_payload({"a": thing})["a"] is thing


def test_b8_a_copied_list_shares_the_objects_it_holds():
    handle = Handle()
    copied = copy_value([handle])
    copied[0].data.append(1)
    assert handle.data == [1]


def test_b8_a_nesting_as_deep_as_json_goes_is_copied():
    value = leaf = []
    for _ in range(100):
        leaf.append({"a": []})
        leaf = leaf[0]["a"]
    assert copy_value(value) == value


# --- models, told without importing pydantic ------------------------------------------------------------------------


@checked_dataclass
class Checked:
    n: int = 0


class Pretender:
    """Says that it is a model, as stand-ins of libraries for tests do."""

    __class__ = Item


@pytest.mark.parametrize(
    "value",
    [
        Item(),
        Names([1]),
        Order(extra=1),
        Pretender(),
        Item,
        BaseModel,
        Checked(),
        Point(1),
        datetime.now(),
        object(),
        None,
    ],
    ids=lambda value: getattr(type(value), "__name__", ""),
)
def test_what_is_a_model_is_an_instance_of_the_base_class_of_models(value):
    assert models.is_model(value) is isinstance(value, BaseModel)
    assert isinstance(value, models.BaseModel) is isinstance(value, BaseModel)


@pytest.mark.parametrize("kind", [Item, Names, BaseModel, Checked, Point, int, type])
def test_the_class_of_a_model_derives_from_the_base_class_of_models(kind):
    assert models.is_model_class(kind) is issubclass(kind, BaseModel)
    assert issubclass(kind, models.BaseModel) is issubclass(kind, BaseModel)


def test_annotations_of_public_methods_can_be_evaluated_and_stand_for_models():
    hint = get_type_hints(Flow.execute)["initial_state"]
    adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    item = Item()
    for given_state in (item, {"a": 1}, None):
        assert adapter.validate_python(given_state) == given_state
    with pytest.raises(ValidationError):
        adapter.validate_python(7)
