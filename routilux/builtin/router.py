"""Which way to go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from ..errors import DeclarationError, PayloadError, known_names
from ..routine.binding import shortened
from ..routine.declaration import Routine
from .taking import named, taking, where_of

Routes = Mapping[Any, str] | Iterable[tuple[Callable[[Any], Any], str]]


class Router(Routine):
    """Emits what arrives as one of several events, chosen by a value.

    Args:
        routes: a table that maps values to the names of events; or pairs of a predicate and the name of an event, of
            which the first one whose predicate is true of the value is taken.
        of: the parameter that is the value.
        default: the event for all other values; without one, such a value is an error of its activation.
        options: those of the slot ``input``, such as ``concurrency``; see `Routine.define_slot`.

    Attributes:
        events: its events, by name.

    Raises:
        DeclarationError: when there are no routes, or one of them is none.
    """

    def __init__(self, routes: Routes, *, of: str = "value", default: str | None = None, **options: Any) -> None:
        super().__init__()
        table = dict(routes) if isinstance(routes, Mapping) else {}
        pairs = (
            []
            if isinstance(routes, Mapping) or not isinstance(routes, Iterable)
            else [named(each, "Router") for each in routes]
        )
        if not table and not pairs:
            raise DeclarationError("Router: there are no routes; give it a table, or pairs of a predicate and an event")
        events = [*table.values(), *(event for _, event in pairs), *([] if default is None else [default])]
        self.events = {name: self.define_event(name) for name in dict.fromkeys(events)}

        def act(value: Any, rest: dict[str, Any]) -> None:
            event = next((event for predicate, event in pairs if predicate(value)), default)
            with suppress(TypeError):  # what is not hashable is no key of the table
                event = table.get(value, event)
            if event is None:
                hint = known_names(value, map(str, table), "values") if table else f"; events: {', '.join(self.events)}"
                what = f"no route for {of} = {shortened(value)}, and no default event{hint}"
                raise PayloadError(f"{where_of(self)}: there is {what}")
            self.emit(event, **{**rest, of: value})

        self.input = self.define_slot("input", handler=taking(of, Any, act), **options)
