"""The frozen, compiled form of a flow: all that the engine has to look up while a job runs.

A flow is compiled into a plan once, after its last change. Deliveries carry the `SlotPlan` they go to, events carry
their routes, so that running a job resolves nothing by name but the event that a handler emits. The callables in
here are opaque to this floor: only the runtime calls them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .frozen import Frozen
from .policy import ErrorHandler

COUNT, SOURCES, ALL = "count", "sources", "all"
DELIVER, DROP, ERROR = "deliver", "drop", "error"
OUTSIDE = ""  # the source of what does not come along a connection


class Gather(Frozen):
    """How a slot gathers deliveries until they are handled together.

    Args:
        mode: `COUNT` of them, one of each of the `SOURCES`, or `ALL`.
        count: how many, for `COUNT`.
        key: the parameter by whose value they are put into groups, each of which is gathered by itself.
        rest: what becomes of a group that nothing can complete any more: `DELIVER`, `DROP` or `ERROR`.
    """

    mode: str
    count: int = 0
    key: str | None = None
    rest: str = DELIVER

    def __str__(self) -> str:
        many = "1 delivery" if self.count == 1 else f"{self.count} deliveries"
        what = many if self.mode == COUNT else "all" if self.mode == ALL else "one of each source"
        return f"gather {what}" + ("" if self.key is None else f" by {self.key!r}")


class SlotPlan(Frozen):
    """One slot of one routine in the flow.

    ``direct``: the payload may be passed to the handler as it is. ``holds``: the policy holds emissions back until
    an attempt has succeeded. ``on_loop``: the handler is a coroutine function, which runs on the event loop.
    ``merges``: ``merge`` is a function. ``resources``: parameters of the handler, each with the factory of the resource
    that it gets. ``external``: what comes from outside is waited for, ``deadline`` nanoseconds at the most.
    """

    index: int
    routine_id: str
    name: str
    mailbox: int
    binding: Any
    merge: Any
    timeout: float | None
    policy: ErrorHandler
    node: NodePlan
    direct: bool
    holds: bool
    on_loop: bool
    merges: bool
    resources: tuple[tuple[str, Any], ...]
    gather: Gather | None = None
    external: bool = False
    deadline: int | None = None


class Route(Frozen):
    """Where an emission goes, and which of its parameters are renamed on the way.

    ``source`` is what its connection is called among those that lead to the same slot.
    """

    slot: SlotPlan
    rename: Mapping[str, str] | None
    source: str = OUTSIDE


def routes_of(
    routine_id: str, event: str, ends: Iterable[tuple[SlotPlan, Mapping[str, str] | None]]
) -> tuple[Route, ...]:
    """Return the routes of an event to these slots, each with the parameters that it renames."""
    seen: Counter[int] = Counter()
    routes = []
    for slot, rename in ends:
        seen[slot.index] += 1
        again = f" ({seen[slot.index]})" if seen[slot.index] > 1 else ""
        routes.append(Route(slot, rename, f"{routine_id}.{event}{again}"))
    return tuple(routes)


class EventPlan(Frozen):
    """One event of one routine; ``params`` is None when it takes any parameter.

    ``validators`` are those of the parameters that have a type; None when there are none. ``counts``: what is emitted
    goes to a slot that gathers, or may lead to one, for which it is counted.
    """

    name: str
    params: frozenset[str] | None
    routes: tuple[Route, ...]
    validators: Mapping[str, Any] | None
    counts: bool = False


class Reach(Frozen):
    """From where the slots that gather can be reached; these are numbered.

    Args:
        slots: those that gather.
        gathers: how each of them does.
        numbers: their numbers, by the index of the slot.
        sources: of each, the sources that its parts come from.
        work: by the index of a slot, the gathers that may be reached by what its handler emits, and so on.
        arrivals: likewise what may be reached by a delivery on its way to the slot: these, and the slot itself.
        parts: by number, those that may be reached by what is made of its parts, but not those in a cycle with it.
    """

    slots: tuple[SlotPlan, ...]
    gathers: tuple[Gather, ...]
    numbers: Mapping[int, int]
    sources: tuple[tuple[str, ...], ...]
    work: tuple[tuple[int, ...], ...]
    arrivals: tuple[tuple[int, ...], ...]
    parts: tuple[tuple[int, ...], ...]


class MailboxPlan(Frozen):
    """How many deliveries of a mailbox may be handled at a time, and what its handlers are.

    ``timed``: one of its slots has a timeout. ``on_loop``: all of its handlers are coroutine functions.
    """

    limit: int
    timed: bool
    on_loop: bool


class NodePlan(Frozen):
    """One routine in the flow. ``slots`` and ``events`` are filled while the plan is built, then left alone."""

    routine_id: str
    routine: Any
    slots: dict[str, SlotPlan]
    events: dict[str, EventPlan]


class Plan(Frozen):
    """A whole flow, ready to run. ``reach`` is None when no slot gathers; ``inputs`` are the external slots."""

    flow_id: str
    nodes: Mapping[str, NodePlan]
    slots: tuple[SlotPlan, ...]
    mailboxes: tuple[MailboxPlan, ...]
    copy_payloads: bool
    state_schema: Any = None
    reach: Reach | None = None
    inputs: tuple[SlotPlan, ...] = ()
