"""The frozen, compiled form of a flow: all that the engine has to look up while a job runs.

A flow is compiled into a plan once, after its last change. Deliveries carry the `SlotPlan` they go to, events carry
their routes, so that running a job resolves nothing by name but the event that a handler emits. The callables in
here are opaque to this floor: only the runtime calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .policy import ErrorHandler


class _Shared:
    """Copies of a record share what is frozen; what is worked out from it can be kept beside it."""

    __slots__ = ("__weakref__",)

    def __deepcopy__(self, memo: object) -> Any:
        return self


@dataclass(frozen=True, slots=True, eq=False)
class SlotPlan(_Shared):
    """One slot of one routine in the flow.

    ``direct``: the payload may be passed to the handler as it is. ``holds``: the policy holds emissions back until
    an attempt has succeeded. ``on_loop``: the handler is a coroutine function, which runs on the event loop.
    ``merges``: ``merge`` is a function. ``resources``: parameters of the handler, each with the factory of the resource
    that it gets.
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


@dataclass(frozen=True, slots=True, eq=False)
class Route(_Shared):
    """Where an emission goes, and which of its parameters are renamed on the way."""

    slot: SlotPlan
    rename: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, eq=False)
class EventPlan(_Shared):
    """One event of one routine; ``params`` is None when it takes any parameter.

    ``validators`` are those of the parameters that have a type; None when there are none.
    """

    name: str
    params: frozenset[str] | None
    routes: tuple[Route, ...]
    validators: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class MailboxPlan(_Shared):
    """How many deliveries of a mailbox may be handled at a time, and what its handlers are.

    ``timed``: one of its slots has a timeout. ``on_loop``: all of its handlers are coroutine functions.
    """

    limit: int
    timed: bool
    on_loop: bool


@dataclass(frozen=True, slots=True, eq=False)
class NodePlan(_Shared):
    """One routine in the flow. ``slots`` and ``events`` are filled while the plan is built, then left alone."""

    routine_id: str
    routine: Any
    slots: dict[str, SlotPlan]
    events: dict[str, EventPlan]


@dataclass(frozen=True, slots=True, eq=False)
class Plan(_Shared):
    """A whole flow, ready to run."""

    flow_id: str
    nodes: Mapping[str, NodePlan]
    slots: tuple[SlotPlan, ...]
    mailboxes: tuple[MailboxPlan, ...]
    copy_payloads: bool
    state_schema: Any = None
