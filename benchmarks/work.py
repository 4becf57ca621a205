"""The pieces of work, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

SECONDS, BYTES = "s", "B"
EDITS = 200  # of a large state
WIDTH = 100  # of a fan-out
LEAST, UNSTEADY = 0.2, 1.0  # seconds for which short work is repeated: most of it, and what varies more
LONG, LONGER = 2.0, 8.0  # and what takes long at the largest size, or is compared with that
STREAMED = 20_000  # items for the workers
JOBS = 16  # durable ones at a time

K, M = 1_000, 1_000_000


def itself(size: int) -> int:
    """Return the size: there are so many units of work, or it comes to so much."""
    return size


def one(size: int) -> int:
    """Return 1: the work is one unit, whatever its size."""
    return 1


def total(size: int) -> int:
    """Return the sum of the numbers from 1 to the size."""
    return size * (size + 1) // 2


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Args:
        name: what its rows are called.
        function: what it is called in the files of the peers.
        sizes: the sizes to do it at, the smallest first, which is the only one of a quick run.
        size: what the size counts.
        each: what a figure is for one of.
        count: from the size to how many of those there are.
        result: from the size to what the work must come to.
        options: what the function is given besides the size.
        unit: of the figures.
        fresh: whether each measurement has a process of its own.
        least: seconds for which short work is repeated, for one figure.
        turns: how many times as many rounds it has.
        note: what happens, in a sentence for the documentation.
    """

    name: str
    function: str
    sizes: tuple[int, ...]
    size: str
    each: str
    note: str
    count: Callable[[int], int] = itself
    result: Callable[[int], int] = itself
    options: Mapping[str, Any] = field(default_factory=dict)
    unit: str = SECONDS
    fresh: bool = False
    least: float = LEAST
    turns: int = 1


