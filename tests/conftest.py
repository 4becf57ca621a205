"""What all tests have in common: how examples are generated, and that Ctrl-C works.

No example fails for being slow, since the machine may be busy with other things.

``pytest --hypothesis-profile few`` generates a fifth of them, and takes a third of the crashes: for one Python more,
when another has had them all.
"""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("routilux", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", settings.get_profile("routilux"), max_examples=20)
settings.load_profile("routilux")

# A shell starts what runs in its background with Ctrl-C ignored, and a program that a test starts would ignore it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
