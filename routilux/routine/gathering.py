"""The options of a slot that gathers, or that gets something from outside, checked."""

from __future__ import annotations

from typing import Any

from ..core.numbers import seconds, whole
from ..core.plan import ALL, COUNT, DELIVER, DROP, ERROR, SOURCES, Gather
from ..errors import DeclarationError, known_names

RESTS = (DELIVER, DROP, ERROR)
MODES = (SOURCES, ALL)


def gather_of(gather: Any, key: Any, rest: Any, merge_strategy: Any, where: str) -> Gather | None:
    """Return how a slot gathers, None when it does not; see `Routine.define_slot` for the options.

    Raises:
        DeclarationError: for an option that is unknown, out of range, or does not go with the others.
    """
    if gather is None:
        for name, value in (("key", key), ("rest", rest)):
            if value is not None:
                raise DeclarationError(f"{where}: {name}={value!r} is for a slot that gathers; give it gather= as well")
        return None
    if isinstance(gather, str):
        if gather not in MODES:
            raise DeclarationError(
                f"{where}: unknown gather {gather!r}; use a number of deliveries, 'sources' for one of each "
                f"connection, or 'all'"
            )
        mode, count = gather, 0
    else:
        mode, count = COUNT, whole(gather, f"{where}: gather", 1)
    if merge_strategy != "override":
        raise DeclarationError(f"{where}: a slot either gathers or merges; leave merge_strategy out, or gather")
    if key is not None and (not isinstance(key, str) or not key):
        raise DeclarationError(f"{where}: key must be the name of a parameter, not {key!r}")
    if rest is None:
        rest = ERROR if mode == SOURCES else DELIVER
    elif mode == ALL and rest != DELIVER:
        raise DeclarationError(f"{where}: gather='all' leaves no rest; leave rest={rest!r} out")
    elif rest not in RESTS:
        raise DeclarationError(f"{where}: unknown rest {rest!r}{known_names(rest, RESTS, 'choices')}")
    return Gather(mode, count, key, rest)


def deadline_of(external: Any, deadline: Any, where: str) -> float | None:
    """Return the seconds after which an external slot is closed by itself, None for no such time.

    Raises:
        DeclarationError: when it is no such number, or the slot is not external.
    """
    if not isinstance(external, bool):
        raise DeclarationError(f"{where}: external must be True or False, not {external!r}")
    if deadline is not None and not external:
        raise DeclarationError(f"{where}: deadline={deadline!r} is for an external slot; give it external=True as well")
    return seconds(deadline, f"{where}: deadline")
