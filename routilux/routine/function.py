"""Routines made of functions.

`routine` makes a class for a function, with one slot, ``input``, and one event, ``output``, and returns an instance.
The handler of the slot has the signature of the function, so that a payload is bound to it as to any handler; it calls
the function and emits what that returns, or each thing that it yields.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, closing
from typing import Any, Generic, NoReturn, Protocol, cast

from typing_extensions import Never, Self, is_typeddict, overload

from ..errors import DeclarationError, PayloadError
from .binding import shortened
from .declaration import Routine
from .event import Event
from .from_function import resolved
from .method import SlotMethod
from .scope import ExecutionContext
from .slot import MergeFunction, P, R, Slot, SlotOptions

ITERATORS = (AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator)
UNIONS = (typing.Union, types.UnionType)
NOTHING = (type(None), Never, NoReturn)
UNFINISHED = (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType)
EMPTY = inspect.Signature.empty

Emits = str | Iterable[str] | None


class FunctionRoutine(Routine, Generic[P, R]):
    """A routine made of a function by `routine`. Calling it calls the function.

    Attributes:
        input: its slot, whose handler has the parameters of the function.
        output: its event. A function that is annotated to return None has none.
    """

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]
    input: Slot[..., Any]
    output: Event

    def __init__(self) -> None:
        super().__init__()
        functools.update_wrapper(self, self._function, updated=())

    @staticmethod
    def _function(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, which is no part of any job then, and return what it returns."""
        result: R = self._function(*args, **kwargs)
        return result

    def new(self) -> Self:
        """Return another routine of the same function: a flow has room for each routine once.

        Its configuration and its error handler are its own, and not set yet.
        """
        return type(self)()

    def __repr__(self) -> str:
        return f"<routine {type(self).__name__!r}>"


class RoutineMaker(Protocol):
    """Makes a routine of a function: what ``@routine(...)`` is."""

    def __call__(self, function: Callable[P, R], /) -> FunctionRoutine[P, R]:
        """Return the routine."""


@overload
def routine(function: Callable[P, R], /) -> FunctionRoutine[P, R]: ...


@overload
def routine(
    *,
    emits: Emits = "value",
    merge_strategy: str | MergeFunction = "override",
    concurrency: int = 1,
    timeout: float | None = None,
    gather: int | str | None = None,
    key: str | None = None,
    rest: str | None = None,
    external: bool = False,
    deadline: float | None = None,
) -> RoutineMaker: ...


def routine(function: Any = None, /, *, emits: Emits = "value", **options: Any) -> Any:
    """Make a routine of a function, with the slot ``input`` and the event ``output``.

    A payload is bound to the parameters of the function as to those of any handler: see `Routine.define_slot`. What it
    returns is emitted, unless it is None; of a generator function, each thing that it yields, as soon as it is
    yielded, None included. ``def`` and ``async def`` both work. What is emitted is validated by pydantic when the
    function is annotated with what it returns, or with an iterator of what it yields.

    The routine is of a class of its own that has the name of the function; that is also its id in a flow, unless it is
    given another. It can be called like the function.

    Args:
        function: the function; ``@routine`` and ``@routine(...)`` both work.
        emits: as which parameter of ``output`` a value is emitted. Several names: a value is a mapping, and each
            name one of its keys. None: a value is a mapping of any keys.
        options: those of `Routine.define_slot`.

    Raises:
        DeclarationError: for anything but a function, when it cannot be called with a payload, an annotation cannot be
            resolved or checked, or an option is out of range.
    """

    def make(of: Any) -> Any:
        # Annotations that are text may name classes of the function in which the routine is defined.
        caller = sys._getframe(1)
        return _class_of(of, {} if caller.f_locals is caller.f_globals else caller.f_locals, emits, options)()

    if function is None:
        return make
    caller = sys._getframe(1)
    return _class_of(function, {} if caller.f_locals is caller.f_globals else caller.f_locals, emits, options)()


def _class_of(
    function: Callable[..., Any], names: Mapping[str, Any], emits: Emits, options: Mapping[str, Any]
) -> type[FunctionRoutine[..., Any]]:
    """Return the class of the routine that a function becomes; ``names`` are known to its annotations."""
    if not (inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function)):
        raise DeclarationError(f"a routine is made of a function (def or async def), not of {function!r}")
    name = function.__name__
    where = f"routine {name!r}"
    around = function.__qualname__.rpartition(".")[0]
    if inspect.isfunction(function) and around and not around.endswith("<locals>"):
        raise DeclarationError(f"{where}: {function.__qualname__} is a method; make it a slot of its class with @slot")
    checked = SlotOptions.of(options, where)
    emits = emits if emits is None or isinstance(emits, str) or not isinstance(emits, Iterable) else tuple(emits)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise DeclarationError(f"{where}: the parameters of {function!r} cannot be read") from error
    kind = _emitted(function, signature, names, where)
    silent = not _yields(function) and any(kind is each for each in NOTHING)
    body = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "_function": staticmethod(function),
        "input": SlotMethod(_Handler(function, _of_handler(function, signature, names, where), emits), None, checked),
        **({} if silent else {"output": _event(emits, kind, f"{where}: emits")}),
    }
    return cast("type[FunctionRoutine[..., Any]]", type(name, (FunctionRoutine,), body))


