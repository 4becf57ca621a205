"""From declarations to the plan that the engine reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.plan import EventPlan, MailboxPlan, NodePlan, Plan, SlotPlan, routes_of
from ..core.policy import STOP, ErrorHandler
from ..core.reach import counts, reach_of
from ..errors import DeclarationError, known_names
from ..routine.declaration import Routine, declaration_of
from ..routine.gathering import gather_of
from ..routine.resource import Factory
from ..routine.slot import Slot
from .shape import Connection


def compile_plan(
    flow_id: str,
    routines: Mapping[str, Routine],
    connections: Iterable[Connection],
    flow_handler: ErrorHandler | None,
    factories: Mapping[str, Factory],
    **options: Any,
) -> Plan:
    """Return the plan of a flow; ``options`` are further fields of the plan.

    The policy of a slot is the routine's, else the flow's, else STOP.

    Raises:
        DeclarationError: when a handler asks for a resource by a name that is not among the ``factories``.
    """
    nodes: dict[str, NodePlan] = {}
    slots: list[SlotPlan] = []
    mailboxes: list[MailboxPlan] = []
    for routine_id, routine in routines.items():
        node = nodes[routine_id] = NodePlan(routine_id, routine, {}, {})
        policy = declaration_of(routine).error_handler or flow_handler or STOP
        _add_slots(node, policy, factories, f"flow {flow_id!r}, routine {routine_id!r}", slots, mailboxes)
    ends: dict[tuple[str, str], list[tuple[SlotPlan, dict[str, str] | None]]] = {}
    for wire in connections:
        target = nodes[wire.target_id].slots[wire.slot]
        ends.setdefault((wire.source_id, wire.event), []).append((target, dict(wire.param_mapping) or None))
    routes = {source: routes_of(*source, found) for source, found in ends.items()}
    reach = reach_of(slots, routes)
    for routine_id, node in nodes.items():
        for event in declaration_of(routines[routine_id]).events.values():
            params = None if event.output_params is None else frozenset(event.output_params)
            leads = routes.get((routine_id, event.name), ())
            node.events[event.name] = EventPlan(
                event.name, params, leads, event.validators or None, counts(reach, leads)
            )
    inputs = tuple(slot for slot in slots if slot.external)
    return Plan(flow_id, nodes, tuple(slots), tuple(mailboxes), reach=reach, inputs=inputs, **options)


def _resources(slot: Slot, factories: Mapping[str, Factory], where: str) -> tuple[tuple[str, Factory], ...]:
    """Return the parameters of a slot's handler that are resources, each with what makes it."""
    found = []
    for parameter, resource in slot.binding.resources.items():
        factory = resource.factory
        if isinstance(factory, str):
            if factory not in factories:
                raise DeclarationError(
                    f"{where}, slot {slot.name!r}: parameter {parameter!r} of the handler is resource {factory!r}, "
                    f"which add_resource() has not added{known_names(factory, factories, 'resources')}"
                )
            factory = factories[factory]
        found.append((parameter, factory))
    return tuple(found)


def _add_slots(
    node: NodePlan,
    policy: ErrorHandler,
    factories: Mapping[str, Factory],
    where: str,
    slots: list[SlotPlan],
    mailboxes: list[MailboxPlan],
) -> None:
    """Add the slots of one routine: those that handle one delivery at a time share a mailbox."""
    declared = declaration_of(node.routine).slots.values()
    shared = None
    if any(slot.concurrency == 1 for slot in declared):
        shared = len(mailboxes)
        sharing = [slot for slot in declared if slot.concurrency == 1]
        timed = any(slot.timeout is not None for slot in sharing)
        mailboxes.append(MailboxPlan(1, timed, all(slot.binding.on_loop for slot in sharing)))
    for slot in declared:
        mailbox = shared
        if mailbox is None or slot.concurrency > 1:
            mailbox = len(mailboxes)
            mailboxes.append(MailboxPlan(slot.concurrency, slot.timeout is not None, slot.binding.on_loop))
        plan = SlotPlan(
            index=len(slots),
            routine_id=node.routine_id,
            name=slot.name,
            mailbox=mailbox,
            binding=slot.binding,
            merge=slot.merge_strategy,
            timeout=slot.timeout,
            policy=policy,
            node=node,
            direct=slot.binding.direct
            and slot.timeout is None
            and slot.gather is None
            and not callable(slot.merge_strategy),
            holds=policy.holds_emissions,
            on_loop=slot.binding.on_loop,
            merges=callable(slot.merge_strategy),
            resources=_resources(slot, factories, where),
            gather=gather_of(slot.gather, slot.key, slot.rest, slot.merge_strategy, where),
            external=slot.external,
            deadline=None if slot.deadline is None else int(slot.deadline * 1e9),
        )
        node.slots[slot.name] = plan
        slots.append(plan)
