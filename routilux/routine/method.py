"""Slots that are methods: the class-level form of `Routine.define_slot`.

`slot` makes a `SlotMethod` of a method. When the class is made, `class_level.py` finds it there; each new routine gets
the `Slot` that it stands for, which is also what the attribute is on the instance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, Generic, Protocol

from typing_extensions import Self, overload

from ..errors import DeclarationError
from .binding import Binding, refuse_what_would_not_run
from .event import bound_to
from .slot import MergeFunction, P, R, Slot, SlotOptions


class SlotMethod(Generic[P, R]):
    """A method that handles what arrives at a slot. Made by `slot`.

    It is what the attribute of the class is; that of a routine is its `Slot`.
    """

    def __init__(self, function: Any, name: str | None, options: SlotOptions) -> None:
        self.function = function
        self.name = name or ""
        self.options = options
        self._binding: Binding | None = None
        self.__isabstractmethod__ = getattr(function, "__isabstractmethod__", False)
        vars(self).update(__wrapped__=function, __doc__=getattr(function, "__doc__", None))

    def __set_name__(self, owner: type, name: str) -> None:
        if not self.name:
            self.name = name

    @overload
    def __get__(self, routine: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(self, routine: object, owner: type | None = None) -> Slot[P, R]: ...

    def __get__(self, routine: object, owner: type | None = None) -> Any:
        return self if routine is None else bound_to(routine, self)

    def __call__(self, routine: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the method of a routine, as ``Base.input(self, ...)`` in a subclass does."""
        result: R = self.function.__get__(routine, type(routine))(*args, **kwargs)
        return result

    def _bound(self, routine: Any) -> Slot[P, R]:
        """Return the slot of one routine; the signature of the method is read for the first."""
        handler = self.function.__get__(routine, type(routine))
        if self._binding is None:
            self._binding = Binding(handler, f"{type(routine).__name__}, slot {self.name!r}").calling(None)
        return Slot(self.name, handler, self._binding.calling(handler), routine, **vars(self.options))

    def __repr__(self) -> str:
        return f"<slot {self.name!r}: {self.function!r}>"


class SlotMaker(Protocol):
    """Makes a slot of a method: what ``@slot(...)`` is."""

    def __call__(self, method: Callable[Concatenate[Any, P], R], /) -> SlotMethod[P, R]:
        """Return the slot."""


@overload
def slot(method: Callable[Concatenate[Any, P], R], /) -> SlotMethod[P, R]: ...


@overload
def slot(
    *,
    name: str | None = None,
    merge_strategy: str | MergeFunction = "override",
    concurrency: int = 1,
    timeout: float | None = None,
    gather: int | str | None = None,
    key: str | None = None,
    rest: str | None = None,
    external: bool = False,
    deadline: float | None = None,
) -> SlotMaker: ...


def slot(method: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Declare a slot with a method of a `Routine` class as its handler.

    Every instance has it, as if its ``__init__`` had called `Routine.define_slot`. There, ``self.input`` is the `Slot`,
    and calling that calls the method. A subclass may replace the method by another one with ``@slot``, whose options
    then count, or take the slot away with ``input = None``.

    Args:
        method: ``def`` or ``async def``; ``@slot`` and ``@slot(...)`` both work.
        name: the name of the slot; by default that of the method.
        options: those of `Routine.define_slot`.

    Raises:
        DeclarationError: for anything but a method, and when an option is out of range.
    """

    def make(of: Any) -> SlotMethod[..., Any]:
        if not callable(of) or not hasattr(of, "__get__") or isinstance(of, (type, SlotMethod, partial)):
            raise DeclarationError(
                f"@slot makes a slot of a method, not of {of!r}; write @slot or @slot(name=...) above its def"
            )
        where = f"@slot {getattr(of, '__qualname__', of)}"
        if name is not None and (not isinstance(name, str) or not name):
            raise DeclarationError(f"{where}: a slot name must be a non-empty string, not {name!r}")
        refuse_what_would_not_run(of, where)
        return SlotMethod(of, name, SlotOptions.of(options, where))

    return make if method is None else make(method)
