"""The structure of a flow, and whether jobs that were begun under another can go on under it.

The facts of a job name slots and events, and count deliveries by the connections that an emission goes along. A flow
that has more of these than it had still understands them; one that has others does not.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from ..core.plan import EventPlan, Gather, MailboxPlan, NodePlan, Plan, Route, SlotPlan, routes_of
from ..core.policy import ErrorHandler
from ..core.reach import counts, reach_of
from ..errors import LoadError

_known: WeakKeyDictionary[Plan, dict[str, Any]] = WeakKeyDictionary()
_lock = threading.Lock()


def shape_of(plan: Plan) -> dict[str, Any]:
    """Return the structure of a flow as JSON, made once per plan; it must not be changed.

    The keys are ``"slots"``: ``[routine_id, name, how it merges or gathers, whether it handles several at a time]`` of
    each, in the order in which facts count them; ``"events"``: ``[routine_id, name, routes]`` of each, every route
    ``[routine_id, slot, renamed parameters or None]``; and ``"state"``: the name of the state model, or None.
    """
    with _lock:
        shape = _known.get(plan)
        if shape is None:
            shape = _known[plan] = _shape(plan)
        return shape


def _shape(plan: Plan) -> dict[str, Any]:
    schema = plan.state_schema
    return {
        "slots": [
            [
                _text(slot.routine_id),
                _text(slot.name),
                _taken_in(slot),
                plan.mailboxes[slot.mailbox].limit > 1,
            ]
            for slot in plan.slots
        ],
        "events": [
            [_text(node.routine_id), _text(event.name), [_route(route) for route in event.routes]]
            for node in plan.nodes.values()
            for event in node.events.values()
        ],
        "state": None if schema is None else _text(schema.model.__name__),
    }


def _taken_in(slot: SlotPlan) -> str | dict[str, Any]:
    """Return what a slot does with what arrives: how it merges, or more about one that gathers or is external."""
    merge = "function" if slot.merges else _text(slot.merge)
    if slot.gather is None and not slot.external:
        return merge
    gather = slot.gather
    row = None if gather is None else [gather.mode, gather.count, gather.key and _text(gather.key), gather.rest]
    return {"merge": merge, "gather": row, "external": slot.external}


def _taking_in(taken_in: str | dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a slot's plan that tell what it does with what arrives."""
    if isinstance(taken_in, str):
        return {"gather": None, "external": False}
    gather = None if taken_in["gather"] is None else Gather(*taken_in["gather"])
    return {"gather": gather, "external": bool(taken_in["external"])}


def _spelled(taken_in: str | dict[str, Any]) -> str:
    """Return what a slot does with what arrives, in words."""
    if isinstance(taken_in, str):
        return repr(taken_in)
    gather = _taking_in(taken_in)["gather"]
    how = repr(taken_in["merge"]) if gather is None else f"{gather}, the rest: {gather.rest}"
    return f"{how}, from outside as well" if taken_in["external"] else how


def _route(route: Route) -> list[Any]:
    rename = None if route.rename is None else {_text(old): _text(new) for old, new in sorted(route.rename.items())}
    return [_text(route.slot.routine_id), _text(route.slot.name), rename]


def _text(text: str) -> str:
    """Return a string, of a subclass too, as a plain one."""
    return str.__str__(text)


def fingerprint(shape: Mapping[str, Any]) -> str:
    """Return 64 hexadecimal digits that are the same for equal shapes, and others for any other shape."""
    return sha256(ascii([shape["slots"], shape["events"], shape["state"]]).encode("ascii")).hexdigest()


def differences(old: Any, new: Mapping[str, Any]) -> list[str]:
    """Return what keeps the jobs of a flow that had the ``old`` shape from going on under the ``new`` one.

    Each is a sentence without its full stop, such as ``"slot 'a.input' is gone"``. There are none when routines, slots,
    events, or connections of new events were added, and when nothing has changed.

    Raises:
        LoadError: when ``old`` is no shape.
    """
    try:
        slots_before, events_before, state_before = _tables(old)
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(f"this is no shape of a flow: {type(error).__name__}: {error}") from error
    slots, events, state = _tables(new)
    ids = {routine_id for routine_id, _ in (*slots, *events)}
    gone = dict.fromkeys(routine_id for routine_id, _ in (*slots_before, *events_before) if routine_id not in ids)
    found = [f"routine {routine_id!r} is gone" for routine_id in gone]
    for (routine_id, name), (merge, _) in slots_before.items():
        if routine_id in gone:
            continue
        where = f"slot '{routine_id}.{name}'"
        if (routine_id, name) not in slots:
            found.append(f"{where} is gone")
        elif slots[routine_id, name][0] != merge:
            now = _spelled(slots[routine_id, name][0])
            found.append(f"{where} takes in what arrives by {now}, and did by {_spelled(merge)}")
    for (routine_id, name), routes in events_before.items():
        if routine_id in gone:
            continue
        where = f"event '{routine_id}.{name}'"
        if (routine_id, name) not in events:
            found.append(f"{where} is gone")
        elif events[routine_id, name] != routes:
            found.append(f"{where} goes to {_told(events[routine_id, name])}, and went to {_told(routes)}")
    if (state is None) is not (state_before is None):
        found.append(
            f"the flow has no state_schema, and had {state_before}"
            if state is None
            else f"the flow has the state_schema {state}, and had none"
        )
    return found


