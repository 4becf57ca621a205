"""What was measured, by row, size and peer, and the arithmetic on it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from .work import Work


class Key(NamedTuple):
    """Where a figure belongs."""

    row: str
    size: int
    peer: str


@dataclass
class Figures:
    """The figures of each round, seconds or bytes; what peers were spared, and what went wrong."""

    rounds: dict[Key, list[float]] = field(default_factory=dict)
    rows: dict[str, Work] = field(default_factory=dict)
    spared: dict[Key, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, work: Work, size: int, peer: str, answer: dict[str, Any] | None) -> str | None:
        """Check an answer of a peer and keep its figures; return what is wrong with it."""
        if answer is None:
            return None
        problem = answer.get("error")
        if problem is None and answer["result"] != work.result(size):
            problem = f"came to {answer['result']!r} instead of {work.result(size)!r}"
        if problem is not None:
            self.problems.append(f"{work.name}, {size:,} {work.size}, {peer}: {problem}")
            return self.problems[-1]
        for name, figure in answer["figures"].items():
            row = f"{work.name}, {name}" if name else work.name
            self.rows.setdefault(row, work)
            # A figure with a name is for one of many already.
            each = figure if name else figure / work.count(size)
            self.rounds.setdefault(Key(row, size, peer), []).append(each)
        return None

    def spare(self, work: Work, size: int, peer: str, seconds: float) -> None:
        """Note that a peer was spared a size, for which it would have taken so many seconds."""
        self.spared[Key(work.name, size, peer)] = seconds

    def include(self, others: Figures) -> None:
        """Take over the figures of other work."""
        self.rounds.update(others.rounds)
        self.rows.update(others.rows)
        self.spared.update(others.spared)
        self.problems += others.problems

    def median(self, key: Key) -> float | None:
        """Return the median of the rounds, None when there are none."""
        return statistics.median(self.rounds[key]) if key in self.rounds else None

    def ratio(self, above: Iterable[Key], below: Iterable[Key] = ()) -> float | None:
        """Return the product of some figures divided by that of others; None when one of them is missing.

        It is the median of what this is in each round, as figures of one round were taken close to each other.
        """
        above, below = list(above), list(below)
        if any(key not in self.rounds for key in above + below):
            return None
        rounds = min(len(self.rounds[key]) for key in above + below)
        return statistics.median(
            prod(self.rounds[key][number] for key in above) / prod(self.rounds[key][number] for key in below)
            for number in range(rounds)
        )
