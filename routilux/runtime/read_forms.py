"""What a turn has read, in the form in which its points keep it.

A field of a typed state whose value has no form of its own is kept as pydantic writes it, beside the others. One that
pydantic does not write either is not kept, and neither is one that the model excludes from what is written, whatever
its value is: a handler that runs again finds it as it is then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import SaveError
from ..graph.schema import StateSchema
from ..store.models import dumped_field
from ..store.reading import Reader
from ..store.values import Writer

WHAT = "a value that was read"


class Coder(Protocol):
    """A job, as far as the forms of values are concerned with it."""

    def writer(self) -> Writer:
        """Return what turns values into JSON."""

    def reader(self) -> Reader:
        """Return what makes values of JSON."""

    def encode(self, value: Any, what: str) -> Any:
        """Return the JSON form of a value."""

    def decode(self, form: Any, what: str) -> Any:
        """Return a new value with this JSON form."""


def form_of(job: Coder, schema: StateSchema | None, key: str | None, value: Any) -> list[Any] | None:
    """Return the form of a key of shared data, or of all of them, if the key is None. None when it is not kept.

    Raises SaveError for a value that has no form and is no field of the schema.
    """
    if schema is None:
        return [job.encode(value, WHAT)]
    out = schema.excluded
    if key in out:
        return None
    fields = {key: value} if key is not None else {name: each for name, each in value.items() if name not in out}
    if key is not None or len(fields) == len(value):
        try:
            return [job.encode(value, WHAT)]
        except SaveError:
            if not fields.keys() & schema.fields:
                raise
    own: dict[str, Any] = {}
    dumped: dict[str, Any] = {}
    for name, each in fields.items():
        try:
            own[name] = job.encode(each, WHAT)
        except SaveError:
            if name not in schema.fields:
                raise
            form = _dumped(job, schema, name, each)
            if form:
                dumped[name] = form[0]
    if key is None:
        return [own, dumped]
    return [None, dumped] if dumped else None


def _dumped(job: Coder, schema: StateSchema, name: str, value: Any) -> list[Any]:
    try:
        return [job.writer().value(dumped_field(schema.instance({name: value}), name), WHAT)]
    except Exception:  # serializers are the user's
        return []


def value_of(
    job: Coder, schema: StateSchema | None, key: str | None, form: list[Any], present: Mapping[str, Any]
) -> Any:
    """Return the value that `form_of` has returned a form of; ``present`` are the shared data as they are now."""
    if len(form) == 1 or schema is None:
        return job.decode(form[0], WHAT)
    found = {name: job.reader().field(schema.model, name, each, WHAT) for name, each in form[1].items()}
    if key is not None:
        return found[key]
    found.update((name, job.decode(each, WHAT)) for name, each in form[0].items())
    return {**{name: present[name] for name in schema.fields if name in present}, **found}
