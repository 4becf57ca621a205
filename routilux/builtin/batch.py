"""So many deliveries in one."""

from __future__ import annotations

from typing import Any

from ..core.numbers import whole
from ..routine.declaration import Routine
from ..routine.event import Event


class Batch(Routine):
    """Emits so many deliveries as one ``output``: each parameter becomes the list of its values.

    Args:
        count: how many deliveries make a batch.
        key: a parameter by whose value they are sorted into batches; it is emitted as it is.
        rest: what becomes of the deliveries of a batch that is not full in the end: ``"deliver"``, ``"drop"`` or
            ``"error"``; see `Routine.define_slot`.

    Raises:
        DeclarationError: when an option is out of range.
    """

    output = Event()

    def __init__(self, count: int, *, key: str | None = None, rest: str = "deliver") -> None:
        super().__init__()
        whole(count, "Batch: count", 1)
        self.input = self.define_slot("input", handler=self._pass_on, gather=count, key=key, rest=rest)

    def _pass_on(self, **lists: Any) -> None:
        self.output.emit(**lists)
