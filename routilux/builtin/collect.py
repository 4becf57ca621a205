"""All values in one place."""

from __future__ import annotations

from typing import Any

from ..routine.declaration import Routine
from ..routine.event import Event
from .taking import check_name, taking


class Collect(Routine):
    """Puts all values into a list in the shared data, when no more of them can come, and emits it as ``output``.

    A delivery that lacks the parameter takes no part, unless all do, which is an error.

    Args:
        into: the key of the shared data. Values that come later, in a cycle, are appended.
        of: the parameter whose values these are; the list is emitted as the same one.

    Raises:
        DeclarationError: when an option is out of range.
    """

    output = Event()

    def __init__(self, into: str = "collected", *, of: str = "value") -> None:
        super().__init__()
        check_name(into, "into")

        def act(values: Any, rest: dict[str, Any]) -> None:
            ctx = self.get_execution_context()
            assert ctx is not None
            before = ctx.job_state.get_shared_data(into, [])
            ctx.job_state.update_shared_data(into, [*before, *values])
            self.output.emit(**{of: values})

        self.input = self.define_slot("input", handler=taking(of, list[Any], act), gather="all")
