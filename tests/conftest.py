"""How examples are generated: no example fails for being slow, since the machine may be busy with other things.

``pytest --hypothesis-profile few`` generates a fifth of them, and takes a third of the crashes: for one Python more,
when another has had them all.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("routilux", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", settings.get_profile("routilux"), max_examples=20)
settings.load_profile("routilux")
