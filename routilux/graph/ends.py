"""What `Graph.connect` is given: names, or the event and the slot themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import DeclarationError
from ..routine.binding import shortened
from ..routine.declaration import Routine, declaration_of
from ..routine.event import Event
from ..routine.method import SlotMethod
from ..routine.slot import Slot

FORMS = (
    "connect(source_id, event, target_id, slot) takes four names, and connect(source.output, sink.input) an event and "
    "a slot"
)


class Ends(NamedTuple):
    """The arguments of a connection by name."""

    source_id: Any
    event: Any
    target_id: Any
    slot: Any
    param_mapping: Any


def by_name(given: Ends, graph: Any, where: str) -> Ends:
    """Return what `Graph.connect` was given as names.

    Args:
        given: the names; or an event and a slot, and perhaps the mapping, in the first places.
        graph: the graph that their routines have to be in.
        where: the flow as it stands in messages.

    Raises:
        DeclarationError: when it is neither form, or a routine is not in the graph.
    """
    first, second, third, fourth, mapping = given
    if not any(isinstance(each, (Event, Slot, SlotMethod, Routine)) for each in given):
        if third is None and fourth is None:
            raise DeclarationError(f"{where}: {FORMS}, not {shortened(first)} and {shortened(second)}")
        return given
    if isinstance(first, (Slot, SlotMethod)) and isinstance(second, Event):
        raise DeclarationError(f"{where}: the event comes first, as in connect(source.output, sink.input)")
    if mapping is None and isinstance(third, Mapping):
        third, mapping = None, third
    if not isinstance(first, Event) or not isinstance(second, (Slot, SlotMethod)) or (third, fourth) != (None, None):
        rest = [each for each in (first, second, third, fourth) if each is not None]
        raise DeclarationError(f"{where}: {FORMS}, not {', '.join(map(shortened, rest))}")
    source_id = _routine_id(first, "event", graph, where)
    return Ends(source_id, first.name, _routine_id(second, "slot", graph, where), second.name, mapping)


def _routine_id(end: Event | Slot | SlotMethod[..., Any], kind: str, graph: Any, where: str) -> str:
    """Return the id of the routine that an event or slot belongs to."""
    routine = None if isinstance(end, SlotMethod) else end.routine
    if routine is None:
        raise DeclarationError(
            f"{where}: {kind} {end.name!r} is that of a class; connect that of a routine, as in connect(source.output, "
            f"sink.input), where source and sink are instances"
        )
    routine_id = declaration_of(routine).holders.get(graph)
    if routine_id is None:
        raise DeclarationError(
            f"{where}: {kind} {end.name!r} is that of a {type(routine).__name__} which is not in this flow; add it "
            f"with add_routine() first"
        )
    return routine_id