def _of_handler(
    function: Callable[..., Any], signature: inspect.Signature, names: Mapping[str, Any], where: str
) -> inspect.Signature:
    """Return the signature of the handler: that of the function, without what it returns."""
    bare = resolved(signature.replace(return_annotation=EMPTY), function, names, where)
    parameters = list(bare.parameters.values())
    if parameters and parameters[0].name == "ctx" and parameters[0].annotation is EMPTY:
        parameters[0] = parameters[0].replace(annotation=ExecutionContext)
    return bare.replace(parameters=parameters)


# --- what is emitted ----------------------------------------------------------------------------------------------


def _yields(function: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _emitted(function: Callable[..., Any], signature: inspect.Signature, names: Mapping[str, Any], where: str) -> Any:
    """Return the type of what is emitted, Any when that is not annotated or cannot be resolved."""
    try:
        annotation = resolved(signature.replace(parameters=()), function, names, where).return_annotation
    except DeclarationError:  # nobody needs it to call the function
        return Any
    if annotation is EMPTY:
        return Any
    if _yields(function):
        items = typing.get_args(annotation)
        return items[0] if items and typing.get_origin(annotation) in ITERATORS else Any
    if typing.get_origin(annotation) in UNIONS:  # None is never emitted
        kinds = tuple(each for each in typing.get_args(annotation) if each is not type(None))
        return typing.Union[kinds]  # noqa: UP007 - of however many there are
    return annotation


def _event(emits: Any, kind: Any, where: str) -> Event:
    """Return the event of a function that emits things of a kind."""
    if emits is None:
        return Event._of("", None, where)
    if isinstance(emits, str):
        return Event._of("", {emits: kind}, where)
    if not isinstance(emits, tuple):
        raise DeclarationError(f"{where} must be a name, several names, or None, not {emits!r}")
    if is_typeddict(kind):
        kinds = typing.get_type_hints(kind)
        return Event._of("", {each: kinds.get(each, Any) for each in emits}, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return Event._of("", dict.fromkeys(emits, arguments[1]), where)
    return Event._of("", emits, where)


class _Handler:
    """The handler of the slot, as a method: calls the function, and emits what comes of it."""

    def __init__(self, function: Callable[..., Any], signature: inspect.Signature, emits: str | Iterable[str] | None):
        self.function = function
        self.signature = signature
        self.emits = emits
        vars(self).update(__doc__=function.__doc__)

    def __get__(self, routine: FunctionRoutine[..., Any], owner: type) -> Any:
        handle = self._handle(functools.partial(self._emit, routine), functools.partial(self._emit_result, routine))
        functools.update_wrapper(handle, self.function, updated=())
        handle.__signature__ = self.signature
        return handle

    def _handle(self, emit: Callable[[Any], None], emit_result: Callable[[Any], None]) -> Any:
        function = self.function
        handle: Any
        if inspect.isgeneratorfunction(function):

            def handle(**given: Any) -> None:
                with closing(function(**given)) as items:
                    for item in items:
                        emit(item)

        elif inspect.isasyncgenfunction(function):

            async def handle(**given: Any) -> None:
                async with aclosing(function(**given)) as items:
                    async for item in items:
                        emit(item)

        elif inspect.iscoroutinefunction(function):

            async def handle(**given: Any) -> None:
                emit_result(await function(**given))

        else:

            def handle(**given: Any) -> None:
                emit_result(function(**given))

        return handle

    def _emit_result(self, routine: FunctionRoutine[..., Any], value: Any) -> None:
        """Emit what the function has returned."""
        if isinstance(value, UNFINISHED):
            if isinstance(value, types.CoroutineType):
                value.close()
            raise PayloadError(
                f"{self._where(routine)} has returned a {type(value).__name__}, whose body has not run; put @routine "
                f"right above the function that yields or awaits"
            )
        if value is not None:
            self._emit(routine, value)

    def _emit(self, routine: FunctionRoutine[..., Any], value: Any) -> None:
        """Emit what the function has returned, or yielded."""
        if isinstance(self.emits, str):
            routine.emit("output", **{self.emits: value})
        elif isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            routine.emit("output", **value)
        else:
            keys = "" if self.emits is None else f" with the keys {', '.join(map(repr, self.emits))}"
            raise PayloadError(
                f"{self._where(routine)} must give a mapping of names to values{keys}, because of "
                f"emits={self.emits!r}, and not {shortened(value)}"
            )

    def _where(self, routine: FunctionRoutine[..., Any]) -> str:
        ctx = routine.get_execution_context()
        where = "" if ctx is None else f"flow {ctx.flow_id!r}: routine {ctx.routine_id!r}: "
        return f"{where}function {self.function.__qualname__}"
