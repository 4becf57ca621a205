"""What looks wrong with a graph before it runs.

A finding is not an error: a flow with findings can be executed, and each kind has its honest uses. Every check reads
the declarations only and yields its findings in the order of the flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..errors import MOST_NAMES_SHOWN, known_names
from ..routine.declaration import declaration_of
from ..routine.slot import Slot
from .shape import Connection, Shape

ENTRY_SLOT = "trigger"
START = ""  # where all executions begin, in the network of routine ids, which are never empty


@dataclass(frozen=True)
class Finding:
    """Something in a flow that is probably not meant. ``str()`` gives the message.

    ``kind`` is one of ``"empty"``, ``"unreachable"``, ``"no-handler"``, ``"missing-parameter"``,
    ``"unconnected-event"`` and ``"cycle"``. ``routine_id`` is the routine it is about, the first one of a cycle, and
    None when it is about the whole flow. ``message`` says what was found, and what to do about it.
    """

    kind: str
    routine_id: str | None
    message: str

    def __str__(self) -> str:
        return self.message


def findings(graph: Shape) -> list[Finding]:
    """Return what looks wrong: by kind, in the order in which `Finding` names them, then in the order of the flow."""
    if not graph.routines:
        return [Finding("empty", None, f"flow {graph.flow_id!r} has no routines; add one with add_routine()")]
    checks = (_unreachable, _without_handler, _missing_parameters, _unconnected_events, _cycles)
    return [
        Finding(kind, routine_id, f"flow {graph.flow_id!r}: {message}")
        for check in checks
        for kind, routine_id, message in check(graph)
    ]


def _unreachable(graph: Shape) -> Iterator[tuple[str, str, str]]:
    import networkx

    declared = {routine_id: declaration_of(routine).slots for routine_id, routine in graph.routines.items()}
    entries = [routine_id for routine_id, slots in declared.items() if ENTRY_SLOT in slots]
    what = f"a slot {ENTRY_SLOT!r}"
    if not entries:
        targets = {connection.target_id for connection in graph.connections}
        entries = [routine_id for routine_id, slots in declared.items() if slots and routine_id not in targets]
        what = "no incoming connection"
    outside = [name for name, slots in declared.items() if any(slot.external for slot in slots.values())]
    network = _network(graph)
    network.add_node(START)
    network.add_edges_from((START, routine_id) for routine_id in (*entries, *outside))
    reached = networkx.descendants(network, START)
    if entries:
        why = f"cannot be reached from where executions start, the routines with {what}: {_some(entries)}"
    else:
        why = f"cannot be reached: no routine to start with has a slot {ENTRY_SLOT!r} or no incoming connection"
    for routine_id, slots in declared.items():
        if routine_id in reached:
            continue
        if not slots:
            remedy = f"has no slot, so nothing reaches it; define a slot {ENTRY_SLOT!r}, or one to connect an event to"
        else:
            names = _some((repr(name) for name in slots), " or ")
            remedy = f"{why}; connect an event to its slot {names}, or define a slot {ENTRY_SLOT!r} to start there"
        yield "unreachable", routine_id, f"routine {routine_id!r} {remedy}"


def _without_handler(graph: Shape) -> Iterator[tuple[str, str, str]]:
    for routine_id, routine in graph.routines.items():
        for slot in declaration_of(routine).slots.values():
            if slot.handler is None:
                yield (
                    "no-handler",
                    routine_id,
                    f"slot {slot.name!r} of routine {routine_id!r} has no handler: what arrives is recorded and "
                    f"nothing else happens; pass handler= to define_slot()",
                )


def _missing_parameters(graph: Shape) -> Iterator[tuple[str, str, str]]:
    incoming: dict[tuple[str, str], list[Connection]] = {}
    for connection in graph.connections:
        incoming.setdefault((connection.target_id, connection.slot), []).append(connection)
    for routine_id, routine in graph.routines.items():
        for slot in declaration_of(routine).slots.values():
            # A slot without connections gets its payload from execute(); a merge function may add any key.
            connections = incoming.get((routine_id, slot.name))
            if not connections or callable(slot.merge_strategy):
                continue
            arrivals = [_Arrival(graph, connection) for connection in connections]
            delivered = {name for arrival in arrivals for name in arrival.names}
            for name in _missing(slot, arrivals):
                yield (
                    "missing-parameter",
                    routine_id,
                    f"slot {slot.name!r} of routine {routine_id!r}: the handler needs parameter {name!r}, and nothing "
                    f"delivers it ({_some(map(str, connections))}{known_names(name, delivered, 'parameters')}); "
                    f"add it to the event's output_params, rename one with param_mapping, or give it a default",
                )


class _Arrival:
    """What one connection can deliver: parameters with these ``names``, and under ``open`` most others as well."""

    def __init__(self, graph: Shape, connection: Connection) -> None:
        params = declaration_of(graph.routines[connection.source_id]).events[connection.event].output_params
        renamed = dict(connection.param_mapping)
        self.open = params is None
        self.names = {renamed.get(name, name) for name in (renamed if params is None else params)}
        self.taken_away = renamed.keys() - self.names

    def delivers(self, name: str) -> bool:
        return name in self.names or (self.open and name not in self.taken_away)


def _missing(slot: Slot, arrivals: list[_Arrival]) -> list[str]:
    """Return the parameters that the handler of a slot needs and no arrival delivers, in the order of its signature."""
    binding = slot.binding
    if binding.sole is not None and any(arrival.names for arrival in arrivals):
        return []  # a payload without this name is passed to it as a whole
    return [
        name
        for name in binding.names
        if name in binding.needed and not any(arrival.delivers(name) for arrival in arrivals)
    ]


def _unconnected_events(graph: Shape) -> Iterator[tuple[str, str, str]]:
    connected = {(connection.source_id, connection.event) for connection in graph.connections}
    for routine_id, routine in graph.routines.items():
        for name in declaration_of(routine).events:
            if (routine_id, name) not in connected:
                yield (
                    "unconnected-event",
                    routine_id,
                    f"event {name!r} of routine {routine_id!r} is connected to no slot, so what it emits goes nowhere; "
                    f"connect() it, or remove the event",
                )


def _cycles(graph: Shape) -> Iterator[tuple[str, str, str]]:
    """Yield one shortest cycle for each set of routines that can all reach each other."""
    import networkx

    network = _network(graph)
    wires: dict[tuple[str, str], Connection] = {}
    for connection in graph.connections:
        wires.setdefault((connection.source_id, connection.target_id), connection)
    order = {routine_id: index for index, routine_id in enumerate(graph.routines)}
    rings = [sorted(ring, key=order.__getitem__) for ring in networkx.strongly_connected_components(network)]
    for ring in sorted(rings, key=lambda ring: order[ring[0]]):
        first, members = ring[0], set(ring)
        # Whatever leads from a member of the ring back to the first one stays within the ring.
        ways = [networkx.shortest_path(network, after, first) for after in network[first] if after in members]
        if not ways:
            continue
        path = [first, *min(ways, key=len)]
        steps = [str(wires[step]) for step in pairwise(path)]
        others = [routine_id for routine_id in ring if routine_id not in path]
        more = f" (and back to it through {_some(others)} as well)" if others else ""
        yield (
            "cycle",
            first,
            f"routine {first!r} is in a cycle: {_some(steps)}{more}; make sure that a handler in it stops emitting at "
            f"some point, or remove a connection",
        )


def _network(graph: Shape) -> Any:
    """Return the directed networkx graph of the routine ids, with its nodes and edges in the order of the flow."""
    import networkx

    network: Any = networkx.DiGraph()
    network.add_nodes_from(graph.routines)
    network.add_edges_from((connection.source_id, connection.target_id) for connection in graph.connections)
    return network


def _some(names: Iterable[str], between: str = ", ") -> str:
    """Return the names in one line, the first dozen when there are more."""
    every = list(names)
    more = f" and {len(every) - MOST_NAMES_SHOWN} more" if len(every) > MOST_NAMES_SHOWN else ""
    return between.join(every[:MOST_NAMES_SHOWN]) + more
