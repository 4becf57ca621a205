"""The whole of what every store must do, as tests."""

from __future__ import annotations

from .crowds import CrowdTests
from .inbox import InboxTests
from .journals import JournalTests
from .keeping import KeepingTests
from .leases import LeaseTests
from .listing import ListingTests


class StoreConformance(JournalTests, ListingTests, LeaseTests, InboxTests, CrowdTests, KeepingTests):
    """Tests of everything that FactStore promises, and Inbox for a store that is one, too.

    Derive a class from it whose name starts with ``Test``, implement ``make_store``, which returns an empty store, and
    run pytest. A store that outlives its object implements ``reopen``, too. Each test makes a store of its own, and
    closes it.
    """