def as_it_was(plan: Plan, shape: Any) -> Plan:
    """Return a plan as it was with an older shape, under which the facts of that time are folded.

    Slots that are gone are there again, without handlers; connections are those that there were, and slots gather, and
    are external, as they did. So the facts are understood whatever they name, and deliveries get the numbers that they
    had. Whether the flow as it is has all that the folded record needs is seen when that is read for it.
    """
    slots_before, events_before, _ = _tables(shape)
    nodes = {name: NodePlan(name, node.routine, {}, {}) for name, node in plan.nodes.items()}
    for routine_id, _ in (*slots_before, *events_before):
        nodes.setdefault(routine_id, NodePlan(routine_id, None, {}, {}))
    slots, mailboxes = [], list(plan.mailboxes)
    for slot in plan.slots:
        taken_in, _ = slots_before.get((slot.routine_id, slot.name), ("override", False))
        slots.append(slot.with_changes(node=nodes[slot.routine_id], **_taking_in(taken_in)))
        nodes[slot.routine_id].slots[slot.name] = slots[-1]
    for (routine_id, name), (taken_in, _) in slots_before.items():
        if name not in nodes[routine_id].slots:
            slots.append(_gone(nodes[routine_id], name, taken_in, len(slots), len(mailboxes)))
            nodes[routine_id].slots[name] = slots[-1]
            mailboxes.append(MailboxPlan(1, timed=False, on_loop=False))
    events = {(name, event.name): event for name, node in plan.nodes.items() for event in node.events.values()}
    routes = {}
    for source in {**events, **events_before}:
        ends = events_before.get(source, [])  # what there was not was not emitted
        routes[source] = routes_of(*source, [(nodes[to].slots[name], rename) for to, name, rename in ends])
    reach = reach_of(slots, routes)
    for (routine_id, name), leads in routes.items():
        event = events.get((routine_id, name)) or EventPlan(name, None, (), None)
        nodes[routine_id].events[name] = event.with_changes(routes=leads, counts=counts(reach, leads))
    inputs = tuple(slot for slot in slots if slot.external)
    return plan.with_changes(nodes=nodes, slots=tuple(slots), mailboxes=tuple(mailboxes), reach=reach, inputs=inputs)


def _gone(node: NodePlan, name: str, taken_in: str | dict[str, Any], index: int, mailbox: int) -> SlotPlan:
    """Return a slot that the flow has no more, as far as facts are folded by it."""
    merge = taken_in if isinstance(taken_in, str) else taken_in["merge"]
    return SlotPlan(
        index=index,
        routine_id=node.routine_id,
        name=name,
        mailbox=mailbox,
        binding=None,
        merge=merge,
        timeout=None,
        policy=ErrorHandler(),
        node=node,
        direct=False,
        holds=False,
        on_loop=False,
        merges=merge == "function",
        resources=(),
        **_taking_in(taken_in),
    )


Slots = dict[tuple[str, str], tuple[Any, bool]]
Events = dict[tuple[str, str], list[Any]]


def _tables(shape: Any) -> tuple[Slots, Events, str | None]:
    slots = {(routine_id, name): (merge, bool(many)) for routine_id, name, merge, many in shape["slots"]}
    events = {(routine_id, name): [[*route] for route in routes] for routine_id, name, routes in shape["events"]}
    for taken_in, _ in slots.values():
        _taking_in(taken_in)  # raises for what is none
    for routes in events.values():
        for route in routes:
            to, name, rename = route
            if rename is not None and not isinstance(rename, dict):
                raise ValueError("a route renames no parameters")
            if (to, name) not in slots:
                raise ValueError(f"a route leads to '{to}.{name}', which is no slot")
    return slots, events, shape["state"]


def _told(routes: list[Any]) -> str:
    told = []
    for routine_id, slot, rename in routes:
        renamed = "" if rename is None else f" ({', '.join(f'{old} as {new}' for old, new in rename.items())})"
        told.append(f"'{routine_id}.{slot}'{renamed}")
    return " and ".join(told) or "nothing"
