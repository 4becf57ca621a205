"""Checks of the numbers that people pass as options."""

from __future__ import annotations

import math

from ..errors import DeclarationError

LONGEST_SECONDS = 100 * 365 * 86_400.0  # about a century; also within what a thread may wait for


def whole(value: object, name: str, least: int, most: int | None = None) -> int:
    """Return ``value`` when it is an int from ``least`` to ``most``; raise DeclarationError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        bounds = f"from {least:,} to {most:,}" if most is not None else f"of at least {least:,}"
        raise DeclarationError(f"{name} must be a whole number {bounds}, not {_shown(value)}")
    return value


def real(value: object, name: str, least: float, most: float = LONGEST_SECONDS, *, above: bool = False) -> float:
    """Return ``value`` as a float when it lies between ``least`` and ``most``; raise DeclarationError otherwise.

    With ``above`` it must be greater than ``least``, not equal to it.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # A comparison with NaN is false, and ints of any size compare with floats.
        low_enough = value <= most
        high_enough = value > least if above else value >= least
        if low_enough and high_enough:
            return float(value)
    bounds = f"above {least:g}" if above else f"of at least {least:g}"
    raise DeclarationError(f"{name} must be a number {bounds} and at most {most:g}, not {_shown(value)}")


def seconds(value: object, name: str, *, above: bool = True) -> float | None:
    """Return a time limit in seconds (None stands for no limit); raise DeclarationError unless it is above 0.

    Without ``above`` it may be 0 as well: who waits so long just looks.
    """
    return None if value is None else real(value, name, 0.0, above=above)


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**15:  # Python refuses to spell out very long ints
        return f"{'-' if value < 0 else ''}10**{int(math.log10(abs(value)))} or so"
    return repr(value)
