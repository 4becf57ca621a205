"""What passes, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..routine.declaration import Routine
from ..routine.event import Event
from .taking import taken_by, taking


class Filter(Routine):
    """Emits what arrives as ``output`` when a predicate is true of a value, else as ``rejected``.

    Args:
        predicate: takes the value, which is validated as it annotates it.
        of: the parameter that is the value.
        options: those of the slot ``input``, such as ``concurrency``; see `Routine.define_slot`.

    Raises:
        DeclarationError: when the predicate cannot be called with one value, or an option is out of range.
    """

    output = Event()
    rejected = Event()

    def __init__(self, predicate: Callable[[Any], Any], *, of: str = "value", **options: Any) -> None:
        super().__init__()

        def act(value: Any, rest: dict[str, Any]) -> None:
            event = self.output if predicate(value) else self.rejected
            event.emit(**{**rest, of: value})

        self.input = self.define_slot("input", handler=taking(of, taken_by(predicate, "Filter"), act), **options)
