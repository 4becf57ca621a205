"""Whether what a slot has gathered can be handled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..core.gathers import Part, missing
from ..core.job_record import Delivery
from ..core.plan import ERROR, SOURCES, Gather, Plan
from ..errors import GatherError, PayloadError, known_names
from ..routine.binding import shortened

MOST_SHOWN = 12


def check_parts(delivery: Delivery, plan: Plan, where: str) -> None:
    """Raise unless the delivery to a slot that gathers is a group that may be handled.

    Raises:
        PayloadError: when it could not be put into a group, or two of its sources deliver the same parameter.
        GatherError: when nothing can complete it any more, and the slot says that this is an error.
    """
    parts, reach = delivery.parts, plan.reach
    assert reach is not None
    number = reach.numbers[delivery.slot.index]
    gather, sources = reach.gathers[number], reach.sources[number]
    if not parts:
        raise PayloadError(f"{where}: {no_key(gather, delivery.payload)}")
    lacks = missing(gather, sources, parts)
    if lacks and gather.rest == ERROR:
        raise GatherError(
            f"{where}: it is to {gather}{_key_of(gather, parts)}, and nothing can come any more that completes them; "
            f"came: {_spelled(gather, parts)}; missing: {lacks}"
        )
    if gather.mode == SOURCES:
        _check_names(gather, parts, where)


def no_key(gather: Gather, payload: Mapping[str, Any]) -> str:
    """Return why a payload cannot be put into a group, in words; an empty text when it can."""
    if gather.key is None:
        return ""
    what = f"the slot gathers by parameter {gather.key!r}"
    if gather.key not in payload:
        return f"{what}, which is missing in this payload{known_names(gather.key, payload, 'parameters')}"
    try:
        hash(payload[gather.key])
    except TypeError:
        return f"{what}, and {shortened(payload[gather.key])} cannot be a key: it is not hashable"
    return ""


def _key_of(gather: Gather, parts: tuple[Part, ...]) -> str:
    return "" if gather.key is None else f" = {shortened(parts[0].payload[gather.key])}"


def _spelled(gather: Gather, parts: tuple[Part, ...]) -> str:
    """Return what came: the payloads, or the sources and how much each of them has delivered."""
    if gather.mode == SOURCES:
        came = Counter(part.source or "one from outside" for part in parts)
        return ", ".join(source if many == 1 else f"{source} ({many} times)" for source, many in came.items())
    more = f" and {len(parts) - MOST_SHOWN} more" if len(parts) > MOST_SHOWN else ""
    return ", ".join(shortened(part.payload) for part in parts[:MOST_SHOWN]) + more


def _check_names(gather: Gather, parts: tuple[Part, ...], where: str) -> None:
    seen: dict[str, str] = {}
    for part in parts:
        for name in part.payload:
            other = seen.setdefault(name, part.source)
            if other != part.source and name != gather.key:
                raise PayloadError(
                    f"{where}: {other or 'what came from outside'} and {part.source or 'what came from outside'} both "
                    f"deliver parameter {name!r}, and the slot takes one value of each source; rename one with "
                    f"param_mapping"
                )
