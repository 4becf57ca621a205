"""The part of a job's handle that saves and loads the job. How that is done is in `job_documents`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import LoadError
from ..store.serializer import Serializer
from .job import Job

S = TypeVar("S", bound="Savable")


class Savable:
    """The part of `JobState` that saves and loads."""

    __slots__ = ()
    _job: Job

    def to_dict(self, serializer: Serializer | None = None) -> dict[str, Any]:
        """Return the job as a dict that can be kept as JSON, and from which `from_dict` makes it again.

        A job that runs is held still for a moment: handlers that run are waited for, and no more start until its record
        has been copied; it is a paused one when it is loaded. Kept are its identity, status, states, shared data, log,
        outputs, errors, result, history with timings, and all that is still to be done.

        Values come back as they were: JSON values, tuples, sets, bytes, deques, dates and times, ``Decimal``, ``UUID``
        and paths, and instances of enums, dataclasses, named tuples and pydantic models that the annotations of
        handlers or the ``state_schema`` mention, or ``Flow.register_types`` has named. What two values shared, each has
        for its own then. A model is dumped by pydantic if its class brings serializers of its own. Private attributes
        of models, and attributes of dataclasses that are no fields, are not kept.

        Args:
            serializer: turns values of other classes into such that can be saved; it is needed again to load them.

        Raises:
            SaveError: for a value that cannot be saved; it says where that is. Also in a job without a store, while a
                handler waits.
            StateError: when the shared data have outgrown the flow's ``max_state_bytes``.
            DeclarationError: when two classes that are saved have the same qualified name.
            ContextError: inside a handler of this job.
        """
        from .job_documents import as_dict

        return as_dict(self._job, serializer)

    def save(self, path: str | os.PathLike[str], serializer: Serializer | None = None) -> None:
        """Save the job to a file, which `load` reads. See `to_dict` for what is kept, and for further errors.

        The file is replaced as a whole when all is written: whoever reads it, or is interrupted, finds the old one or
        the new one.

        Args:
            path: the file; its folder must exist.
            serializer: see `to_dict`.

        Raises:
            OSError: when the file cannot be written.
        """
        from .job_documents import save

        save(self._job, path, serializer)

    @classmethod
    def from_dict(cls: type[S], data: Mapping[str, Any], flow: Any, serializer: Serializer | None = None) -> S:
        """Return the job that `to_dict` has described, as a job of ``flow``.

        A job that was paused, or saved while it ran, is paused and goes on with ``flow.resume(job_state)``; a failed
        one can be taken up in the same way; one that has ended can be read, and be the ``job_state`` of the next.

        Raises:
            LoadError: when the data are no saved job, or do not fit the flow, its version or its classes.
            DeclarationError: when two classes that are needed have the same qualified name.
        """
        return _flow(flow).restore(data, serializer)  # type: ignore[no-any-return]

    @classmethod
    def load(cls: type[S], path: str | os.PathLike[str], flow: Any, serializer: Serializer | None = None) -> S:
        """Return the job that `save` has written to a file, as a job of ``flow``. See `from_dict`.

        Raises:
            LoadError: also when the file is damaged.
            OSError: when the file cannot be read, FileNotFoundError when there is none.
        """
        return _flow(flow).load(path, serializer)  # type: ignore[no-any-return]


def _flow(flow: Any) -> Any:
    if isinstance(flow, type) or not hasattr(flow, "restore"):
        raise LoadError(f"a job is loaded for a Flow, not for {flow!r}")
    return flow
