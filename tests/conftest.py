"""How examples are generated: no example fails for being slow, since the machine may be busy with other things."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("routilux", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("routilux")
