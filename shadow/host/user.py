"""The current user, for receipts."""

from __future__ import annotations

import getpass
import os

__all__ = ["user"]


def user() -> str:
    """The user's name, or its number if it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "an unknown user"
