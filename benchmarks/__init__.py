"""How fast routilux is, and how fast others are at the same work: ``python -m benchmarks``, in a checkout.

A *piece of work* (`work.WORK`) has a name, sizes and the result that it must come to. A *peer* (`environments.PEERS`)
is a package in a virtual environment of its own, and one file in ``peers/`` that does the pieces of work it can do. For
each piece of work, every peer has a process (`worker`), which is asked for one measurement at a time, in turn with the
others, so that whatever else the machine does harms all alike (`rounds`). What they answer is checked and collected
(`figures`), compared with what is to be reached (`targets`) and printed (`report`).
"""
