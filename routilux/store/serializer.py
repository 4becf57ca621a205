"""What programs bring to save values of their own classes."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ..errors import DeclarationError


@runtime_checkable
class Serializer(Protocol):
    """What turns values of a program's own classes into JSON and back, when jobs are saved and loaded."""

    def serialize(self, value: Any) -> Any:
        """Return a form of the value that can be saved. Raises TypeError for a value that it does not know."""

    def deserialize(self, data: Any) -> Any:
        """Return the value whose form this is."""


def check_serializer(serializer: object, where: str) -> None:
    """Raise DeclarationError unless it is None or has the methods of a `Serializer`."""
    if serializer is not None and (isinstance(serializer, type) or not isinstance(serializer, Serializer)):
        raise DeclarationError(
            f"{where}: a serializer has the methods serialize(value) and deserialize(data), unlike {serializer!r}"
        )
