"""Store against store, as `shadow status --latency` shows it on 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shadow.fleet.status import ProcessStatus

__all__ = ["show"]

_QUANTILES = ("p50", "p95", "p99")


def show(console: Console, status: ProcessStatus) -> None:
    """A table for each collection: its shapes of queries, with p50, p95 and p99 of both stores in milliseconds, and the
    secondary's p95 as a multiple of the primary's."""
    shown = [(name, shapes) for name, shapes in status.latency.items() if shapes and name in status.collections]
    if not shown:
        console.print("latency: nothing was asked of both stores yet")
    for name, shapes in shown:
        route = status.collections[name]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("query", overflow="fold", ratio=1)
        table.add_column("times", justify="right", no_wrap=True)
        for store in (route.primary, route.primary.other):
            table.add_column(f"{store} ms", justify="right", no_wrap=True)
        table.add_column("p95", justify="right", no_wrap=True)
        for each in shapes:
            both = (each["primary"], each["secondary"])
            ratio = f"{each['ratio']['p95']:.1f}x" if "ratio" in each else "-"
            table.add_row(escape(each["shape"]), _count(each["primary"]["count"]), *map(_quantiles, both), ratio)
        console.print(f"[bold]{escape(name)}[/], p50, p95 and p99 of the last hour; {route.primary} is the primary:")
        console.print(table)


def _quantiles(found: Mapping[str, Any]) -> str:
    return " ".join(f"{_milliseconds(found[name]):>5}" for name in _QUANTILES) if found else "-"


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _count(number: int) -> str:
    return str(number) if number < 100_000 else f"{number / 1000:.0f}k"
