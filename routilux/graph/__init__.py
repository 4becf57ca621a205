"""How routines are wired: the graph, what can be said about it, and its compiled form."""

from .findings import Finding
from .shape import Connection
from .wiring import Graph

__all__ = ["Connection", "Finding", "Graph"]
