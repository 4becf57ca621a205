"""Checks of what a flow is made with, and of what a job is started with; and ids for those that were given none."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ..core.numbers import whole
from ..errors import DeclarationError, ExecutionError, known_names

STRATEGIES = ("sequential", "concurrent")
MOST_WORKERS = 10_000
MOST_PENDING = 1_000_000_000
RANDOM_BYTES = 10  # of an id

_random: list[str] = []  # the random digits of ids to come
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.clear)  # or both processes would give the same ids


def check_options(where: str, options: Mapping[str, Any]) -> None:
    """Raise DeclarationError, beginning with ``where``, for an option of a flow that is out of range."""
    strategy = options["execution_strategy"]
    if strategy not in STRATEGIES:
        hint = known_names(strategy, STRATEGIES, "strategies")
        raise DeclarationError(f"{where}: unknown execution_strategy {strategy!r}{hint}")
    whole(options["max_workers"], f"{where}: max_workers", 1, MOST_WORKERS)
    whole(options["max_pending"], f"{where}: max_pending", 1, MOST_PENDING)
    whole(options["max_state_bytes"], f"{where}: max_state_bytes", 1)
    version = options["version"]
    if version is not None and (not isinstance(version, str) or not version):
        raise DeclarationError(f"{where}: version must be a non-empty string or None, not {version!r}")
    if options["history_limit"] is not None:
        whole(options["history_limit"], f"{where}: history_limit", 0, MOST_PENDING)
    if not isinstance(options["copy_payloads"], bool):
        raise DeclarationError(f"{where}: copy_payloads must be True or False, not {options['copy_payloads']!r}")


def new_id() -> str:
    """Return an id of 32 hexadecimal digits: 12 of the time in milliseconds, and 20 random ones.

    Ids of a later millisecond sort after those of an earlier one, unless the clock was set back. (The layout is that of
    UUIDs of version 7, RFC 9562, without its six fixed bits.)
    """
    # In the order of time, because a database then changes its last pages, and not one here and there for each job.
    return f"{time.time_ns() // 1_000_000:012x}{_random_digits()}"


def _random_digits() -> str:
    # Many at once, because a thread that asks the system for them lets another one run, which it then waits for.
    try:
        return _random.pop()
    except IndexError:
        digits, each = os.urandom(RANDOM_BYTES * 256).hex(), RANDOM_BYTES * 2
        _random.extend([digits[at : at + each] for at in range(each, len(digits), each)])
        return digits[:each]


def job_id_of(job_id: object, where: str) -> str:
    """Return a job id. Raises ExecutionError unless it is a non-empty string."""
    if not isinstance(job_id, str) or not job_id:
        raise ExecutionError(f"{where}: job_id must be a non-empty string, not {job_id!r}")
    return job_id


def text_of(value: object, name: str, where: str) -> str | None:
    """Return a string or None. Raises ExecutionError for anything else."""
    if value is not None and not isinstance(value, str):
        raise ExecutionError(f"{where}: {name} must be a string or None, not {value!r}")
    return value


def payload_of(params: object, where: str) -> dict[str, Any]:
    """Return entry parameters as a payload. Raises ExecutionError unless they are a mapping with string keys."""
    if params is None:
        return {}
    if not isinstance(params, Mapping) or not all(isinstance(key, str) for key in params):
        raise ExecutionError(f"{where}: entry_params must be a mapping with string keys, not {params!r}")
    return dict(params)
