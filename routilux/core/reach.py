"""From where the slots that gather can be reached: worked out once, when a flow is compiled.

The handler of a slot may emit any event of its routine. So a way leads from a slot to all slots that an event of its
routine is connected to, and from these on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .plan import OUTSIDE, Reach, Route, SlotPlan

Routes = Mapping[tuple[str, str], Sequence[Route]]  # by routine and event


def reach_of(slots: Sequence[SlotPlan], routes: Routes) -> Reach | None:
    """Return from where the slots that gather can be reached along these routes; None when none gathers."""
    joins = [slot for slot in slots if slot.gather is not None]
    if not joins:
        return None
    gathers = tuple(slot.gather for slot in joins if slot.gather is not None)
    number_of = {slot.index: number for number, slot in enumerate(joins)}
    into = _leading(slots, routes)
    ways = [_upstream(slot.index, into) for slot in joins]
    work = tuple(tuple(n for n, way in enumerate(ways) if slot.index in way) for slot in slots)
    arrivals = tuple(
        tuple(sorted({*work[slot.index], *([number_of[slot.index]] if slot.index in number_of else [])}))
        for slot in slots
    )
    parts = tuple(
        tuple(n for n in work[slot.index] if n != mine and joins[n].index not in ways[mine])
        for mine, slot in enumerate(joins)
    )
    sources = tuple(_sources(slot, routes) for slot in joins)
    return Reach(tuple(joins), gathers, number_of, sources, work, arrivals, parts)


def counts(reach: Reach | None, routes: Iterable[Route]) -> bool:
    """Whether what goes along one of these routes is counted for a slot that gathers."""
    return reach is not None and any(reach.arrivals[route.slot.index] for route in routes)


def _leading(slots: Sequence[SlotPlan], routes: Routes) -> dict[int, set[int]]:
    """Return, for each slot, those from which a way leads straight to it."""
    of_routine: dict[str, list[int]] = {}
    for slot in slots:
        of_routine.setdefault(slot.routine_id, []).append(slot.index)
    into: dict[int, set[int]] = {slot.index: set() for slot in slots}
    for (routine_id, _), ends in routes.items():
        for route in ends:
            into[route.slot.index].update(of_routine.get(routine_id, ()))
    return into


def _upstream(slot: int, into: Mapping[int, set[int]]) -> set[int]:
    """Return the slots from which a way leads to this one; itself only if it is in a cycle."""
    found: set[int] = set()
    waiting = [slot]
    while waiting:
        new = into[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def _sources(slot: SlotPlan, routes: Routes) -> tuple[str, ...]:
    found = [route.source for ends in routes.values() for route in ends if route.slot.index == slot.index]
    return (*found, OUTSIDE) if slot.external else tuple(found)
