"""What has come to the slots that gather, and whether more may come.

A delivery to such a slot is a *part*. Parts wait in groups, one for each value of the gather's key. A group is full
when it has so many parts, or one of each source; its parts become one delivery then. When nothing that is outstanding
can reach a gather any more, it is *ripe*: then it is closed, which completes a gather of all, and settles what becomes
of the rest of any other.

Whether something can still reach a gather is one number, ``ahead``. Counted are the deliveries without an end,
deferred emissions, open inputs, and parts of other gathers from which a way leads to it; but no parts of gathers in a
cycle with it, because these would wait for each other. Several gathers may be ripe at a time then, and the one with the
oldest part is the first to be closed. The numbers follow from the rest of the record (see `recounted`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from .plan import ALL, COUNT, ERROR, SOURCES, Gather, Reach

Group = dict[str, "deque[Part]"]  # parts by source, those of one source in the order in which they came


class Part(NamedTuple):
    """One delivery to a slot that gathers. ``number`` tells which came first; for the others see `Delivery`."""

    number: int
    payload: dict[str, Any]
    isolate: bool
    at: int
    origin: int
    source: str


@dataclass(slots=True)
class Gathers:
    """The gathers of one job, by their numbers in the `Reach`: groups by key, how many parts, and what is ahead."""

    reach: Reach = field(compare=False)
    groups: list[dict[Any, Group]] = field(init=False)
    held: list[int] = field(init=False)
    ahead: list[int] = field(init=False)

    def __post_init__(self) -> None:
        gathers = range(len(self.reach.slots))
        self.groups = [{} for _ in gathers]
        self.held = [0 for _ in gathers]
        self.ahead = [0 for _ in gathers]

    def count(self, which: Iterable[int], change: int) -> None:
        """Count something that is ahead of these gathers, or is no longer."""
        for number in which:
            self.ahead[number] += change

    def add(self, number: int, part: Part) -> list[Part]:
        """Put a part into its group; return the parts of the group when it is full, else none.

        Raises KeyError when the part lacks the key, and TypeError when the value of the key cannot be one.
        """
        gather = self.reach.gathers[number]
        key = None if gather.key is None else part.payload[gather.key]
        groups = self.groups[number]
        group = groups.get(key)
        if group is None:
            group = groups[key] = {}
        source = part.source if gather.mode == SOURCES else ""
        waiting = group.get(source)
        if waiting is None:
            waiting = group[source] = deque()
        waiting.append(part)
        self._held(number, 1)
        return self._take(number, key, group, gather) if self._is_full(number, gather, group) else []

    def _is_full(self, number: int, gather: Gather, group: Group) -> bool:
        if gather.mode == SOURCES:
            return len(group) == len(self.reach.sources[number])
        return gather.mode == COUNT and len(group[""]) >= gather.count

    def _held(self, number: int, change: int) -> None:
        self.held[number] += change
        self.count(self.reach.parts[number], change)

    def _take(self, number: int, key: Any, group: Group, gather: Gather) -> list[Part]:
        """Take as many parts of a full group as make it full."""
        if gather.mode == COUNT:
            waiting = group[""]
            parts = [waiting.popleft() for _ in range(gather.count)]
        else:
            parts = [waiting.popleft() for waiting in group.values()]
        del self.groups[number][key]
        left = {source: waiting for source, waiting in group.items() if waiting}
        if left:
            self.groups[number][key] = left
        self._held(number, -len(parts))
        parts.sort()
        return parts

    def ripe(self) -> int | None:
        """Return the gather that is to be closed next; None when there is none."""
        found = [number for number, held in enumerate(self.held) if held and not self.ahead[number]]
        return min(found, key=self._oldest, default=None)

    def _oldest(self, number: int) -> int:
        return min(waiting[0].number for group in self.groups[number].values() for waiting in group.values())

    def close(self, number: int) -> list[list[Part]]:
        """Take all parts of a gather; return them as they are to be delivered, or fail, together, the oldest first."""
        gather, groups = self.reach.gathers[number], self.groups[number]
        self.groups[number] = {}
        self._held(number, -self.held[number])
        batches: list[list[Part]] = []
        for group in groups.values():
            if gather.mode == SOURCES and gather.rest != ERROR:
                rows = [list(waiting) for waiting in group.values()]
                for place in range(max(map(len, rows))):
                    batches.append(sorted(row[place] for row in rows if place < len(row)))
            else:
                batches.append(sorted(chain.from_iterable(group.values())))
        return sorted(batches, key=lambda parts: parts[0].number)

    def put_back(self, number: int, parts: Iterable[Part]) -> None:
        """Put parts that were taken back to where they were."""
        gather, groups = self.reach.gathers[number], self.groups[number]
        for part in parts:
            group = groups.setdefault(None if gather.key is None else part.payload[gather.key], {})
            waiting = group.setdefault(part.source if gather.mode == SOURCES else "", deque())
            waiting.append(part)
            if len(waiting) > 1 and waiting[-2].number > part.number:
                group[part.source if gather.mode == SOURCES else ""] = deque(sorted(waiting))
            self._held(number, 1)

    def full(self, number: int) -> list[list[Part]]:
        """Take the parts of all groups that are full, as they are to be delivered together, the oldest first."""
        gather, batches = self.reach.gathers[number], list[list[Part]]()
        for key in list(self.groups[number]) if gather.mode != ALL else ():
            while (group := self.groups[number].get(key)) is not None and self._is_full(number, gather, group):
                batches.append(self._take(number, key, group, gather))
        return sorted(batches, key=lambda parts: parts[0].number)

    def withdraw(self, origin: int) -> None:
        """Take back the parts that a failed turn has emitted."""
        for number, groups in enumerate(self.groups):
            for key, group in list(groups.items()):
                kept = {
                    source: deque(part for part in waiting if part.origin != origin)
                    for source, waiting in group.items()
                }
                self._held(number, sum(map(len, kept.values())) - sum(map(len, group.values())))
                kept = {source: waiting for source, waiting in kept.items() if waiting}
                if kept:
                    groups[key] = kept
                else:
                    del groups[key]

    def clear(self) -> None:
        """Forget everything."""
        self.__post_init__()

    def parts(self, number: int) -> list[Part]:
        """Return the parts of a gather, the oldest first."""
        return sorted(
            chain.from_iterable(waiting for group in self.groups[number].values() for waiting in group.values())
        )


def joined(gather: Gather, parts: Sequence[Part]) -> dict[str, Any]:
    """Return the payload that parts become together.

    For each parameter that is the list of its values, in the order in which they came; of the key, its value; and where
    one of each source is gathered, all parameters are those of their sources.
    """
    if gather.mode == SOURCES:
        return {name: value for part in parts for name, value in part.payload.items()}
    payload: dict[str, Any] = {}
    for part in parts:
        for name, value in part.payload.items():
            if name in payload:
                payload[name].append(value)
            else:
                payload[name] = [value]
    if gather.key is not None:
        payload[gather.key] = parts[0].payload[gather.key]
    return payload


def missing(gather: Gather, sources: Sequence[str], parts: Sequence[Part]) -> str:
    """Return what a group lacks that was not completed, in words; an empty text when it lacks nothing."""
    if gather.mode == COUNT and len(parts) < gather.count:
        return f"{gather.count - len(parts)} more"
    if gather.mode == SOURCES:
        came = {part.source for part in parts}
        return ", ".join(source or "one from outside" for source in sources if source not in came)
    return ""
