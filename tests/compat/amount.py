"""How many cases the generators of this suite make, and which.

A run has a small part of all there could be, drawn as the MongoDB of its tests is (`support.drawn`): the same with the
same seed, others for the next commit. SHADOW_LONG=1 has more; SHADOW_COMPAT_CASES says how many (20,000 and more), and
SHADOW_COMPAT_SEED where the generators start.
"""

from __future__ import annotations

import os
from typing import Final

from tests.support import drawn

__all__ = ["CASES", "SEED", "is_rare"]

CASES: Final = int(os.environ.get("SHADOW_COMPAT_CASES") or (2_000 if drawn.is_long() else 600))
SEED: Final = int(os.environ.get("SHADOW_COMPAT_SEED") or drawn.run_seed())

_BY_CHANCE: Final = 5
"""So many more than their share there may be: of few cases, a draw has that by chance."""


def is_rare(count: int, share: float, total: int) -> bool:
    """Whether `count` of `total` are no more than their share (0 to 1)."""
    return count <= share * total + _BY_CHANCE
