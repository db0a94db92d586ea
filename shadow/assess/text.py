"""The report as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from shadow.assess import figures as say
from shadow.assess.model import Assessment, CollectionReport, Remark, Severity

__all__ = ["text"]

_BAR: Final = 30
_MOST_FIELDS: Final = 40
_TITLES: Final = {
    Severity.BLOCKER: "To fix before the migration",
    Severity.WARNING: "Changes and costs",
    Severity.NOTE: "Notes",
}


def text(found: Assessment) -> str:
    """For a terminal: control characters in the database's names are removed."""
    return "\n".join("".join(each if each.isprintable() else "?" for each in line) for line in _lines(found))


def _lines(found: Assessment) -> Iterator[str]:
    yield f"{found.database} on {found.server}, {found.taken}; read: {found.sampled}"
    for severity, title in _TITLES.items():
        chosen = [each for each in found.remarks if each.severity is severity]
        if chosen:
            yield from ("", title)
            for each in chosen:
                yield from _remark(each)
    for report in found.collections:
        yield from _collection(report)
    yield from _queries(found)
    yield from _costs(found)


def _remark(each: Remark) -> Iterator[str]:
    yield f"  {each.collection or '(database)'}: {each.kind}: {each.text}"
    if each.mend:
        yield f"      {each.mend}"


def _table(rows: Sequence[Sequence[str]], indent: str = "    ") -> Iterator[str]:
    """Columns as wide as their widest cell; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"{indent}{'  '.join(cells).rstrip()}"


def _collection(each: CollectionReport) -> Iterator[str]:
    yield ""
    yield f"{each.name}: {each.documents} documents, {each.looked_at} read{' (all)' if each.whole else ''}"
    if not each.looked_at:
        return
    sizes = each.sizes
    yield (
        f"  bytes: {say.data(each.mongo_bytes)} in MongoDB, {say.data(each.dynamo_bytes)} on DynamoDB with "
        f"{len(each.spec.indexes)} indexes"
    )
    yield (
        f"  items: smallest {say.data(sizes.smallest)}, median {say.data(sizes.median)}, 99 % up to "
        f"{say.data(sizes.p99)}, largest {say.data(sizes.largest)} ({say.headroom(sizes.largest)})"
    )
    most = max((one.documents for one in sizes.histogram), default=0)
    for one in sizes.histogram:
        if one.documents:
            yield f"    {say.bucket(one):>12}  {one.documents:>9}  {'#' * math.ceil(one.documents / most * _BAR)}"
    yield f"  nesting: {each.deepest} deep; with a version of shadow already: {each.stamped}"
    yield from _fields(each)
    yield "  keys:"
    yield from _table([[key.path, f"{key.longest} of {key.limit} bytes", say.key_facts(key)] for key in each.keys])
    yield from _indexes(each)
    yield f"  rates: {say.rates(each.rates)}"
    units = each.units
    yield (
        f"  units: {say.number(units.insert)} to insert, {say.number(units.update)} to update, "
        f"{say.number(units.read)} to read by key, {say.number(units.scan)} to scan the table"
    )
    yield f"  copy: {say.duration(each.costs.copy_seconds)}, bound by {each.costs.copy_bound}"


def _fields(each: CollectionReport) -> Iterator[str]:
    yield "  types:"
    rows = [[say.short(one.path), one.type, str(one.count), one.form] for one in each.fields[:_MOST_FIELDS]]
    yield from _table([["path", "type", "seen", "on DynamoDB"], *rows])
    if len(each.fields) > _MOST_FIELDS:
        yield f"    and {len(each.fields) - _MOST_FIELDS} more (--json has them)"


def _indexes(each: CollectionReport) -> Iterator[str]:
    yield "  indexes:"
    if not each.indexes:
        yield "    none but that of _id, which is the table's key"
        return
    rows = [["index", "of", "becomes", "entries", "values", "most frequent"]]
    for one in each.indexes:
        told = f"{one.keys} ({', '.join(one.options)})" if one.options else one.keys
        measured = [f"{one.entries:.0%}", str(one.values), say.hot(one.hottest)] if one.target else ["-", "-", "-"]
        rows.append([one.name, told, one.becomes, *measured])
    yield from _table(rows)


def _queries(found: Assessment) -> Iterator[str]:
    yield from ("", f"Queries ({found.queries_from})")
    if not found.queries:
        yield "  none recorded: use --queries FILE, or MongoDB's profiler for a while: db.setProfilingLevel(2), later 0"
        return
    rows = [["collection", "query", "seen", "answered by", "read units", "index that would serve it"]]
    for each in found.queries:
        shape = f"{each.verb} {each.shape}"
        units = say.number(each.units) if each.units is not None else "-"
        rows.append([each.collection, shape, str(each.count), say.read_by(each), units, each.suggestion or "-"])
    yield from _table(rows, "  ")


def _costs(found: Assessment) -> Iterator[str]:
    yield from ("", "Cost (on demand, at the configured `prices`; check them)")
    rows = [["collection", "copy", "verify", "storage a month", "dual_write a month", "shadow, or flipped, a month"]]
    names = ("copy", "verify", "storage_month", "dual_write_month", "full_month")
    for each in found.collections:
        rows.append([each.name, *(say.money(getattr(each.costs, name)) for name in names)])
    rows.append(["together", *(say.money(value) for value in say.totals(found).values())])
    yield from _table(rows, "  ")
    if any(each.costs.full_month is None for each in found.collections):
        yield "  unknown: the server reports no rates; give them with --reads N and --writes N (operations per second)"
