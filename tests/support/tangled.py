"""What child processes of the crash tests run: they heal documents that are in each other's way, and die on the way."""

from __future__ import annotations

import asyncio
import os
import signal

from shadow import Shadow
from shadow.host.failpoints import Point
from tests.support.shadows import COLLECTION, Site

__all__ = ["die_aside"]


def die_aside(site: Site, key: str, times: int) -> None:
    """Heals `key` and dies, by SIGKILL, when it has set the `times`-th document aside."""
    left = times

    def reach(at: Point) -> None:
        nonlocal left
        if at is Point.AFTER_ASIDE:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def run() -> None:
        # No recovery beside it: nothing but this heal sets anything aside.
        async with Shadow(site.settings(), reach=reach, passive=True) as shadow:
            await shadow.admin.heal(COLLECTION, key)

    asyncio.run(run())
