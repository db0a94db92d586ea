"""The application beside a secondary that is slow, or that throttles everything: what of that its callers feel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from shadow import Shadow
from shadow.embedded.proxy import FaultProxy, Mode
from tests.bench.harness import Bench, Contender, Line, Paced
from tests.bench.reads import key
from tests.bench.sites import NOTES, Sites

__all__ = ["beside_faults"]

_SLOW: Final = 0.5
"""Seconds added to each request to the secondary."""
_MODES: Final = {"none": Mode.PASS, "slow": Mode.DELAY, "throttled": Mode.THROTTLE}


@dataclass(frozen=True)
class _Behind:
    """A Shadow behind a proxy of its own. Between blocks the fault is away, so that what is left over is done then and
    not at another contender's cost."""

    name: str
    proxy: FaultProxy
    shadow: Shadow

    async def settled(self) -> None:
        await asyncio.to_thread(self.proxy.clear)
        assert await self.shadow.settled(60), "the secondary did not follow within a minute after the fault"
        await asyncio.to_thread(self.proxy.set, _MODES[self.name], seconds=_SLOW)

    async def call(self, number: int) -> object:
        """Four reads for each write."""
        notes = self.shadow[NOTES]
        if number % 5:
            return await notes.find_one({"_id": key(number)})
        return await notes.update_one({"_id": key(number)}, {"$set": {"views": number}})


@contextmanager
def _proxies(endpoint: str) -> Iterator[dict[str, FaultProxy]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(FaultProxy.before(endpoint)) for name in _MODES}


@contextmanager
def beside_faults(endpoint: str) -> Iterator[Any]:
    """A function of (sites, calls) that makes the bench; all three go through a proxy, so that its own cost is in
    every figure."""
    with _proxies(endpoint) as proxies:

        async def bench(sites: Sites, calls: int) -> Bench:
            made: list[Contender] = []
            for name, proxy in proxies.items():
                own = replace(sites, endpoint=proxy.url, tag=name)
                shadow = await own.shadow("motor", "shadow")
                sites.adopt(own)
                behind = _Behind(name, proxy, shadow)
                made.append(Contender(name, behind.call, behind.settled))
            return Bench("secondary", made, Paced(calls, 100.0), _lines())

        yield bench


def _lines() -> list[Line]:
    what = {"slow": f"secondary slower by {_SLOW * 1000:g} ms", "throttled": "secondary throttles everything"}
    return [
        Line(f"{text}, the application's calls", metric, name, "none")
        for name, text in what.items()
        for metric in ("p50", "p99")
    ]