WORK = (
    Work("plain calls", "calls", (K, 10 * K, 100 * K), "calls", "call", "A Python function is called with a keyword."),
    Work(
        "chain",
        "chain",
        (10, 100, K),
        "routines",
        "routine",
        "One number goes through so many routines, each of which adds 1.",
    ),
    Work(
        "stream, full history",
        "stream",
        (K, 100 * K, M),
        "items",
        "item",
        "A source emits so many numbers, a transform adds 1 to each, a sink adds them up: two activations per item.",
        result=total,
        least=LONG,
    ),
    Work(
        "stream, bounded history",
        "stream",
        (K, 100 * K, M),
        "items",
        "item",
        "The same, keeping the last 1,000 records, with at most 1,000 deliveries queued.",
        result=total,
        options={"history": "bounded"},
        least=LONGER,  # the cost is to be the same for every size, so that the smallest has to be known best
    ),
    Work(
        "stream by workers",
        "stream_by_workers",
        (1, 8, 32),
        "workers",
        "item",
        f"A stream of {STREAMED:,} items through the same three routines, by so many worker threads.",
        count=lambda size: STREAMED,
        result=lambda size: total(STREAMED),
        options={"items": STREAMED},
        least=LONG,
    ),
    Work(
        "fan-out and join",
        "fan_out",
        (1, 10, 100),
        "rounds",
        "round",
        f"One event goes to {WIDTH} routines, what they send is joined, and the join starts the next round.",
        result=lambda size: WIDTH * size,
        options={"width": WIDTH},
    ),
    Work(
        "atomic edits, 1 worker",
        "counter",
        (200, K, 10 * K),
        "edits",
        "edit",
        "A handler adds 1 to a shared counter so many times; each time is atomic.",
        options={"workers": 1},
    ),
    Work(
        "atomic edits, 8 workers",
        "counter",
        (200, K, 10 * K),
        "edits",
        "edit",
        "Eight routines do that at the same time.",
        options={"workers": 8},
    ),
    Work(
        "edit of one key",
        "edit_keys",
        (10, 100, K),
        "keys",
        "edit",
        "An atomic edit changes one value of a state that has so many keys.",
        count=lambda size: EDITS,
        result=lambda size: EDITS,
        options={"edits": EDITS},
    ),
    Work(
        "edit of a list",
        "edit_list",
        (10, 100, K),
        "dicts",
        "edit",
        "An atomic edit changes one value in a list of so many dicts.",
        count=lambda size: EDITS,
        result=lambda size: EDITS,
        options={"edits": EDITS},
    ),
    Work(
        "blocking waits",
        "waits",
        (32, 64, 256),
        "waits",
        "run",
        "So many handlers sleep 50 ms each, 32 at a time.",
        count=one,
        options={"seconds": 0.05, "workers": 32},
        least=UNSTEADY,
    ),
    Work(
        "two routines",
        "two_routines",
        (30, K, 10 * K),
        "jobs",
        "job",
        "A job of two routines is run, one after the other so many times, each from the call until it has completed.",
        least=UNSTEADY,
    ),
    Work(
        "jobs at once",
        "jobs",
        (10, 100, K),
        "jobs",
        "job",
        "So many such jobs are started, and then waited for.",
    ),
    Work(
        "import",
        "imports",
        (1,),
        "process",
        "import",
        "What a program begins with is imported in a new process; for the bounds, ``BaseModel`` and ``TypeAdapter`` of "
        "pydantic.",
        count=one,
    ),
    Work(
        "import and a type",
        "typed_imports",
        (1,),
        "process",
        "import",
        "The same, and an event is declared whose parameter has a type, which pydantic is to check.",
        count=one,
    ),
    Work(
        "save and load",
        "save_and_load",
        (100, K, 10 * K),
        "records",
        "job",
        "A job with so many records and 1,000 items in its state is saved to a file and loaded; the bound writes and "
        "reads the same as JSON.",
        count=one,
        options={"items": K},
    ),
    Work(
        "memory of the history",
        "memory",
        (K, 10 * K, 100 * K),
        "records",
        "record",
        "What a finished job keeps in memory for each record, beside its payload.",
        unit=BYTES,
    ),
    Work(
        "memory of a process",
        "peak_memory",
        (K, 100 * K, M),
        "items",
        "process",
        "The most memory that a process had for a stream of so many items with a bounded history.",
        count=one,
        result=total,
        unit=BYTES,
        fresh=True,
    ),
    Work(
        "durable, synchronous=FULL",
        "durable",
        (10, 100, K),
        "activations",
        "activation",
        "One job of so many activations, one after the other, each in a SQLite file in WAL mode before the next one "
        "begins; for dbos, so many steps of a workflow; for the bounds, so many commits of a row.",
        options={"synchronous": "FULL"},
        least=UNSTEADY,
        turns=3,  # the disk is fast and slow for longer than a figure takes, and packages are closest here
    ),
    Work(
        "durable, synchronous=NORMAL",
        "durable",
        (10, 100, K),
        "activations",
        "activation",
        "The same with ``synchronous=NORMAL``, which does not wait for the disk.",
        options={"synchronous": "NORMAL"},
        least=UNSTEADY,
    ),
    Work(
        "durable steps",
        "durable_steps",
        (10, 100, K),
        "steps",
        "step",
        "One workflow of so many steps, with ``synchronous=FULL``. routilux records that a step begins as well as its "
        "outcome.",
        options={"synchronous": "FULL"},
        least=UNSTEADY,
    ),
    Work(
        "durable jobs",
        "durable_jobs",
        (10, 100, K),
        "activations",
        "activation",
        f"{JOBS} durable jobs of so many activations at the same time, with ``synchronous=FULL``; the bound is one "
        f"thread that commits for {JOBS} others.",
        count=lambda size: JOBS * size,
        result=lambda size: JOBS * size,
        options={"jobs": JOBS, "synchronous": "FULL"},
        least=UNSTEADY,
    ),
)
