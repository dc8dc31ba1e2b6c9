"""How many examples a slow property is worth."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: What hypothesis tries if nothing is said.
_USUAL = 100


def examples(count: int) -> settings:
    """``count`` examples in a usual run, and as many times more as the profile asks for."""
    most = max(1, count * settings.default.max_examples // _USUAL)
    return settings(max_examples=most, suppress_health_check=[HealthCheck.too_slow])
