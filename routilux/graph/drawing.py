"""Pictures of a graph as text.

Nodes are numbered, so that no id, however odd, has to be made into an identifier; ids and names appear in labels only.
There, characters that cannot be seen are written as Python writes them, and all that the language of the picture
might read as its own is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .shape import Connection, Shape

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
        lines.append(f'    {source} -->|"{_wire(connection, _mermaid)}"| {target}')
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
        lines.append(f'    {source} -> {target} [label="{_wire(connection, _dot)}"];')
    return "\n".join([*lines, "}"]) + "\n"


def _wire(connection: Connection, escape: Callable[[str], str]) -> str:
    label = f"{escape(connection.event)} -> {escape(connection.slot)}"
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
