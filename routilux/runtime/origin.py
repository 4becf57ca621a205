"""What a job began with, in short: two jobs with one id are the same if it is the same."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from operator import itemgetter
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from ..core.copying import ATOMS
from ..core.job_record import JobRecord
from ..core.plan import SlotPlan


def origin_of(record: JobRecord, entry: SlotPlan, payload: Mapping[str, Any]) -> str:
    """Return 64 hexadecimal digits that differ for jobs with another entry, payload or initial state."""
    began = [entry.routine_id, entry.name, payload, record.shared, record.routine_states]
    form = to_json(
        _ordered(began), fallback=lambda other: type(other).__qualname__, bytes_mode="base64", inf_nan_mode="constants"
    )
    return sha256(form).hexdigest()


def _ordered(value: Any) -> Any:
    """Return a value in which the order of keys and of the items of sets plays no part."""
    if value.__class__ in ATOMS:  # first, as most values are, and the looks at other types are slow
        return value
    if isinstance(value, BaseModel):
        value = {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if isinstance(value, Mapping):
        return sorted([[repr(key), _ordered(each)] for key, each in value.items()], key=itemgetter(0))
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, (list, tuple)):
        return [_ordered(each) for each in value]
    return value
