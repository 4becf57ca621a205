"""How a payload becomes the arguments of a handler.

All that can be known about a handler is found out once, when its slot is declared: which parameters it names, which
it needs, whether it takes the rest, and a compiled pydantic validator for each annotated one.
"""

from __future__ import annotations

import builtins
import copy
import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from ..core.models import validation_error
from ..errors import DeclarationError
from .resource import Resource, resource_of
from .scope import ExecutionContext

Validator = Callable[[Any], Any]
_NOT_CHECKED = (Any, object, inspect.Parameter.empty)
_NO_TYPES = (int, float, str, bytes, tuple, list, dict, set)


class Misfit(Exception):
    """A payload does not fit a handler; the message names the parameter, the value and the reason."""


class Binding:
    """The compiled call of one handler. ``on_loop``: it is a coroutine function.

    Args:
        handler: the callable; None stands for a slot that only receives.
        where: the slot's name as it stands in error messages.

    Raises:
        DeclarationError: when the handler cannot be called by parameter names, or an annotation cannot be checked.
    """

    __slots__ = (
        "context",
        "direct",
        "given",
        "handler",
        "hints",
        "names",
        "needed",
        "on_loop",
        "resources",
        "rest",
        "rest_validator",
        "sole",
        "validators",
    )

    def __init__(self, handler: Callable[..., Any] | None, where: str) -> None:
        self.handler: Callable[..., Any] = _receive if handler is None else handler
        self.context: str | None = None  # the parameter that gets the context
        self.hints: tuple[Any, ...] = ()  # the annotations of those that a payload is bound to
        self.resources: dict[str, Resource] = {}  # those that get a resource
        self.names: tuple[str, ...] = ()
        self.needed: frozenset[str] = frozenset()
        self.rest = False
        self.validators: dict[str, Validator] = {}
        self.rest_validator: Validator | None = None
        self._read_signature(where)
        self.on_loop = _is_coroutine_function(self.handler)
        # Parameters that never come from the payload.
        self.given = (*self.resources, *((self.context,) if self.context is not None else ()))
        self.sole = self.names[0] if len(self.names) == 1 and not self.rest else None
        # Whether the payload may be passed as it is.
        checks = self.needed or self.validators or self.rest_validator or self.given
        self.direct = self.rest and not checks and not self.on_loop

    def _read_signature(self, where: str) -> None:
        refuse_what_would_not_run(self.handler, where)
        try:
            parameters = inspect.signature(self.handler).parameters.values()
        except (TypeError, ValueError) as error:
            raise DeclarationError(f"{where}: the parameters of handler {self.handler!r} cannot be read") from error
        hints = _annotations(self.handler, parameters, where)
        names, needed = [], []
        if _is_function_of_ctx(self.handler, parameters):
            hints.setdefault("ctx", ExecutionContext)
        for parameter in parameters:
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise DeclarationError(
                    f"{where}: parameter {parameter.name!r} of the handler is positional-only, and a payload is bound "
                    f"by name; remove the '/' from its signature"
                )
            hint = hints.get(parameter.name, Any)
            resource = resource_of(hint, parameter, is_context(hint), where)
            if resource is not None:
                self.resources[parameter.name] = resource
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                continue
            if is_context(hint):
                self.context = parameter.name
                continue
            self.hints += (hint,)
            validator = validator_of(hint, f"parameter {parameter.name!r}", where)
            if parameter.kind is parameter.VAR_KEYWORD:
                self.rest, self.rest_validator = True, validator
                continue
            names.append(parameter.name)
            if validator is not None:
                self.validators[parameter.name] = validator
            if parameter.default is parameter.empty:
                needed.append(parameter.name)
        self.names, self.needed = tuple(names), frozenset(needed)

    def bind(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments for the handler; raise Misfit when the payload does not fit it."""
        if self.rest:
            arguments = dict(payload)
            for name in self.given:
                arguments.pop(name, None)
        elif self.sole is not None and payload and self.sole not in payload:
            return self._bind_whole(self.sole, dict(payload))
        else:
            arguments = {name: payload[name] for name in self.names if name in payload}
        if not self.needed <= arguments.keys():
            missing = ", ".join(repr(name) for name in self.names if name in self.needed - arguments.keys())
            got = ", ".join(repr(name) for name in payload) or "nothing"
            raise Misfit(f"parameter {missing} is missing; the payload has {got}")
        for name, validator in self.validators.items():
            if name in arguments:
                arguments[name] = _checked(validator, name, arguments[name])
        if self.rest_validator is not None:
            for name in arguments.keys() - set(self.names):
                arguments[name] = _checked(self.rest_validator, name, arguments[name])
        return arguments

    def _bind_whole(self, name: str, payload: dict[str, Any]) -> dict[str, Any]:
        validator = self.validators.get(name)
        if validator is None:
            return {name: payload}
        try:
            return {name: _checked(validator, name, payload)}
        except Misfit as misfit:
            raise Misfit(f"{misfit} (the payload has no {name!r}, so that all of it was passed)") from misfit.__cause__

    def calling(self, handler: Callable[..., Any] | None) -> Binding:
        """Return the same for another handler of the same signature."""
        other = copy.copy(self)
        other.handler = _receive if handler is None else handler
        return other

    def accepts(self, name: str) -> bool:
        """Whether the handler takes a parameter of this name."""
        return name in self.names or (self.rest and name not in self.given)


def is_context(hint: Any) -> bool:
    """Whether an annotation names the context, also as one of the types of a union."""
    kinds = (typing.get_origin(each) or each for each in (hint, *typing.get_args(hint)))
    return any(ExecutionContext in getattr(kind, "__mro__", ()) for kind in kinds)


def _receive(**payload: Any) -> None:
    """Stand in for a slot without a handler: what arrives is recorded, and nothing happens."""


def refuse_what_would_not_run(handler: object, where: str) -> None:
    """Raise DeclarationError for what is no function, or one whose body calling it would not run."""
    if not callable(handler):
        raise DeclarationError(f"{where}: the handler must be callable, not {handler!r}")
    for function in functions_of(handler):
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DeclarationError(
                f"{where}: handler {handler!r} is a generator function, whose body would never run; "
                f"emit each item instead of yielding it"
            )


def functions_of(handler: object) -> tuple[object, object]:
    """Return what may be the function behind a handler: itself, or the method that calling it calls."""
    return handler, None if inspect.isclass(handler) else getattr(handler, "__call__", None)  # noqa: B004 - the method is wanted


def _is_coroutine_function(handler: object) -> bool:
    return any(inspect.iscoroutinefunction(function) for function in functions_of(handler))


def _is_function_of_ctx(handler: object, parameters: Iterable[inspect.Parameter]) -> bool:
    """Whether a handler is a function, not a method, whose first parameter has the name of the context."""
    first = next((each for each in parameters if each.kind is not each.VAR_POSITIONAL), None)
    return inspect.isfunction(handler) and first is not None and first.name == "ctx"


def _annotations(handler: Callable[..., Any], parameters: Iterable[inspect.Parameter], where: str) -> dict[str, Any]:
    """Return the annotations of parameters, those that stand in quotes (or are not evaluated) resolved."""
    noted = {each.name: each.annotation for each in parameters if each.annotation is not each.empty}
    try:
        # get_type_hints takes whatever has __annotations__.
        holder = SimpleNamespace(__annotations__=noted)
        return typing.get_type_hints(holder, globals_of(handler), include_extras=True)
    except Exception as error:  # an annotation is an expression, and may raise anything
        raise DeclarationError(
            f"{where}: an annotation of handler {handler!r} cannot be resolved: {error}; import its names at the top "
            f"of the module, not only for type checking and not inside a function"
        ) from error


def globals_of(handler: Callable[..., Any]) -> dict[str, Any]:
    """Return the global names of the function whose signature a callable has."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    function: Any = inspect.unwrap(handler)
    if inspect.isclass(function):
        function = function.__init__
    elif not (inspect.isroutine(function)):
        function = type(function).__call__
    return getattr(inspect.unwrap(function), "__globals__", {})


def returned_type(function: Callable[..., Any]) -> Any:
    """Return the annotation of what a callable returns, resolved; None when it has none, or it cannot be resolved.

    A class returns its instances.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        return function
    if not inspect.isroutine(function):
        function = type(function).__call__
    noted = getattr(function, "__annotations__", {}).get("return")
    if not isinstance(noted, str):
        return noted
    try:
        names = globals_of(function)
        named = names.get(noted, vars(builtins).get(noted))
        if inspect.isclass(named):  # as most are; to compile an annotation takes longer than a commit
            return named
        holder = SimpleNamespace(__annotations__={"return": noted})
        return typing.get_type_hints(holder, names, include_extras=True)["return"]
    except Exception:  # an annotation is an expression, and may raise anything
        return None


def validator_of(hint: Any, what: str, where: str) -> Validator | None:
    """Return what validates ``what`` against its annotation, None when that allows anything.

    Raises DeclarationError when pydantic cannot check it.
    """
    if hint in _NOT_CHECKED:
        return None
    import pydantic

    try:
        if isinstance(hint, _NO_TYPES):
            raise TypeError("it is a value, not a type")
        try:
            config = pydantic.ConfigDict(arbitrary_types_allowed=True)
            adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(hint, config=config)
        except pydantic.PydanticUserError:  # models and dataclasses bring their own config
            adapter = pydantic.TypeAdapter(hint)
        return adapter.validator.validate_python
    except Exception as error:
        raise DeclarationError(
            f"{where}: the annotation {hint!r} of {what} cannot be checked by pydantic: {error}"
        ) from error


def _checked(validator: Validator, name: str, value: Any) -> Any:
    return check_value(validator, f"parameter {name!r}", value, name)


def check_value(validator: Validator, what: str, value: Any, name: str | None = None) -> Any:
    """Return a value as its annotation wants it; raise Misfit, which names it and its parts, when it does not fit."""
    try:
        return validator(value)
    except validation_error() as error:
        problems = "; ".join(
            ": ".join(part for part in (_place(name, problem["loc"]), problem["msg"]) if part)
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise Misfit(f"{what} = {shortened(value)} is not valid: {problems}") from error


def _place(name: str | None, steps: Iterable[Any]) -> str:
    return ".".join(str(part) for part in (name, *steps) if part is not None)


def shortened(value: object, most: int = 200) -> str:
    """Return the repr of a value, cut to about ``most`` characters; a repr that raises is replaced."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= most else f"{text[:most]}..."
