"""What a routine is: its slots, events, configuration and policy, and how a payload becomes a call of a handler."""

from .declaration import Routine
from .event import Event
from .resource import Resource
from .scope import ExecutionContext
from .slot import Slot

__all__ = ["Event", "ExecutionContext", "Resource", "Routine", "Slot"]
