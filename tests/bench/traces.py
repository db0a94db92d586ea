"""Traces: what they cost while no provider is configured, and with the SDK."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tests.bench.harness import Bench, Closed, Contender, Line
from tests.bench.reads import key
from tests.bench.sites import NOTES, Sites, of

__all__ = ["NAME", "traces"]

NAME: Final = "traces"


async def traces(sites: Sites, calls: int) -> Bench:
    """`find_one` on the path over two stores: with traces, but no provider; with the SDK, where each call is sampled
    and nothing is exported; and with traces switched off."""
    switched_off = await sites.shadow("motor", "dual_write", traces=False)
    shadow = await sites.shadow("motor", "dual_write")
    notes, provider = shadow[NOTES], TracerProvider()

    async def recorded(number: int) -> Any:
        trace._TRACER_PROVIDER = provider
        try:
            return await notes.find_one({"_id": key(number)})
        finally:
            trace._TRACER_PROVIDER = None

    off = of(switched_off, "switched off", lambda number: switched_off[NOTES].find_one({"_id": key(number)}))
    idle = of(shadow, "no provider", lambda number: shadow[NOTES].find_one({"_id": key(number)}))
    sdk = Contender("the SDK", recorded, share=0.5)
    return Bench(
        NAME,
        [off, idle, sdk],
        Closed(calls),
        [
            Line("find_one, no provider configured", "cpu", idle.name, off.name, 1.03),
            Line("find_one, no provider configured", "p50", idle.name, off.name),
            Line("find_one, every call sampled by the SDK", "cpu", sdk.name, off.name),
        ],
    )
