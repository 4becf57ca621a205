"""Handlers that take one parameter of a payload, by a name that is chosen, and all others as they are."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from ..errors import DeclarationError
from ..routine.declaration import Routine

Act = Callable[[Any, dict[str, Any]], Any]


def taking(of: str | None, kind: Any, act: Act) -> Callable[..., Any]:
    """Return a handler that calls ``act(value, rest)``, and awaits it if that is a coroutine function.

    Args:
        of: the parameter that is the value; a payload without it is refused as by any handler. None: all of them are.
        kind: the type of the value, by which it is validated; of each parameter, when all are the value.
        act: gets the value, and the other parameters in a dict of its own.

    Raises DeclarationError when ``of`` is no name of a parameter.
    """
    if of is not None:
        check_name(of, "of")
    handle: Any

    def taken(payload: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return (payload, {}) if of is None else (payload.pop(of), payload)

    if inspect.iscoroutinefunction(act):

        async def handle(**payload: Any) -> None:
            await act(*taken(payload))

    else:

        def handle(**payload: Any) -> None:
            act(*taken(payload))

    rest = inspect.Parameter("others" if of == "rest" else "rest", inspect.Parameter.VAR_KEYWORD)
    if of is None:
        parameters = [rest.replace(annotation=kind)]
    else:
        parameters = [inspect.Parameter(of, inspect.Parameter.KEYWORD_ONLY, annotation=kind), rest]
    handle.__signature__ = inspect.Signature(parameters)
    return handle  # type: ignore[no-any-return]


def taken_by(function: Callable[..., Any], where: str, *, coroutines: bool = False) -> Any:
    """Return the annotation of what a function of one value takes, Any when there is none.

    Raises DeclarationError when it is no such function, or a coroutine function where that cannot be awaited.
    """
    if not callable(function) or (inspect.iscoroutinefunction(function) and not coroutines):
        raise DeclarationError(f"{where}: expected a plain function of one value, not {function!r}")
    try:
        first = next(iter(inspect.signature(function).bind(None).arguments))
    except TypeError as error:
        raise DeclarationError(f"{where}: {function!r} cannot be called with one value: {error}") from error
    except ValueError:  # one that is not written in Python may be right all the same
        return Any
    try:
        return typing.get_type_hints(function, include_extras=True).get(first, Any)
    except Exception:  # a callable without annotations, or one of them cannot be resolved
        return Any


def named(pair: Any, where: str) -> tuple[Callable[[Any], Any], str]:
    """Return a pair of a function of one value and a name; raise DeclarationError when it is none."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise DeclarationError(f"{where}: a route is a pair of a predicate and the name of an event, not {pair!r}")
    taken_by(pair[0], where)
    return pair


def where_of(routine: Routine) -> str:
    """Return the flow, the routine and its slot, of which a handler runs, as they stand in error messages."""
    ctx = routine.get_execution_context()
    assert ctx is not None
    return f"flow {ctx.flow_id!r}, routine {ctx.routine_id!r}, slot {ctx.slot_name!r}"


def check_name(name: object, option: str) -> None:
    """Raise DeclarationError unless an option is the name of a parameter."""
    if not isinstance(name, str) or not name.isidentifier():
        raise DeclarationError(f"{option} must be the name of a parameter, not {name!r}")
