"""How much room a state takes, as JSON."""

from __future__ import annotations

import sys
from typing import Any

from ..errors import StateError
from ..store.plain import size_of_few


def check_size(shared: dict[str, Any], most: int, where: str, known: int | None = None) -> None:
    """Raise StateError when the shared data take more than ``most`` bytes as JSON.

    What has no JSON form, which a job in memory may hold, does not count; a size that is known already is given.
    """
    size = known
    if size is None:
        size = sum(size_of(key, value) for key, value in shared.items())
    if size > most:
        raise StateError(
            f"{where}: the state takes {size:,} bytes as JSON, more than max_state_bytes={most:,}; keep large things "
            f"elsewhere and a reference to them in the state"
        )


def size_of(key: str, value: Any) -> int:
    """Return how many bytes a key of the shared data and its value take as JSON, with quotes, a colon and a comma."""
    # pydantic takes any value, and is the faster one; most states can do without, so that it is not imported for them.
    size = None if "pydantic_core" in sys.modules else size_of_few(value)
    if size is None:
        import pydantic_core

        try:
            size = len(pydantic_core.to_json(value, fallback=lambda unknown: None, bytes_mode="base64"))
        except Exception:  # it contains itself, or a serializer of its own raises
            size = 0
    return size + len(key) + 4
