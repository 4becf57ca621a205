"""What a graph consists of, as the modules that read one see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..core.policy import ErrorHandler
from ..routine.declaration import Routine


@dataclass(frozen=True)
class Connection:
    """One wire: an event of a routine to a slot of a routine, with the parameters that it renames."""

    source_id: str
    event: str
    target_id: str
    slot: str
    param_mapping: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.source_id}.{self.event} -> {self.target_id}.{self.slot}"


class Shape(Protocol):
    """A graph that is read and not changed."""

    @property
    def flow_id(self) -> str:
        """The name of the flow."""

    @property
    def error_handler(self) -> ErrorHandler | None:
        """The policy of routines that have none of their own."""

    @property
    def routines(self) -> Mapping[str, Routine]:
        """The routines by their ids, in the order in which they were added."""

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections, in the order in which they were made."""
