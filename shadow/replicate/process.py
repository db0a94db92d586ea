"""Who signs an intent: see `shadow.host.process`."""

from __future__ import annotations

from shadow.host.process import Owner, boot_id, this_process

__all__ = ["Owner", "boot_id", "this_process"]
