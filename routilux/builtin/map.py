"""One value for another."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..routine.declaration import Routine
from ..routine.event import Event
from .taking import check_name, taken_by, taking


class Map(Routine):
    """Emits, as ``output``, what a function makes of a value; the other parameters, and it itself, go along.

    Args:
        function: takes the value, which is validated as it annotates it; ``def`` or ``async def``.
        of: the parameter that is the value.
        emits: the parameter that the result becomes, in place of one that has this name; by default, of the value.
        options: those of the slot ``input``, such as ``concurrency``; see `Routine.define_slot`.

    Raises:
        DeclarationError: when the function cannot be called with one value, or an option is out of range.
    """

    output = Event()

    def __init__(
        self, function: Callable[[Any], Any], *, of: str = "value", emits: str = "value", **options: Any
    ) -> None:
        super().__init__()
        kind = taken_by(function, "Map", coroutines=True)
        check_name(emits, "emits")

        async def act_later(value: Any, rest: dict[str, Any]) -> None:
            self.output.emit(**{**rest, of: value, emits: await function(value)})

        def act(value: Any, rest: dict[str, Any]) -> None:
            self.output.emit(**{**rest, of: value, emits: function(value)})

        later = inspect.iscoroutinefunction(function)
        self.input = self.define_slot("input", handler=taking(of, kind, act_later if later else act), **options)
