"""How examples are generated, and what must hold in every test.

No example fails for being slow, since the machine may be busy with other things. ``pytest --hypothesis-profile few``
generates a fifth of them, and takes a third of the crashes: for one Python more, when another has had them all.
"""

from __future__ import annotations

import traceback
from _thread import get_ident

import pytest
from hypothesis import HealthCheck, settings

from routilux.runtime.gate import INSIDE, Gate

settings.register_profile("routilux", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", settings.get_profile("routilux"), max_examples=20)
settings.load_profile("routilux")


@pytest.fixture(scope="session", autouse=True)
def no_thread_enters_a_gate_that_it_is_inside():
    """Sections of a gate are not nested: to leave the inner one would open the gate for all."""
    enter, nested = Gate.__enter__, []

    def watched(gate):
        if gate.inside.get(INSIDE) == get_ident():
            nested.append("".join(traceback.format_stack()[:-1]))
        enter(gate)

    Gate.__enter__ = watched
    yield
    Gate.__enter__ = enter
    assert not nested, nested[0]
