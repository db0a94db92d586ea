"""Formats figures for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shadow.assess.model import Assessment, Bucket, CollectionReport, Hot, KeyReport, QueryReport, Rates
from shadow.stores.dynamo.client.limits import ITEM_LIMIT

__all__ = [
    "bucket",
    "data",
    "duration",
    "headroom",
    "hot",
    "key_facts",
    "money",
    "number",
    "rate",
    "rates",
    "read_by",
    "short",
    "totals",
]


def data(size: float | None) -> str:
    """Bytes in binary units."""
    if size is None:
        return "unknown"
    power = 0 if size < 1024 else min(4, int(math.log(size, 1024)))
    return f"{size / 1024**power:.{0 if power == 0 else 1}f} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


def bucket(each: Bucket) -> str:
    return "over 400 KB" if each.upto is None else f"up to {each.upto // 1024} KB"


def headroom(size: int) -> str:
    """How far a size is from the limit of an item."""
    if size > ITEM_LIMIT:
        return f"{size / ITEM_LIMIT:.1f} times 400 KB"
    return f"{(ITEM_LIMIT - size) / ITEM_LIMIT:.1%} of 400 KB left"


def money(dollars: float | None) -> str:
    if dollars is None:
        return "unknown"
    return "under $0.01" if 0 < dollars < 0.01 else f"${dollars:,.2f}"


def number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}" if value < 10 else f"{value:.1f}"


def rate(value: float | None) -> str:
    return "unknown" if value is None else f"{number(value)}/s"


def rates(each: Rates) -> str:
    names = {"reads": each.reads, "inserts": each.inserts, "updates": each.updates, "deletes": each.deletes}
    told = ", ".join(f"{rate(value)} {name}" for name, value in names.items())
    return f"{told} ({each.source})" if each.source else told


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return (
        f"{minutes:.0f} min"
        if minutes < 90
        else f"{minutes / 60:.1f} h"
        if minutes < 2880
        else f"{minutes / 1440:.1f} days"
    )


def hot(each: Sequence[Hot]) -> str:
    return ", ".join(f"{one.share:.1%} ({one.hash})" for one in each) or "no value occurs twice"


def short(path: str) -> str:
    """A path, without its middle if it is very long."""
    return path if len(path) <= 60 else f"{path[:28]}...{path[-28:]}"


def key_facts(key: KeyReport) -> str:
    """The properties of a key's values."""
    counts = {"as they are": key.exact, "escaped": key.escaped, "lists": key.arrays, "null or missing": key.absent}
    told = [f"{count:,} {name}" for name, count in counts.items() if count]
    told += [f"{count} {kind}, which no key holds" for kind, count in key.aside.items()]
    return "; ".join(told) or "none"


def read_by(query: QueryReport) -> str:
    told = f"{query.served} {query.detail}".strip()
    return f"{told}, sorted here" if query.sorted_here else told


def totals(found: Assessment) -> dict[str, float | None]:
    """Dollars for all collections together; None if one of them is unknown."""
    names = ("copy", "verify", "storage_month", "dual_write_month", "full_month")
    return {name: _sum(found.collections, name) for name in names}


def _sum(reports: Sequence[CollectionReport], name: str) -> float | None:
    values = [getattr(each.costs, name) for each in reports]
    return None if None in values else sum(values)
