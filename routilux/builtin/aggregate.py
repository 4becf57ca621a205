"""One value of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DeclarationError
from ..routine.declaration import Routine
from ..routine.event import Event
from .taking import check_name, taken_by, taking


class Aggregate(Routine):
    """Emits, as ``output``, what a function makes of all values, when no more of them can come.

    A delivery that lacks the parameter takes no part, unless all do, which is an error.

    Args:
        function: takes the list of the values, in order of arrival: ``sum``, ``max``, ``len``, or one of your own.
        of: the parameter whose values these are.
        emits: the parameter that the result becomes.
        key: a parameter by whose value they are sorted; there is one result for each, which it goes along with.

    Raises:
        DeclarationError: when the function cannot be called with one value, or an option is out of range.
    """

    output = Event()

    def __init__(
        self, function: Callable[[Any], Any], *, of: str = "value", emits: str = "value", key: str | None = None
    ) -> None:
        super().__init__()
        check_name(emits, "emits")
        if key in (of, emits):
            raise DeclarationError(f"Aggregate: key={key!r} cannot be the parameter that is aggregated, or the result")

        def act(values: Any, rest: dict[str, Any]) -> None:
            along = {} if key is None else {key: rest[key]}
            self.output.emit(**{**along, emits: function(values)})

        handler = taking(of, taken_by(function, "Aggregate"), act)
        self.input = self.define_slot("input", handler=handler, gather="all", key=key)
