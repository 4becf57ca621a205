"""What a routine class declares in its body: which events and slots its instances have."""

from __future__ import annotations

from typing import Any

from ..errors import DeclarationError
from .event import Event
from .method import SlotMethod

Declared = Event | SlotMethod[..., Any]


def declared_by(cls: type, reserved: frozenset[str]) -> tuple[Declared, ...]:
    """Return the events and slots that a class has, those of its bases first, in the order of their definition.

    Args:
        cls: the class.
        reserved: the names that mean something else on every routine.

    Raises:
        DeclarationError: when one would hide a reserved name, two have one name, or one of a base is replaced by
            something else than another one.
    """
    found: dict[str, Declared] = {}
    owners: dict[str, type] = {}
    for owner in reversed(cls.__mro__):
        for attribute, value in vars(owner).items():
            if isinstance(value, (Event, SlotMethod)):
                if attribute in reserved:
                    raise DeclarationError(_hiding(cls, attribute, value))
                if isinstance(value, Event) and value.name != attribute:
                    raise DeclarationError(
                        f"{cls.__name__}.{attribute}: this Event is declared as {value.name!r} already; make another"
                    )
            known = found.get(attribute)
            if isinstance(value, (Event, SlotMethod)) and (known is None or _kind(value) == _kind(known)):
                found[attribute], owners[attribute] = value, owner
            elif known is not None:
                if value is not None:
                    raise DeclarationError(_replacing(cls, owner, attribute, known, owners[attribute]))
                del found[attribute]
    named: dict[tuple[str, str], str] = {}
    for attribute, each in found.items():
        other = named.setdefault((_kind(each), each.name), attribute)
        if other != attribute:
            raise DeclarationError(
                f"{cls.__name__}: {_kind(each)} {each.name!r} is declared twice, as {other!r} and as {attribute!r}"
            )
    return tuple(found.values())


def _kind(each: Declared) -> str:
    return "event" if isinstance(each, Event) else "slot"


def _hiding(cls: type, attribute: str, value: Declared) -> str:
    remedy = f"; for a slot of this name, write @slot(name={attribute!r}) above a method with another"
    return (
        f"{cls.__name__}.{attribute}: {_kind(value)} {attribute!r} would hide what every routine has under this name; "
        f"choose another{'' if isinstance(value, Event) else remedy}"
    )


def _replacing(cls: type, owner: type, attribute: str, known: Declared, base: type) -> str:
    if isinstance(known, Event):
        kind, remedy = "event", "an Event"
    else:
        kind, remedy = "slot", "a method with @slot above its def"
    return (
        f"{cls.__name__}: {owner.__name__}.{attribute} replaces the {kind} {known.name!r} of {base.__name__} by what "
        f"is none; make it {remedy}, give it another name, or set it to None to take the {kind} away"
    )
