"""Where the instances inside values come from, and what is wrong with them.

A handler changes copies. Which of them is a copy of what tells, when they are written, what was changed, and so what
`models` has to validate; `Refusal` says what it does not accept. Nothing here needs pydantic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from ..core.copying import ATOMS, attributes, copy_payload
from ..core.models import BaseModel, is_model

At = tuple[Any, ...]  # where something lies: field, key, index, field, ...
Origins = dict[int, tuple[Any, Any]]  # id of a copy of an instance -> the copy itself, and what it is a copy of


class Refusal(Exception):
    """Values that do not fit: where each lies, what is wrong with it, and the value."""

    def __init__(self, problems: Iterable[tuple[At, str, str]]) -> None:
        super().__init__()
        self.problems = list(problems)

    def __str__(self) -> str:
        return "; ".join(
            f"{'.'.join(map(str, at)) or 'as a whole'}: {message}{f' (given {value})' if value else ''}"
            for at, message, value in self.problems
        )


def bare(model: type[BaseModel], fields: dict[str, Any]) -> BaseModel:
    """Return an instance of a model with these values as they are, which become its own, without private attributes."""
    made = model.__new__(model)
    object.__setattr__(made, "__dict__", fields)
    object.__setattr__(made, "__pydantic_fields_set__", set(fields))
    object.__setattr__(made, "__pydantic_extra__", {} if model.model_config.get("extra") == "allow" else None)
    object.__setattr__(made, "__pydantic_private__", None)
    return made


def paired(copied: Any, original: Any, origins: Origins, done: set[int] | None = None) -> None:
    """Note which instances inside a value are copies of which; nothing has been changed yet since it was copied."""
    done = set() if done is None else done
    if copied is original or copied.__class__ in ATOMS or id(copied) in done:
        return
    done.add(id(copied))
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(copied, dict):
        pairs = zip(copied.values(), original.values(), strict=True)
    elif isinstance(copied, (list, tuple, deque)):
        pairs = zip(copied, original, strict=True)
    elif is_model(copied) or hasattr(copied.__class__, "__dataclass_fields__"):
        origins[id(copied)] = (copied, original)
        inside = _attributes(original)
        pairs = [(item, inside[name]) for name, item in _attributes(copied).items() if name in inside]
    for one, other in pairs:
        paired(one, other, origins, done)


def carried(values: dict[str, Any], origins: Origins) -> tuple[dict[str, Any], Origins]:
    """Return copies of values, and where instances in them come from, given that of the instances in the values."""
    copies = copy_payload(values)
    if not origins:
        return copies, {}
    steps: Origins = {}
    paired(copies, values, steps)
    return copies, {key: (each, origins[id(held)][1]) for key, (each, held) in steps.items() if id(held) in origins}


def _attributes(value: Any) -> dict[str, Any]:
    return value.__dict__ if is_model(value) else attributes(value)
