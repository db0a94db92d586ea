"""The long-lived tasks and threads of a process, by name."""

from __future__ import annotations

import enum

__all__ = ["Background"]


class Background(enum.StrEnum):
    RECOVERY = "recovery"
    """Heals what the journal holds."""
    REFRESH = "refresh"
    """Asks the journal how much it holds."""
    CANARIES = "canaries"
    """Plants the differences that the comparison must find."""
    SUSPECTS = "suspects"
    """Looks again at differences that are not confirmed."""
    WATCH = "watch"
    """Watches the configuration file."""
    FLEET = "fleet"
    """Gives this process's signs of life, and follows the routing record."""
    FIGURES = "figures"
    """Computes what the gates are judged by."""
    FLIP = "flip"
    """Takes part in a flip."""
    FLIPS = "flips"
    """Makes the flips that the configuration file asks for."""
    PULSE = "pulse"
    """Writes findings, shows gauges to other workers, samples rates."""
    WRITERS = "writers"
    """Watches for writes past the shim."""
    SWEEP = "sweep"
    """Deletes what a crash has left of large documents."""
    RIGHTS = "rights"
    """Asks what the users of MongoDB may do."""
    JOURNAL = "journal"
    """The threads that write the journal."""
