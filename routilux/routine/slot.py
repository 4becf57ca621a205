"""Inputs of routines, and the options that all ways to declare one share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic

from typing_extensions import ParamSpec, TypeVar

from ..core.numbers import seconds, whole
from ..errors import DeclarationError, known_names
from .binding import Binding
from .gathering import deadline_of, gather_of

MOST_AT_A_TIME = 1_000_000
MERGE_STRATEGIES = ("override", "append")

P = ParamSpec("P", default=...)
R = TypeVar("R", default=Any, covariant=True)
MergeFunction = Callable[[dict[str, Any], dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class SlotOptions:
    """How a slot takes in what arrives. `Routine.define_slot` says what each option means.

    An option is a field here and checked in `checked`; a `Slot` has all of them. Each way to declare a slot names them
    once more, in its signature.
    """

    merge_strategy: str | MergeFunction = "override"
    concurrency: int = 1
    timeout: float | None = None
    gather: int | str | None = None
    key: str | None = None
    rest: str | None = None
    external: bool = False
    deadline: float | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str) -> SlotOptions:
        """Return options that were given by name, checked; raise DeclarationError for a name that is none of theirs."""
        known = [each.name for each in fields(SlotOptions)]
        for name in given:
            if name not in known:
                raise DeclarationError(f"{where}: a slot has no option {name!r}{known_names(name, known, 'options')}")
        return SlotOptions(**given).checked(where)

    def checked(self, where: str) -> SlotOptions:
        """Return the options as they are kept; raise DeclarationError when one is out of range."""
        if not callable(self.merge_strategy) and self.merge_strategy not in MERGE_STRATEGIES:
            raise DeclarationError(
                f"{where}: unknown merge_strategy {self.merge_strategy!r}; use 'override', 'append', or a function "
                f"(old, new) -> merged"
            )
        if callable(self.merge_strategy):
            _check_merge(self.merge_strategy, where)
        whole(self.concurrency, f"{where}: concurrency", 1, MOST_AT_A_TIME)
        gather = gather_of(self.gather, self.key, self.rest, self.merge_strategy, where)
        return replace(
            self,
            timeout=seconds(self.timeout, f"{where}: timeout"),
            rest=None if gather is None else gather.rest,
            deadline=deadline_of(self.external, self.deadline, where),
        )


@dataclass(frozen=True, eq=False)
class Slot(SlotOptions, Generic[P, R]):
    """An input of a routine. Made by `slot` on a method, or by `Routine.define_slot`.

    Calling it calls the handler, as in a test: ``routine.input(value=3)``. Nothing is recorded then, and the handler
    may use no operation of a job.

    Attributes:
        name: its name.
        handler: what handles a delivery; None when nothing does.
        routine: the routine that it belongs to.
    """

    name: str
    handler: Callable[..., Any] | None
    binding: Binding = field(repr=False)
    routine: Any = field(repr=False)

    def __post_init__(self) -> None:
        vars(self).update(__wrapped__=self.binding.handler, __doc__=getattr(self.handler, "__doc__", None))

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the handler and return what it returns."""
        result: R = self.binding.handler(*args, **kwargs)
        return result


def _check_merge(function: MergeFunction, where: str) -> None:
    try:
        inspect.signature(function).bind({}, {})
    except TypeError as error:
        raise DeclarationError(f"{where}: the merge function must take two dicts, (old, new): {error}") from error
    except ValueError:  # a callable whose signature cannot be read may be right all the same
        pass
