"""Many values from one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import PayloadError
from ..routine.binding import shortened
from ..routine.declaration import Routine
from ..routine.event import Event
from .taking import check_name, taking, where_of


class Split(Routine):
    """Emits each item of a value as an ``output`` of its own, in order; the other parameters go along with each.

    Args:
        of: the parameter whose value has the items: a list, or anything else that can be iterated over, but no text.
        emits: the parameter that an item becomes, in place of one that has this name.
        options: those of the slot ``input``, such as ``concurrency``; see `Routine.define_slot`.

    Raises:
        DeclarationError: when an option is out of range.
    """

    output = Event()

    def __init__(self, *, of: str = "value", emits: str = "value", **options: Any) -> None:
        super().__init__()
        check_name(emits, "emits")

        def act(value: Any, rest: dict[str, Any]) -> None:
            if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
                raise PayloadError(f"{where_of(self)}: {of} = {shortened(value)} has no items that could be emitted")
            for item in value:
                self.output.emit(**{**rest, emits: item})

        self.input = self.define_slot("input", handler=taking(of, Any, act), **options)
