"""The pull settings as the values that decide when and how far back is read: for the daemon, and for pages about it."""

from __future__ import annotations

from collections.abc import Mapping

from syncd.policy.ladder import Rung
from syncd.policy.windows import WindowRule
from syncd.settings import PullSettings


def cadences(pull: PullSettings) -> Mapping[str, float]:
    """Return seconds by stream name; 0 switches a stream off."""
    prefix, suffix = "cadence_", "_s"
    found = {
        name.removeprefix(prefix).removesuffix(suffix): float(getattr(pull, name))
        for name in PullSettings.model_fields
        if name.startswith(prefix)
    }
    return found if pull.invoice_files is not None else found | {"invoice_files": 0.0}


def window_rule(pull: PullSettings) -> WindowRule:
    """Translate the settings into the rule of windows."""
    return WindowRule(
        overlap_s=pull.overlap_s,
        overlap_max_s=pull.overlap_max_s,
        overlap_risk=pull.overlap_risk,
        horizon_s=pull.horizon_days * 86400.0,
    )


def rungs(pull: PullSettings) -> tuple[Rung, ...]:
    """Translate the settings into the cadence ladder above the plain cadence."""
    return (
        Rung(pull.reread_hours * 3600.0, pull.reread_every_s),
        Rung(pull.deep_reread_days * 86400.0, pull.deep_reread_every_s),
    )
