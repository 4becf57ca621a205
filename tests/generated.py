"""How many examples a test is given; see `conftest` for the profiles."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> settings:
    """Return the decorator of a test that is to have ``count`` examples, and under another profile its share of them.

    A profile's ``max_examples`` is how many it has of a hundred.
    """
    return settings(max_examples=max(count * settings.default.max_examples // 100, 5))
