"""What somebody sleeps on until there may be something to do."""

from __future__ import annotations

from typing import Protocol


class Bell(Protocol):
    """A `threading.Event`, for a thread that sleeps, or a bell of an event loop, for a task."""

    def set(self) -> None:
        """Wake whoever sleeps on it. Any thread may call it, at any time."""

    def clear(self) -> None:
        """Have it sleep again, after it was rung. Whoever sleeps on it calls it."""


def ring(bells: list[Bell]) -> None:
    """Wake all who sleep on these bells."""
    for bell in bells:
        bell.set()
    bells.clear()
