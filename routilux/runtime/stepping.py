"""What ``ctx.step`` needs of a turn, in a job without a store: nothing is recorded, and nothing is replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from ..core.copying import copy_value
from ..core.job_record import Activation
from ..core.points import Point
from ..errors import StateError, StepError
from .job import Job
from .operations import Operations


class Stepping(Operations):
    """Steps of the activation that runs.

    ``in_step`` holds the key of the step whose function runs now. Each activation has a list of its own: a thread that
    was given up may still be inside a step, and leave it while the turn is at another activation.
    """

    __slots__ = ("in_step", "names", "point")

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.names: set[str] = set()
        self.point: Point | None = None
        self.in_step: list[str] = []

    def effects(self) -> Callable[[Any], Any]:
        """Return what does, on this thread, what an operation of ``ctx.step`` asks for."""
        raise NotImplementedError

    def check_point(self, what: str) -> Activation:
        """Return the activation; raise unless it may come to a point now."""
        activation = self.acting(what)
        self.check(activation)
        if self.editing is not None:
            raise StateError(f"{self.where(activation.slot)}: {what} inside edit_state(): leave the edit first")
        if self.in_step:
            raise StepError(f"{self.where(activation.slot)}: {what} inside a step: steps cannot be nested")
        return activation

    def name(self, name: str, what: str) -> None:
        """Raise unless a point of this activation may have this name."""
        where = self.where(self.check_point(what).slot)
        if not isinstance(name, str) or not name:
            raise StepError(f"{where}: {what}: a name is a non-empty string, not {name!r}")
        if name in self.names:
            raise StepError(
                f"{where}: {what}: the name {name!r} was used before in this activation; names tell steps apart when "
                f"the handler runs again, so that each needs its own (in a loop, add an index)"
            )
        self.names.add(name)
        self.touched = True  # so that the names are forgotten at the end

    def reach(self, kind: str, name: str | None) -> Point | None:
        """Come to a point; return it if the handler has been there before."""
        self.commit_draft()
        return None

    def commit(self, kind: str, name: str | None = None, outcome: Any = None) -> Any:
        """Commit a point, which is nothing in a job without a store."""

    def is_over(self, point: Point) -> bool:
        """Whether what a point waits for has come; in a job without a store, the handler went on then."""
        return True

    def arrived(self, name: str) -> Point | None:
        """Return the point at which the handler has waited."""
        return self.point

    def place_of(self, name: str) -> tuple[str, str]:
        """Return the handler and step as they stand in messages, and the key of the step."""
        activation = self.activation
        assert activation is not None
        where = f"{self.where(activation.slot)}, step {name!r}"
        return where, f"{self.record.job_id}/{activation.id}/{name}"

    def encode(self, value: Any, what: str) -> Any:
        """Return the form in which a value is kept: a copy."""
        return copy_value(value)

    def decode(self, form: Any, what: str) -> Any:
        """Return the value of a form."""
        return copy_value(form)

    def key(self) -> str:
        """Return the key of the step whose function runs. Raises StepError outside a step."""
        if not self.in_step:
            raise StepError("step.key is that of the step whose function runs; there is none now")
        return self.in_step[-1]

    def no_wait(self, name: str) -> NoReturn:
        """Raise for a wait that would hold a thread."""
        where, _ = self.place_of(name)
        raise StepError(
            f"{where}: a plain handler can wait only in a job with a store, which lets it go and runs it again "
            f"later; give the flow an engine with one, Flow(engine=Engine(store=open_store('memory:'))), or make the "
            f"handler a coroutine function"
        )

    def forget_state(self) -> None:
        """Forget what an activation has done."""
        super().forget_state()
        self.names = set()
        self.in_step = []
        self.point = None
