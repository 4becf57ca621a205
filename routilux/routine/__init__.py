"""What a routine is: its slots, events, configuration and policy, and how a payload becomes a call of a handler."""

from .declaration import Event, Routine, Slot
from .resource import Resource
from .scope import ExecutionContext

__all__ = ["Event", "ExecutionContext", "Resource", "Routine", "Slot"]
