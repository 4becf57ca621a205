"""Asking a store again that cannot do what it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import StaleWriterError, StoreError

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0  # seconds between attempts to reach a store


def patiently(
    act: Callable[[], T], patience: float, stopped: Callable[[float], bool], failed: StoreError | None = None
) -> T:
    """Do something with a store, again for a while when it cannot do that; raise what it raises at last.

    Args:
        act: does it.
        patience: for how many seconds the store is asked again. One that has another writer is not asked again.
        stopped: waits for so many seconds, and returns whether nobody wants it any more.
        failed: what it raised when it was asked before.
    """
    pause, began = FIRST_PAUSE, time.monotonic()
    while True:
        if failed is None:
            try:
                return act()
            except StoreError as error:
                failed = error
        if isinstance(failed, StaleWriterError) or time.monotonic() - began + pause > patience or stopped(pause):
            raise failed
        failed = None
        pause = min(pause * 2, LONGEST_PAUSE)
