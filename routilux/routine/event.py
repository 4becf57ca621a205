"""Outputs of routines.

An `Event` says which parameters may be emitted, and of which types those are that have one: their validators are
compiled here, once. Each routine has a copy of its own, which knows it and emits through it; `graph/compiling.py`
hands the validators on to the plan, where every emit finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from ..errors import ContextError, DeclarationError
from .binding import Validator, validator_of


class Emitter(Protocol):
    """What an event belongs to."""

    def emit(self, event_name: str, /, **params: Any) -> None:
        """Emit an event."""


@dataclass(frozen=True, eq=False, init=False)
class Event:
    """An output of a routine: an attribute of its class, or made by `Routine.define_event`.

    As an attribute of a `Routine` class it is declared for every instance, under the name of the attribute, and
    ``self.scored`` is then the event of that one routine: ``self.scored.emit(text="...", score=0.5)``.

    ``Event("text", score=float)`` has two parameters, and pydantic validates and coerces what is emitted as ``score``.
    ``Event()`` takes any parameter, `Event.without_parameters` makes one that takes none.

    Args:
        names: the parameters that may be emitted with it and can be anything.
        types: those that have a type, which may be whatever an annotation may be.

    Attributes:
        name: its name; empty before the class that has it is made.
        output_params: the names of its parameters; None when any may be emitted.
        types: the types of those that have one, by name.
        routine: the routine that emits it; None on the class.

    Raises:
        DeclarationError: when a name is no string or there twice, or a type cannot be checked by pydantic.
    """

    name: str
    output_params: tuple[str, ...] | None
    types: Mapping[str, Any]
    routine: Any
    validators: Mapping[str, Validator]

    def __init__(self, /, *names: str, **types: Any) -> None:
        params = (*names, *types) if names or types else None
        self._declare("", params, types, None, "Event")

    @classmethod
    def without_parameters(cls) -> Event:
        """Return an event that carries nothing."""
        return cls._of("", (), "Event")

    @classmethod
    def _of(cls, name: str, params: Iterable[str] | Mapping[str, Any] | None, where: str, routine: Any = None) -> Event:
        """Return the event with parameters in the form that `Routine.define_event` takes them."""
        if params is not None and (isinstance(params, (str, bytes)) or not isinstance(params, Iterable)):
            raise DeclarationError(
                f"{where}: output_params must be a list of names, or map names to types, not {params!r}"
            )
        self = object.__new__(cls)
        names = None if params is None else tuple(params)
        self._declare(name, names, params if isinstance(params, Mapping) else {}, routine, where)
        return self

    def _declare(
        self, name: str, params: tuple[str, ...] | None, types: Mapping[str, Any], routine: Any, where: str
    ) -> None:
        named = all(isinstance(each, str) and each for each in params or ())
        if not named or len(set(params or ())) < len(params or ()):
            raise DeclarationError(f"{where}: output_params must be distinct names, not {list(params or ())!r}")
        validators = {}
        for each, kind in types.items():
            validator = validator_of(kind, f"parameter {each!r}", where)
            if validator is not None:
                validators[each] = validator
        checked = MappingProxyType({each: kind for each, kind in types.items() if each in validators})
        vars(self).update(name=name, output_params=params, types=checked, routine=routine, validators=validators)

    def __set_name__(self, owner: type, name: str) -> None:
        if not self.name:
            vars(self)["name"] = name

    def __get__(self, routine: Any, owner: type | None = None) -> Event:
        return self if routine is None else bound_to(routine, self)

    def _bound(self, routine: Any) -> Event:
        """Return the same event as that of one routine."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), routine=routine)
        return other

    def emit(self, /, **params: Any) -> None:
        """Emit it, as ``routine.emit(name, ...)`` does.

        Raises:
            ContextError: when the routine is not running a handler in this thread, or this is the event of a class.
            PayloadError: when a parameter is not declared, or not of its type.
        """
        emitter: Emitter | None = self.routine
        if emitter is None:
            raise ContextError(f"event {self.name!r} is that of a class; emit that of a routine: self.{self.name}")
        emitter.emit(self.name, **params)

    def __repr__(self) -> str:
        owner = "" if self.routine is None else f" of {type(self.routine).__name__}"
        return f"<Event {self.name!r}{owner}>"


def bound_to(routine: Any, declared: Any) -> Any:
    """Return what a routine has for a class-level declaration.

    One that a subclass has replaced, as found by ``super()``, is no part of the routine; it is bound all the same.
    """
    declaration = getattr(routine, "_declaration", None)
    found = None if declaration is None else declaration.bound.get(declared)
    return declared._bound(routine) if found is None else found
