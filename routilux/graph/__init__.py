"""How routines are wired: the graph, what can be said about it, and its compiled form."""

from .wiring import Connection, Graph

__all__ = ["Connection", "Graph"]
