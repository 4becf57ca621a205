"""What is to be reached, as a table: ratios of figures of one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .environments import BOUNDS, OWN
from .figures import Figures, Key
from .work import K, M

OLD, LLAMA, DBOS = "routilux 0.10.0", "llama-index-workflows", "dbos"
NOT_COMPARED = ("import",)  # other packages may be as small as they like
TIE = 0.95  # of our time: what is closer to it is no faster, as far as can be told


class Figure(NamedTuple):
    """A figure of a peer; without a size, at the size of the target."""

    row: str
    peer: str = OWN
    size: int | None = None


@dataclass(frozen=True)
class Target:
    """A product of figures, divided by another one, is to be at most, or at least, so much.

    Args:
        what: the figure, in words.
        above: what is multiplied.
        below: what it is divided by; nothing when ``above`` is itself what is limited.
        most: the largest that it may be.
        least: the smallest that it may be.
        sizes: where the figures are taken: the first of these at which there are all of them.
    """

    what: str
    above: tuple[Figure, ...]
    below: tuple[Figure, ...] = ()
    most: float | None = None
    least: float | None = None
    sizes: tuple[int, ...] = (0,)


class Outcome(NamedTuple):
    """What a target came to."""

    target: Target
    size: int | None
    figure: float | None
    ratio: float | None
    met: bool | None


def of(row: str, peer: str = OWN, size: int | None = None) -> tuple[Figure, ...]:
    """Return one figure, as a target takes it."""
    return (Figure(row, peer, size),)


FULL, BOUNDED, WORKERS = "stream, full history", "stream, bounded history", "stream by workers"
MEDIAN, WORST = "two routines, median", "two routines, 99th percentile"
STREAMS = (100 * K, K)

TARGETS = (
    Target("stream, of the bare dispatcher's speed", of(FULL, BOUNDS), of(FULL), least=0.4, sizes=STREAMS),
    Target("stream, times as fast as routilux 0.10.0", of(FULL, OLD), of(FULL), least=25, sizes=STREAMS),
    Target("stream, times as fast as llama-index-workflows", of(FULL, LLAMA), of(FULL), least=80, sizes=STREAMS),
    Target("cost of an item, 8 workers over 1", of(WORKERS, size=8), of(WORKERS, size=1), most=1.6),
    Target("cost of an item, 32 workers over 1", of(WORKERS, size=32), of(WORKERS, size=1), most=1.6),
    Target("two routines, over the bare dispatcher", of(MEDIAN), of(MEDIAN, BOUNDS), most=30, sizes=(10 * K, K, 30)),
    Target(
        "two routines, 99th percentile over median, over that of the bare dispatcher",
        (*of(WORST), *of(MEDIAN, BOUNDS)),
        (*of(MEDIAN), *of(WORST, BOUNDS)),
        most=2.5,
        sizes=(10 * K, K, 30),
    ),
    Target("two routines, times as fast as routilux 0.10.0", of(MEDIAN, OLD), of(MEDIAN), least=1000, sizes=(30,)),
    Target("cost of an item, bounded history, 1M over 1k", of(BOUNDED, size=M), of(BOUNDED, size=K), most=1.2),
    Target("cost of an item, full history, 1M over 1k", of(FULL, size=M), of(FULL, size=K), most=1.6),
    Target(
        "memory of a process, bounded history, 1M items over 1k",
        of("memory of a process", size=M),
        of("memory of a process", size=K),
        most=1.1,
    ),
    Target(
        "edit of one of 1,000 keys, times as fast as llama-index-workflows",
        of("edit of one key", LLAMA),
        of("edit of one key"),
        least=10,
        sizes=(K,),
    ),
    Target(
        "edit of a list of 1,000 dicts, times as fast as llama-index-workflows",
        of("edit of a list", LLAMA),
        of("edit of a list"),
        least=2,
        sizes=(K,),
    ),
    Target("history, bytes per record", of("memory of the history"), most=400, sizes=(100 * K, 10 * K, K)),
    Target(
        "64 waits over 32 workers, over a bare pool",
        of("blocking waits"),
        of("blocking waits", BOUNDS),
        most=1.2,
        sizes=(64,),
    ),
    Target(
        "save and load of 10,000 records, over bare JSON",
        of("save and load"),
        of("save and load", BOUNDS),
        most=2,
        sizes=(10 * K,),
    ),
    Target("import, over that of pydantic", of("import"), of("import", BOUNDS), most=1.3, sizes=(1,)),
    *(
        Target(
            f"durable activations, one job, {mode}, of the speed of bare commits",
            of(f"durable, synchronous={mode}", BOUNDS),
            of(f"durable, synchronous={mode}"),
            least=0.5,
            sizes=(K, 100, 10),
        )
        for mode in ("FULL", "NORMAL")
    ),
    Target(
        "durable activations, 16 jobs, FULL, of the speed of a bare group commit",
        of("durable jobs", BOUNDS),
        of("durable jobs"),
        least=0.5,
        sizes=(K, 100, 10),
    ),
    *(
        Target(f"{row}, times as fast as dbos", of(row, DBOS), of(row), least=5, sizes=sizes)
        for row, sizes in (
            ("durable, synchronous=FULL", (K, 100, 10)),
            ("durable steps", (K, 100, 10)),
            ("durable jobs", (K, 100, 10)),
        )
    ),
)


def judge(figures: Figures, target: Target) -> Outcome:
    """Return what a target came to; its figures are None when not all of them were measured."""
    for size in target.sizes:
        keys = [[Key(f.row, f.size or size, f.peer) for f in side] for side in (target.above, target.below)]
        ratio = figures.ratio(*keys)
        if ratio is None:
            continue
        own = next(key for key in keys[1] + keys[0] if key.peer == OWN) if target.least else keys[0][0]
        met = ratio <= target.most if target.most is not None else ratio >= (target.least or 0)
        return Outcome(target, own.size, figures.median(own), ratio, met)
    return Outcome(target, None, None, None, None)


def slower(figures: Figures) -> Iterator[tuple[Key, float]]:
    """Yield where this project takes longer, or more, than a peer at the same work: the peer's key and its share."""
    for key in figures.rounds:
        if key.peer not in (OWN, BOUNDS) and key.row not in NOT_COMPARED:
            ratio = figures.ratio([key], [key._replace(peer=OWN)])
            if ratio is not None and ratio < TIE:
                yield key, ratio
