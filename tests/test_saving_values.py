"""L4, S3: which values survive saving and loading, and what is said about those that do not."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import Sink
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretStr,
    TypeAdapter,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from routilux import DeclarationError, Flow, JobState, LoadError, Routine, SaveError, Serializer


def flow_for(*kinds, **options):
    flow = Flow("values", **options)
    flow.add_routine(Sink(), "sink")
    flow.register_types(*kinds)
    return flow


def saved(flow, value, serializer=None):
    """Return a job's saved form, through JSON text, with a value in its shared data."""
    state = flow.execute("sink", {"data": 1}, job_id="job")
    state.update_shared_data("key", value)
    return json.loads(json.dumps(state.to_dict(serializer)))


def back(flow, value, serializer=None):
    """Return the value after saving and loading."""
    return JobState.from_dict(saved(flow, value, serializer), flow, serializer).get_shared_data("key")


def same(one, other):
    """Whether two values are equal and of the same classes at every depth; NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(same, one.items(), other.items()))
    return one == other


# --- plain values -----------------------------------------------------------------------------------------------

ATOMS = [
    None,
    True,
    0,
    -(2**63),
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**5000,
    0.1,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "é\u2028\x00",
    "\ud800 alone",
    b"\x00\xff",
    bytearray(b"\xff"),
    1 + 2j,
    complex(math.inf, -0.0),
    datetime(2024, 2, 29, 12, 30, 1, 5),
    datetime(2024, 2, 29, tzinfo=timezone.utc),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-3, seconds=7), "odd")),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    date(2024, 2, 29),
    time(1, 2, 3, 4),
    time(23, tzinfo=timezone.utc),
    timedelta(days=-1, microseconds=3),
    Decimal("1.10"),
    Decimal("-Infinity"),
    UUID(int=7),
    Path("a/b"),
    PurePosixPath("/a"),
    PureWindowsPath("c:\\a"),
    (),
    set(),
    deque([1, (2,)], maxlen=3),
    frozenset({(1, frozenset({2}))}),
    {1: "a", (1, 2): {None: 3}},
    {"~": 1},
    {"a": {"~": "tuple", "v": [1]}},
    {"\ud800": 1},
]


@pytest.mark.parametrize("value", ATOMS, ids=lambda value: type(value).__name__)
def test_l4_a_value_comes_back_as_it_was(value):
    flow = flow_for()
    for each in (value, [value], {"in": [value, "text"]}):
        assert same(back(flow, each), each)


def test_l4_an_aware_datetime_keeps_zone_and_fold():
    for value in ATOMS:
        if isinstance(value, datetime):
            again = back(flow_for(), value)
            assert (again.fold, again.utcoffset(), again.tzname()) == (value.fold, value.utcoffset(), value.tzname())
    parsed = TypeAdapter(datetime).validate_python("2024-02-29T12:00:00+02:00")  # has a zone of pydantic's own
    assert back(flow_for(), parsed) == parsed


ATOM_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(timezone.utc) | st.just(ZoneInfo("Asia/Tokyo")))
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
HASHABLE = ATOM_VALUES | st.lists(ATOM_VALUES, max_size=3).map(tuple) | st.frozensets(ATOM_VALUES, max_size=3)
VALUES = st.recursive(
    HASHABLE | st.just(math.nan),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "~", "v", "\udc00"]) | HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=3)
        | st.lists(inner, max_size=3).map(deque)
    ),
    max_leaves=8,
)


@examples(80)
@given(VALUES)
def test_l4_any_nesting_of_values_comes_back(value):
    assert same(back(flow_for(), value), value)


def test_l4_aliases_become_values_of_their_own():
    shared = [1]
    one, other = back(flow_for(), [shared, shared])
    assert one == other == [1]
    assert one is not other


# --- values of classes ------------------------------------------------------------------------------------------


class Color(Enum):
    RED = ("r", 1)
    GREEN = ("g", 2)


class Size(IntEnum):
    SMALL = 1


class Rights(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: float
    y: Any = None


@dataclass
class Item:
    name: str
    tags: tuple = ()
    made: list = field(init=False, default_factory=list)

    def __post_init__(self):
        if self.name == "":
            raise ValueError("a name is needed")
        self.made.append(self.name)

    @cached_property
    def length(self):
        return len(self.name)


@dataclass(frozen=True, slots=True)
class Frozen:
    item: Item
    color: Color = Color.RED


@pydantic_dataclass
class Checked:
    number: int
    rest: Any = None


class Order(BaseModel):
    model_config = ConfigDict(extra="allow")
    number: int = Field(alias="orderNumber")
    anything: Any = None
    items: list[Point] = []
    _private: int = PrivateAttr(default=0)


class Deep(BaseModel):
    first: int = Field(validation_alias=AliasPath("numbers", 0))
    third: int = Field(validation_alias=AliasPath("numbers", 2))
    other: str = Field(default="x", validation_alias=AliasChoices("oth", "er"))


class Closed(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    when: datetime
    parts: tuple[int, ...] = ()


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


class Numbers(RootModel[list[int]]):
    pass


ITEM = Item("a", (1, (2,)))
OBJECTS = [
    Color.GREEN,
    Size.SMALL,
    Rights.READ | Rights.WRITE,
    Point(1.5, Color.RED),
    {Color.RED: {Size.SMALL: ITEM}},
    ITEM,
    Frozen(ITEM, Color.GREEN),
    Checked("1", (1,)),
    Order(orderNumber=1, anything=(1, {2}, Point(1)), items=[Point(1.0)], more=(3,)),
    Deep(numbers=[1, 2, 3], er="y"),
    Closed(when=datetime(2024, 1, 1), parts=(1,)),
    Box[Item](content=ITEM),
    Numbers([1, 2]),
]
KINDS = [Color, Size, Rights, Point, Item, Frozen, Checked, Order, Deep, Closed, Box[Item], Numbers]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_l4_instances_of_registered_classes_come_back(value):
    flow = flow_for(*KINDS)
    for each in (value, [{"in": (value,)}]):
        assert same(back(flow, each), each)


def test_l4_what_a_model_holds_comes_back_as_it_was_and_unset_fields_stay_unset():
    order = Order(orderNumber=1, anything=(1, {2}))
    again = back(flow_for(Order), order)
    assert (again.anything, again.model_fields_set) == ((1, {2}), {"number", "anything"})


class Text(str):
    pass


class Key(str, Enum):
    A = "a"


def test_l4_keys_and_names_may_be_of_subclasses_of_str():
    flow = flow_for(Key)
    state = flow.execute("sink", {Key.A: 1}, job_id=Key.A, session_id=Text("s"))
    state.update_shared_data(Key.A, 1)
    loaded = flow.restore(state.to_dict())
    assert list(map(type, loaded._record.shared)) == [Key]
    assert (loaded.job_id, type(loaded.job_id), type(loaded.session_id)) == ("a", str, str)
    assert loaded.get_execution_history()[0].data == {"a": 1}
    state.update_shared_data(Text("b"), 1)
    with pytest.raises(SaveError, match=r"shared data .* is 'b' of test_saving_values\.Text"):
        state.to_dict()


def test_l4_private_attributes_and_cached_properties_are_not_kept():
    order, item = Order(orderNumber=1), Item("abc")
    order._private = 5
    assert item.length == 3
    assert back(flow_for(Order, Item), order)._private == 0
    assert "length" not in vars(back(flow_for(Item), item))


class Unit(TypedDict):
    color: Color


Named = NewType("Named", Size)


class Wrapped(BaseModel):
    child: dict[str, list[Frozen | None]]
    inner: Wrapped | None = None


class Takes(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.handle)

    def handle(
        self,
        a: Annotated[Wrapped | None, Field()] = None,
        b: tuple[Unit, ...] = (),
        c: Named | Literal[Rights.READ] | None = None,
        **rest: Box[Point],
    ):
        pass


def test_l4_classes_that_annotations_mention_need_no_registration():
    flow = Flow("annotated")
    flow.add_routine(Takes(), "takes")
    values = [Wrapped(child={}), ITEM, Color.RED, Frozen(ITEM), Size.SMALL, Rights.READ, Point(1.0)]
    values.append(Box[Point](content=Point(1.0)))
    state = flow.execute("takes")
    state.update_shared_data("values", values)
    assert same(flow.restore(state.to_dict()).get_shared_data("values"), values)
    state.update_shared_data("values", [Order(orderNumber=1)])
    with pytest.raises(SaveError, match="Order"):
        state.to_dict()


# --- models with serializers of their own -----------------------------------------------------------------------


class Handle:
    def __init__(self, name):
        self.name = name


class OwnField(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    handle: Handle
    tags: set[str] = set()
    number: float = math.nan

    @field_serializer("handle")
    def _write(self, handle):
        return handle.name

    @field_validator("handle", mode="before")
    @classmethod
    def _read(cls, value):
        return Handle(value) if isinstance(value, str) else value

    @computed_field
    @property
    def twice(self) -> str:
        return self.handle.name * 2


class OwnModel(BaseModel):
    low: int = Field(alias="l")
    high: int = Field(alias="h")

    @model_serializer
    def _write(self):
        return f"{self.low}..{self.high}"

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value):
        return dict(zip("lh", value.split(".."), strict=True)) if isinstance(value, str) else value


Hex = Annotated[int, PlainSerializer(lambda value: f"0x{value:x}")]


class Annotations(BaseModel):
    model_config = ConfigDict(strict=True, alias_generator=str.upper)
    when: datetime
    numbers: list[Hex]

    @field_validator("numbers", mode="before")
    @classmethod
    def _read(cls, value):
        return [int(each, 16) if isinstance(each, str) else each for each in value]


def test_s3_serializers_of_a_model_are_honoured_when_it_is_saved():
    flow = flow_for(OwnField, OwnModel, Annotations)
    own = back(flow, [OwnField(handle=Handle("h"), tags={"a"})])[0]
    assert (own.handle.name, own.tags, math.isnan(own.number)) == ("h", {"a"}, True)
    assert back(flow, OwnModel(l=1, h=2)) == OwnModel(l=1, h=2)
    model = Annotations(WHEN=datetime(2024, 1, 1), NUMBERS=[255])
    assert back(flow, model) == model
    assert '"1..2"' in json.dumps(saved(flow, OwnModel(l=1, h=2)))
    assert "0xff" in json.dumps(saved(flow, model))


class Web(BaseModel):
    url: HttpUrl
    secret: SecretStr | None = None
    kept: Any = Field(default=1, exclude=True)


def test_l4_a_field_that_only_pydantic_can_write_is_written_by_it_unless_it_loses_something():
    flow = flow_for(Web)
    web = Web(url="https://example.com", kept=2)
    again = back(flow, web)
    assert (again.url, again.kept) == (web.url, 1)
    with pytest.raises(SaveError, match=r"shared data 'key'\.secret is SecretStr"):
        back(flow, Web(url="https://example.com", secret="s"))


class Needed(BaseModel):
    client: Any = Field(exclude=True)


def test_l4_an_excluded_field_without_default_is_refused_at_once():
    with pytest.raises(SaveError, match=r"Needed.*'client' is excluded from serialization and has no default"):
        saved(flow_for(Needed), Needed(client=1))


class Breaking(BaseModel):
    number: int

    @field_serializer("number")
    def _write(self, number):
        raise ZeroDivisionError("no")


def test_s3_a_serializer_that_raises_is_named():
    with pytest.raises(SaveError, match=r"shared data 'key'\[0\] cannot be saved: Breaking: .*no"):
        saved(flow_for(Breaking), [Breaking(number=1)])


# --- serializers of the program -----------------------------------------------------------------------------------


class Fractions:
    def serialize(self, value):
        if isinstance(value, Fraction):
            return (value.numerator, value.denominator)
        raise TypeError("only fractions")

    def deserialize(self, data):
        return Fraction(*data)


def test_l4_a_serializer_writes_what_nobody_else_knows():
    flow, value = flow_for(), [Fraction(1, 3), {"x": Fraction(2)}]
    assert isinstance(Fractions(), Serializer)
    assert back(flow, value, Fractions()) == value
    with pytest.raises(LoadError, match=r"'key'.*\[0\] was saved with a serializer; pass the serializer"):
        JobState.from_dict(saved(flow, value, Fractions()), flow)
    with pytest.raises(SaveError, match="object object"):
        saved(flow, object(), Fractions())


def test_l4_a_serializer_that_fails_is_named():
    class Failing(Fractions):
        def serialize(self, value):
            raise KeyError("boom")

    with pytest.raises(SaveError, match="'key' cannot be saved: the serializer failed with KeyError: 'boom'"):
        saved(flow_for(), object(), Failing())

    class Endless(Fractions):
        def serialize(self, value):
            return [object()]

    with pytest.raises(SaveError, match="nested"):
        saved(flow_for(), object(), Endless())


@pytest.mark.parametrize("serializer", [object(), Fractions, "json", 0])
def test_l4_something_else_than_a_serializer_is_refused(serializer):
    flow = flow_for()
    with pytest.raises(DeclarationError, match=r"a serializer has the methods serialize\(value\)"):
        saved(flow, 1, serializer)
    with pytest.raises(DeclarationError, match="a serializer has the methods"):
        JobState.from_dict(saved(flow, 1), flow, serializer)


# --- what cannot be saved -----------------------------------------------------------------------------------------


class Pool:
    def __repr__(self):
        return "<Pool>"


@pytest.mark.parametrize("value", [Text("a"), Counter("a"), True, object(), len, {1}.__iter__(), type, ...])
def test_l4_a_value_of_an_unknown_class_is_an_error_and_never_another_type(value):
    if value is True:
        value = {Text("a"): 1, "a": 1}
    with pytest.raises(SaveError, match=f"{type(value).__name__}|Text"):
        saved(flow_for(), {"list": [value]})


def test_l4_the_error_says_where_the_value_is_and_what_to_do():
    flow = flow_for(Item)
    message = (
        r"^flow 'values': job 'job': shared data 'key'\.name\['pool'\]\[3\] is <Pool> of test_saving_values\.Pool, "
        r"which cannot be saved; register the class \(flow\.register_types\), pass a serializer, or keep it out"
    )
    with pytest.raises(SaveError, match=message):
        saved(flow, Item({"pool": (1, 2, 3, Pool())}))
    state = flow.execute("sink", {"data": {"p": Pool()}})
    with pytest.raises(SaveError, match=r"history of 'sink': 'data'\['p'\] is <Pool>"):
        state.to_dict()


def test_l4_a_value_inside_itself_is_an_error_that_says_where():
    inside: list = []
    inside.extend([inside] * 1000)
    table: dict = {"a": [1]}
    table["a"].append(table)
    for value, path in ((inside, r"\[0\] is a list"), (table, r"\['a'\]\[1\] is a dict")):
        with pytest.raises(SaveError, match=f"shared data 'key'{path} that contains itself"):
            saved(flow_for(), value)
    item = Item("a")
    item.tags = [item]
    with pytest.raises(SaveError, match=r"'key'\.tags\[0\] is a Item that contains itself"):
        saved(flow_for(Item), item)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: (value,), lambda value: {"a": value}])
def test_l4_what_is_nested_too_deeply_is_an_error(wrap):
    value: Any = 1
    for _ in range(60):
        value = wrap(value)
    assert same(back(flow_for(), value), value)
    for _ in range(200):
        value = wrap(value)
    with pytest.raises(SaveError, match="nested"):
        saved(flow_for(), value)


# --- classes that do not fit ------------------------------------------------------------------------------------


def kinds(**changes):
    """Return classes of the same names, as they may look in another version of a program."""

    class Shade(Enum):
        DARK = 1

    class Pair(NamedTuple):
        a: int
        b: int

    @dataclass
    class Data:
        a: int

    class Model(BaseModel):
        a: int

    found = {"Shade": Shade, "Pair": Pair, "Data": Data, "Model": Model, **changes}
    for kind in found.values():
        kind.__qualname__ = kind.__name__
    return found


def load_changed(value_of, **changes):
    old, new = kinds(), kinds(**changes)
    flow = flow_for(*old.values())
    return flow_for(*new.values()).restore(saved(flow, [value_of(old)])).get_shared_data("key")[0]


def test_l4_new_fields_get_their_defaults():
    class Model(BaseModel):
        a: int
        b: list = Field(default_factory=lambda: [2])

    @dataclass
    class Data:
        a: int
        b: list = field(default_factory=lambda: [2])

    class Pair(NamedTuple):
        a: int
        b: int
        c: int = 3

    assert load_changed(lambda old: old["Model"](a=1), Model=Model) == Model(a=1, b=[2])
    assert load_changed(lambda old: old["Data"](1), Data=Data) == Data(1, [2])
    assert load_changed(lambda old: old["Pair"](1, 2), Pair=Pair) == Pair(1, 2, 3)


def test_l4_values_that_no_longer_fit_their_class_are_named():
    class Model(BaseModel):
        a: int = Field(gt=5)
        b: int

    @dataclass
    class Data:
        b: int

    class Pair(NamedTuple):
        a: int

    class Shade(Enum):
        LIGHT = 1

    for value_of, change, message in (
        (
            lambda old: old["Model"](a=1),
            {"Model": Model},
            "Model: a: Input should be greater than 5; b: Field required",
        ),
        (lambda old: old["Data"](1), {"Data": Data}, r"has the fields \['a'\], which Data does not have"),
        (lambda old: old["Pair"](1, 2), {"Pair": Pair}, r"has the fields \['b'\], which Pair does not have"),
        (lambda old: old["Shade"].DARK, {"Shade": Shade}, "is no member of Shade"),
    ):
        with pytest.raises(LoadError, match=rf"flow 'values': job 'job' in the dict: .*'key'\]\[0\] .*{message}"):
            load_changed(value_of, **change)


def test_l4_a_class_that_is_not_known_when_it_is_loaded_is_named():
    data = saved(flow_for(Item), ITEM)
    with pytest.raises(LoadError, match=r"is of class 'Item', which this flow does not know; register it: flow\.regis"):
        flow_for(Color).restore(data)


def test_l4_two_classes_of_one_name_are_refused_when_it_matters():
    one, other = kinds()["Model"], kinds()["Model"]
    with pytest.raises(DeclarationError, match=r"test_saving_values\.Model and .*\.Model have the same qualified name"):
        flow_for(one, other)
    flow = flow_for(one)
    with pytest.raises(DeclarationError, match="have the same qualified name 'Model'"):
        flow.register_types(other)

    class Other(BaseModel):
        field: other

    data = saved(flow, one(a=1))
    both = flow_for(Item)
    both.register_types(Other)
    both._types[one] = None
    assert back(both, ITEM) == ITEM
    for act in (lambda: saved(both, one(a=1)), lambda: both.restore(data)):
        with pytest.raises(DeclarationError, match="have the same qualified name 'Model'"):
            act()


@pytest.mark.parametrize("kind", [Pool, int, Enum, list[int], "Item", ITEM, BaseModel])
def test_l4_only_classes_that_can_be_taken_apart_are_registered(kind):
    with pytest.raises(DeclarationError, match="register_types takes enums, dataclasses, named tuples and pydantic"):
        Flow().register_types(kind)
