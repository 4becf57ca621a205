"""The graph that a flow is: routines by id, and connections between their events and slots."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, overload

from ..core.plan import Plan
from ..core.policy import ErrorHandler
from ..errors import DeclarationError
from ..routine.declaration import Routine, declaration_of, find
from ..routine.event import Event
from ..routine.resource import Factory, check_factory, check_resource_name
from ..routine.slot import Slot
from ..store.known_types import KnownTypes, check_types
from .compiling import compile_plan
from .description import describe
from .drawing import to_dot, to_mermaid
from .ends import Ends, by_name
from .findings import Finding, findings
from .schema import StateSchema
from .shape import Connection


class Graph:
    """Routines and connections, before anything runs."""

    def __init__(self, flow_id: str) -> None:
        if not isinstance(flow_id, str) or not flow_id:
            raise DeclarationError(f"flow_id must be a non-empty string, not {flow_id!r}")
        self.flow_id = flow_id
        self.copy_payloads = True
        self.schema: StateSchema | None = None
        self.error_handler: ErrorHandler | None = None
        self._routines: dict[str, Routine] = {}
        self._connections: dict[Connection, None] = {}
        self._factories: dict[str, Factory] = {}
        self._plan: Plan | None = None
        self._types: dict[type, None] = {}
        self._learned: dict[Any, None] = {}
        self._known: KnownTypes | None = None

    @property
    def routines(self) -> Mapping[str, Routine]:
        """The routines by their ids, in the order in which they were added."""
        return MappingProxyType(self._routines)

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections, in the order in which they were made."""
        return tuple(self._connections)

    def changing(self, what: str) -> None:
        """Note that the declaration is about to change: what was compiled from it no longer holds."""
        self._plan = self._known = None

    def add_routine(self, routine: Routine, routine_id: str | None = None) -> str:
        """Add a routine and return its id; by default the name of its class, numbered from the second on.

        Raises:
            DeclarationError: when it is no `Routine` instance, is in this flow already, or the id is taken or no
                non-empty string, or when a job of this flow is running.
        """
        where = f"flow {self.flow_id!r}"
        if not isinstance(routine, Routine):
            hint = f"; add an instance: {routine.__name__}()" if isinstance(routine, type) else ""
            raise DeclarationError(f"{where}: only a Routine can be added, not {routine!r}{hint}")
        known_id = declaration_of(routine).holders.get(self)
        if known_id is not None:
            raise DeclarationError(f"{where}: this {type(routine).__name__} is in the flow already, as {known_id!r}")
        if routine_id is None:
            routine_id = self._free_id(type(routine).__name__)
        if not isinstance(routine_id, str) or not routine_id:
            raise DeclarationError(f"{where}: routine_id must be a non-empty string, not {routine_id!r}")
        if routine_id in self._routines:
            raise DeclarationError(f"{where}: there is a routine {routine_id!r} already")
        self.changing(f"add routine {routine_id!r}")
        self._routines[routine_id] = routine
        declaration_of(routine).holders[self] = routine_id
        return routine_id

    def _free_id(self, name: str) -> str:
        number, routine_id = 1, name
        while routine_id in self._routines:
            number += 1
            routine_id = f"{name}_{number}"
        return routine_id

    @overload
    def connect(
        self,
        source_id: str,
        event: str,
        target_id: str,
        slot: str,
        param_mapping: Mapping[str, str] | None = None,
    ) -> Connection: ...

    @overload
    def connect(
        self, event: Event, slot: Slot[..., Any], param_mapping: Mapping[str, str] | None = None, /
    ) -> Connection: ...

    @overload
    def connect(
        self, event: Event, slot: Slot[..., Any], /, *, param_mapping: Mapping[str, str] | None = None
    ) -> Connection: ...

    def connect(
        self, source_id: Any, event: Any = None, target_id: Any = None, slot: Any = None, param_mapping: Any = None
    ) -> Connection:
        """Deliver every emission of an event to a slot, and return the connection.

        The event and the slot are given by name, ``connect("source", "output", "sink", "input")``, or as those of the
        routines themselves: ``connect(source.output, sink.input)``.

        Args:
            source_id: the routine that emits.
            event: the name of one of its events; or, as the first argument, an `Event` of a routine in the flow.
            target_id: the routine that receives; it may be the same one.
            slot: the name of one of its slots; or, as the second argument, a `Slot` of a routine in the flow.
            param_mapping: event parameters to rename, as ``{event parameter: slot parameter}``. A renamed one does
                not arrive under its old name as well; those not mentioned keep their names.

        Raises:
            DeclarationError: when a name is unknown, a routine is not in the flow, the mapping does not fit the event
                or the handler, the same connection exists, or a job of this flow is running.
        """
        where = f"flow {self.flow_id!r}"
        given = Ends(source_id, event, target_id, slot, param_mapping)
        source_id, event, target_id, slot, param_mapping = by_name(given, self, where)
        source = find(self._routines, source_id, "routine", where)
        target = find(self._routines, target_id, "routine", where)
        the_event = find(declaration_of(source).events, event, "event", f"{where}: routine {source_id!r}")
        the_slot = find(declaration_of(target).slots, slot, "slot", f"{where}: routine {target_id!r}")
        if param_mapping is not None and not isinstance(param_mapping, Mapping):
            raise DeclarationError(
                f"{where}: param_mapping must map event parameters to slot parameters, not be {param_mapping!r}"
            )
        pairs = tuple((param_mapping or {}).items())
        connection = Connection(source_id, event, target_id, slot, pairs)
        self._check_mapping(connection, the_event, the_slot)
        if the_slot.key is not None and the_event.output_params is not None:
            where = f"{where}: {connection}: slot {slot!r} gathers by a parameter that the event does not deliver"
            find(dict.fromkeys(_delivered(connection, the_event)), the_slot.key, "parameter", where)
        if the_slot.gather == "sources":
            self._check_source(connection, the_event, the_slot)
        if connection in self._connections:
            raise DeclarationError(f"{where}: {connection} is connected already")
        self.changing(f"connect {connection}")
        self._connections[connection] = None
        return connection

    def _check_mapping(self, connection: Connection, event: Event, slot: Slot) -> None:
        where = f"flow {self.flow_id!r}: {connection}: param_mapping"
        pairs = connection.param_mapping
        if not all(isinstance(name, str) and name for pair in pairs for name in pair):
            raise DeclarationError(f"{where} must map parameter names to parameter names, not be {dict(pairs)!r}")
        new_names = [new for _, new in pairs]
        if len(set(new_names)) < len(new_names):
            raise DeclarationError(f"{where} gives two parameters the same name: {dict(pairs)!r}")
        for old, new in pairs:
            if event.output_params is not None:
                find(dict.fromkeys(event.output_params), old, "parameter", f"{where}: event {event.name!r}")
                if new in event.output_params and new not in dict(pairs):
                    raise DeclarationError(
                        f"{where}: {old!r} would overwrite {new!r}, which event {event.name!r} emits as well; "
                        f"map that too"
                    )
            if not slot.binding.accepts(new):
                find(dict.fromkeys(slot.binding.names), new, "parameter", f"{where}: the handler of slot {slot.name!r}")

    def _check_source(self, connection: Connection, event: Event, slot: Slot) -> None:
        """Raise unless what comes along a connection can be told from what the other sources of the slot deliver."""
        mine = set(_delivered(connection, event)) - {slot.key}
        for other in self._connections:
            if (other.target_id, other.slot) != (connection.target_id, connection.slot) or other == connection:
                continue
            theirs = _delivered(other, declaration_of(self._routines[other.source_id]).events[other.event])
            for name in theirs:
                if name in mine:
                    raise DeclarationError(
                        f"flow {self.flow_id!r}: {connection} and {other} both deliver parameter {name!r}, and slot "
                        f"{slot.name!r} takes one value of each source; rename one with param_mapping"
                    )

    def set_error_handler(self, error_handler: ErrorHandler) -> None:
        """Set what happens when a handler raises in a routine that has no error handler of its own.

        Raises:
            DeclarationError: for anything but an `ErrorHandler`, or when a job of this flow is running.
        """
        if not isinstance(error_handler, ErrorHandler):
            raise DeclarationError(f"flow {self.flow_id!r}: expected an ErrorHandler, not {error_handler!r}")
        self.changing("set the error handler")
        self.error_handler = error_handler

    def add_resource(self, name: str, factory: Factory) -> None:
        """Give the flow a resource (a client, a pool, an open file) that handlers use: one object for all of its jobs.

        A handler gets it as a parameter annotated with ``Annotated[Client, Resource(name)]``, or by
        ``ctx.resource(name)``. It is made when a handler first needs it, and closed by `Flow.shutdown`; a flow that is
        never shut down does not close it.

        Args:
            name: a name that no other resource of the flow has.
            factory: a function without arguments. It may return the resource, or be a generator function that yields
                it once and cleans up afterwards, or return a context manager, whose value is the resource. What has a
                method ``close`` (or ``aclose``) is the resource itself, and is closed by that. All of these may be
                asynchronous as well, and then run on the event loop of the engine.

        Raises:
            DeclarationError: when the name is taken or no non-empty string, the factory cannot be called without
                arguments, or a job of this flow is running.
        """
        check_resource_name(name, f"flow {self.flow_id!r}")
        where = f"flow {self.flow_id!r}: resource {name!r}"
        if name in self._factories:
            raise DeclarationError(f"{where} is there already")
        check_factory(factory, where)
        self.changing(f"add resource {name!r}")
        self._factories[name] = factory

    def plan(self) -> Plan:
        """Return the compiled form, which is made once after each change."""
        plan = self._plan
        if plan is None:
            plan = self._plan = compile_plan(
                self.flow_id,
                self._routines,
                self.connections,
                self.error_handler,
                self._factories,
                copy_payloads=self.copy_payloads,
                state_schema=self.schema,
            )
        return plan

    def register_types(self, *types: type) -> None:
        """Let instances of enums, dataclasses, named tuples or pydantic models be saved with jobs, and loaded.

        Those that the annotations of handlers, the types of events and the fields of the state schema mention are known
        anyway, and so are those that the fields of known classes mention. They are known by their qualified names.

        Raises:
            DeclarationError: for anything else, and for two different classes of one qualified name.
        """
        self._types = check_types(types, f"flow {self.flow_id!r}", self._types)
        self._known = None

    def learn_types(self, annotations: Iterable[Any]) -> None:
        """Let instances of the classes that annotations mention be saved, too, such as those of step functions."""
        new = dict.fromkeys(each for each in annotations if isinstance(each, Hashable))
        if not new.keys() <= self._learned.keys():
            self._learned.update(new)
            self._known = None

    def known_types(self) -> KnownTypes:
        """Return the classes whose instances may be saved: those registered, and those that annotations mention."""
        known = self._known
        if known is None:
            declared = [declaration_of(routine) for routine in self._routines.values()]
            annotations = [hint for each in declared for slot in each.slots.values() for hint in slot.binding.hints]
            annotations += [
                kind for each in declared for event in each.events.values() for kind in event.types.values()
            ]
            annotations += self._learned
            if self.schema is not None:
                annotations.append(self.schema.model)
            known = self._known = KnownTypes(f"flow {self.flow_id!r}", self._types, annotations)
        return known

    def validate(self) -> list[Finding]:
        """Return what looks wrong with the graph, each a readable sentence; nothing when all is well.

        Found are routines that no execution reaches (one starts at the routines with a slot ``"trigger"``; when there
        are none, at those without incoming connections), slots without a handler, parameters that a handler needs and
        no connected event declares, events without a connection, and cycles. A flow with findings can be executed.
        """
        return findings(self)

    def to_mermaid(self) -> str:
        """Return a drawing of the graph: the text of a Mermaid flowchart."""
        return to_mermaid(self)

    def to_dot(self) -> str:
        """Return a drawing of the graph: text in the DOT language of Graphviz."""
        return to_dot(self)

    def to_dict(self) -> dict[str, Any]:
        """Return a description of the graph that can be kept as JSON.

        It holds the flow's options, the error handlers, the routines with the names of their classes and their
        configuration (tuples as lists), and the connections. Slots, events and handlers come from the classes, and
        resources are added anew.

        Raises:
            DeclarationError: when a configuration holds what JSON has no form for (the message names the path), or two
                classes share a name.
        """
        return describe(self, self._options())

    def _options(self) -> dict[str, Any]:
        return {"copy_payloads": self.copy_payloads}

    def __repr__(self) -> str:
        size = f"{len(self._routines)} routines, {len(self._connections)} connections"
        return f"<{type(self).__name__} {self.flow_id!r}: {size}>"

    def entry_slot(self, entry_id: Any, slot: str | None) -> str:
        """Return the slot that an execution from ``entry_id`` starts with."""
        where = f"flow {self.flow_id!r}: routine {entry_id!r}"
        routine = find(self._routines, entry_id, "routine", f"flow {self.flow_id!r}")
        slots = declaration_of(routine).slots
        if slot is None:
            slot = "trigger" if "trigger" in slots else next(iter(slots)) if len(slots) == 1 else None
        if slot is not None:
            found = find(slots, slot, "slot", where)
            if found.gather == "sources" and not found.external:
                raise DeclarationError(
                    f"{where}: slot {slot!r} takes one delivery of each connection, and an execution that starts with "
                    f"it is none of these; start with another slot, or declare this one with external=True"
                )
            return slot
        if not slots:
            raise DeclarationError(f"{where} has no slot to start with; define one, by custom named 'trigger'")
        raise DeclarationError(
            f"{where} has several slots and none is named 'trigger'; name the one to start with: "
            f"slot={' or '.join(repr(name) for name in slots)}"
        )


def _delivered(connection: Connection, event: Event) -> list[str]:
    """Return the parameters that are known to come along a connection."""
    renamed = dict(connection.param_mapping)
    return [renamed.get(name, name) for name in (renamed if event.output_params is None else event.output_params)]
