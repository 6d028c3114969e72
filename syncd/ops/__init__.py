"""What the outside may see of a running syncd: health, metrics, and one log line for each run and each delivery.

Pipelines return reports; ``Reporter`` turns each into counters and into its one canonical line, so that no pipeline
knows how it is watched. What is a state rather than an event (queue ages, coverage holes, pauses) is read from the
database when somebody asks, so that it is true however long the process has lived and whichever replica answers.

The pages (``server``) have no password and hold no secret and no address; they listen on loopback unless told.
"""

from syncd.ops.health import Health, Readiness
from syncd.ops.metrics import Metrics
from syncd.ops.reporter import Reporter
from syncd.ops.server import OpsServer

__all__ = ["Health", "Metrics", "OpsServer", "Readiness", "Reporter"]
