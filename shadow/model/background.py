"""The names of the long-lived tasks and threads of a process."""

from __future__ import annotations

import enum

__all__ = ["Background"]


class Background(enum.StrEnum):
    RECOVERY = "recovery"
    """Repairs the keys that the journal holds."""
    REFRESH = "refresh"
    """Reads the journal's figures."""
    CANARIES = "canaries"
    """Injects the differences that the comparison must find."""
    SUSPECTS = "suspects"
    """Probes unconfirmed mismatches again."""
    WATCH = "watch"
    """Watches the configuration file."""
    FLEET = "fleet"
    """Sends this process's heartbeats and reads the routing record."""
    FIGURES = "figures"
    """Computes the figures for the gates."""
    FLIP = "flip"
    """Takes part in a flip."""
    FLIPS = "flips"
    """Makes the flips that the configuration file asks for."""
    GUARDS = "guards"
    """Follows the ramps of reads, and decides about them."""
    PULSE = "pulse"
    """Writes findings, shares gauges with other workers, samples rates."""
    WRITERS = "writers"
    """Watches for out-of-band writes."""
    RELAY = "relay"
    """Repairs what the stream of a store shows as written past shadow."""
    SWEEP = "sweep"
    """Deletes parts of large documents that a crash left behind."""
    RIGHTS = "rights"
    """Checks the rights of the MongoDB users."""
    JOURNAL = "journal"
    """The threads that write the journal."""
