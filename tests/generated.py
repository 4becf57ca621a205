"""How many examples a test is given, and how many of many cases it takes; see `conftest` for the profiles."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> settings:
    """Return the decorator of a test that is to have ``count`` examples, and under another profile its share of them.

    A profile's ``max_examples`` is how many it has of a hundred.
    """
    return settings(max_examples=max(count * settings.default.max_examples // 100, 5))


def each_or_every(step: int) -> int:
    """Return the step in which to go through cases that take long: 1, or ``step`` when examples are to be few."""
    return 1 if settings.default.max_examples >= 100 else step
