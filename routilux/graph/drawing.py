"""Pictures of a graph as text.

Nodes are numbered, so that no id, however odd, has to be made into an identifier; ids and names appear in labels only.
There, characters that cannot be seen are written as Python writes them, and all that the language of the picture
might read as its own is escaped. What comes from outside to external slots has an end of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..routine.declaration import declaration_of
from ..routine.gathering import gather_of
from ..routine.slot import Slot
from .shape import Connection, Shape

OUTSIDE = "outside"  # what is no routine; those are numbered
# Letters and digits, and single marks between them, are no markup in a Mermaid label; `_x_`, `1. x` and the like are.
_PLAIN_IN_MERMAID = re.compile(r"([^\W_]+(?:[ ._-][^\W_]+)*)")
_ESCAPES_IN_DOT = str.maketrans({"\\": r"\\", '"': r"\"", "&": "&amp;"})


def to_mermaid(graph: Shape) -> str:
    """Return the graph as the text of a Mermaid flowchart."""
    lines = ["flowchart TD"]
    numbers: dict[str, str] = {}
    for routine_id, routine in graph.routines.items():
        number = numbers[routine_id] = f"n{len(numbers)}"
        lines.append(f'    {number}["{_mermaid(routine_id)}<br/>{_mermaid(type(routine).__name__)}"]')
    for connection in graph.connections:
        source, target = numbers[connection.source_id], numbers[connection.target_id]
        lines.append(f'    {source} -->|"{_wire(graph, connection, _mermaid)}"| {target}')
    inputs = _inputs(graph)
    if inputs:
        lines.append(f'    {OUTSIDE}(["{OUTSIDE}"])')
    for routine_id, slot in inputs:
        lines.append(f'    {OUTSIDE} -->|"{_mermaid(_named(slot))}"| {numbers[routine_id]}')
    return "\n".join(lines) + "\n"


def to_dot(graph: Shape) -> str:
    """Return the graph as text in the DOT language of Graphviz."""
    lines = [f'digraph "{_dot(graph.flow_id)}" {{', "    node [shape=box];"]
    numbers: dict[str, str] = {}
    for routine_id, routine in graph.routines.items():
        number = numbers[routine_id] = f"n{len(numbers)}"
        lines.append(f'    {number} [label="{_dot(routine_id)}\\n{_dot(type(routine).__name__)}"];')
    for connection in graph.connections:
        source, target = numbers[connection.source_id], numbers[connection.target_id]
        lines.append(f'    {source} -> {target} [label="{_wire(graph, connection, _dot)}"];')
    inputs = _inputs(graph)
    if inputs:
        lines.append(f"    {OUTSIDE} [shape=ellipse];")
    for routine_id, slot in inputs:
        lines.append(f'    {OUTSIDE} -> {numbers[routine_id]} [label="{_dot(_named(slot))}"];')
    return "\n".join([*lines, "}"]) + "\n"


def _inputs(graph: Shape) -> list[tuple[str, Slot]]:
    """Return the slots that something comes to from outside, each with its routine."""
    declared = ((name, declaration_of(routine).slots.values()) for name, routine in graph.routines.items())
    return [(name, slot) for name, slots in declared for slot in slots if slot.external]


def _named(slot: Slot) -> str:
    """Return the name of a slot, and how it gathers."""
    how = gather_of(slot.gather, slot.key, slot.rest, slot.merge_strategy, slot.name)
    return slot.name if how is None else f"{slot.name}, {how}"


def _wire(graph: Shape, connection: Connection, escape: Callable[[str], str]) -> str:
    slot = declaration_of(graph.routines[connection.target_id]).slots[connection.slot]
    label = f"{escape(connection.event)} -> {escape(_named(slot))}"
    renamed = ", ".join(f"{escape(old)} as {escape(new)}" for old, new in connection.param_mapping)
    return f"{label} ({renamed})" if renamed else label


def _mermaid(text: str) -> str:
    parts = _PLAIN_IN_MERMAID.split(_visible(text))  # every second part is plain
    parts[::2] = ["".join(f"#{ord(char)};" for char in part) for part in parts[::2]]
    return "".join(parts)


def _dot(text: str) -> str:
    return _visible(text).translate(_ESCAPES_IN_DOT)


def _visible(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
