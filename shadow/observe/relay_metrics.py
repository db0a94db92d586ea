"""The metrics of the relay of out-of-band writes: rows of the table of metrics."""

from __future__ import annotations

from typing import Final

from shadow.model.events import OutOfBandWriteRelayed
from shadow.model.verdict import Bypass
from shadow.observe.metric_row import By, Configured, MetricRow

__all__ = ["RELAYED", "RELAY_LAG"]

RELAYED: Final = MetricRow(
    "shadow_relayed_writes_total",
    "counter",
    "Out-of-band writes to the primary that were relayed: their documents went to the journal to be repaired.",
    ("collection", "kind"),
    (Configured.COLLECTION, Bypass),
    moved_by=(By(OutOfBandWriteRelayed),),
)
RELAY_LAG: Final = MetricRow(
    "shadow_relay_lag_seconds",
    "gauge",
    "How far the relay of out-of-band writes is behind the store; rises where no process relays, "
    "or where the store does not report the changes of a collection.",
    ("store",),
)
