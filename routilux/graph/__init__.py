"""How routines are wired: the graph, what can be said about it, and its compiled form."""
