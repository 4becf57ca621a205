"""Outputs of routines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Event:
    """An output of a routine. Made by `Routine.define_event`. ``output_params`` is None when any may be emitted."""

    name: str
    output_params: tuple[str, ...] | None
