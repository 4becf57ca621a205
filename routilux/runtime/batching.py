"""What a turn of a durable job has done and not yet committed, and what it has read.

Until it commits, a turn sees its own writes over the record. It sees a key as it was when it first looked between two
points, whatever others commit meanwhile; that makes what it has read a small thing to keep with the next point, and
running the turn again, up to that point, gives it the same values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.commits import NO_BATCH
from ..core.points import Batch, Emission, Read
from ..core.records import Logged, Sent, Wrote
from .drafts import MISSING
from .edit_operations import HeldEmissions
from .state_writes import Area

LOOK, COPY, EDIT = "look", "copy", "edit"


class PendingBatch:
    """The batch that a turn is making.

    ``areas`` are the values to write by area and key, `MISSING` for a key to be removed; ``seen`` the revisions that
    written keys must not have passed when they are committed, -1 for any. ``looked`` holds what was read by area and
    key (None: the whole area), with its revision; ``reads`` the same in the form in which it is kept. ``dropped`` tells
    how many edits were dropped.
    """

    __slots__ = ("areas", "dropped", "log", "looked", "outputs", "reads", "seen")

    def __init__(self) -> None:
        self.areas: dict[Area, dict[str, Any]] = {}
        self.seen: dict[tuple[Area, str], int] = {}
        self.log: list[Logged] = []
        self.outputs: list[Sent] = []
        self.looked: dict[tuple[Area, str | None], tuple[Any, int]] = {}
        self.reads: list[Read] = []
        self.dropped = 0

    @property
    def clean(self) -> bool:
        """Whether nothing was done or read."""
        return not (self.areas or self.looked or self.log or self.outputs or self.seen or self.reads or self.dropped)

    def put(self, area: Area, values: Mapping[str, Any], removed: tuple[str, ...]) -> None:
        """Take in a write."""
        own = self.areas.setdefault(area, {})
        own.update(values)
        own.update(dict.fromkeys(removed, MISSING))

    def own(self, area: Area) -> dict[str, Any]:
        """Return what the turn itself has written to an area and not yet committed."""
        return self.areas.get(area) or {}

    def batch(self, held: HeldEmissions | None) -> Batch:
        """Return all of it as one batch; ``held`` are the emissions."""
        writes: tuple[Wrote, ...] = ()
        if self.areas:
            writes = tuple([_wrote(area, own) for area, own in self.areas.items()])
        if not held and not writes and not self.log and not self.outputs:
            return NO_BATCH
        emissions = [_emission((event.name, data, isolate, later)) for event, data, isolate, later in held or ()]
        return Batch(tuple(emissions), writes, tuple(self.log), tuple(self.outputs))


_emission = Emission._make


def _wrote(area: Area, own: Mapping[str, Any]) -> Wrote:
    values = {key: value for key, value in own.items() if value is not MISSING}
    return Wrote(area, values, tuple([key for key, value in own.items() if value is MISSING]))


def over(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with those that a turn has written over them."""
    return {key: value for key, value in {**values, **own}.items() if value is not MISSING}


class SharedView(Mapping[str, Any]):
    """The shared data as a turn sees them: what it sees once, it sees until its next point.

    Args:
        turn: a turn of a durable job.
    """

    __slots__ = ("_turn",)

    def __init__(self, turn: Any) -> None:
        self._turn = turn

    def __getitem__(self, key: str) -> Any:
        value = self._turn.glance(key)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key, MISSING) is not MISSING

    def __iter__(self) -> Iterator[str]:
        return iter(over(self._turn.record.shared, self._turn.pending.own(None)))

    def __len__(self) -> int:
        return sum(1 for _ in self)
