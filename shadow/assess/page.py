"""The report as one self-contained HTML file: no scripts, light and dark. Plots are SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shadow.assess import figures as say
from shadow.assess.model import Assessment, Bucket, CollectionReport, QueryReport, Remark, Served, Severity
from shadow.assess.plots import bars, columns
from shadow.markup import Child, Markup, join, tag
from shadow.report_page import section, shown_tiles, table, whole_page

__all__ = ["page"]

_WORDS: Final = {
    Severity.BLOCKER: "fix first",
    Severity.WARNING: "warning",
    Severity.NOTE: "note",
}
_CLASSES: Final = {Severity.BLOCKER: "bad", Severity.WARNING: "warn", Severity.NOTE: "quiet"}


def page(found: Assessment) -> str:
    return whole_page(
        f"shadow assess: {found.database}",
        tag("header", tag("h1", f"What will happen to {found.database}"), _taken(found)),
        _verdict(found),
        tag(
            "main",
            _tiles(found),
            section("Know this first", _remarks(found.remarks)),
            section("Cost", _costs(found)),
            section("Queries", _queries(found)),
            *(section(each.name, *_collection(each)) for each in found.collections),
        ),
        tag("footer", "Paths, types, counts and keyed hashes; no value of a document is in this file."),
    )


def _taken(found: Assessment) -> Markup:
    return tag("p", f"{found.server}, read on {found.taken}: {found.sampled}", class_="quiet")


def _verdict(found: Assessment) -> Markup:
    if not found.blockers:
        return tag("div", tag("strong", "Nothing must be fixed first"), class_="verdict good")
    things = "thing is" if found.blockers == 1 else "things are"
    return tag("div", tag("strong", f"{found.blockers} {things} to be fixed first"), class_="verdict bad")


def _tiles(found: Assessment) -> Markup:
    documents = sum(each.documents for each in found.collections)
    split = sum(each.sizes.split + each.sizes.compressed for each in found.collections)
    scans = sum(each.served is Served.SCAN for each in found.queries)
    totals = say.totals(found)
    tiles = (
        ("documents", f"{documents:,}", f"in {len(found.collections)} collections"),
        ("on DynamoDB", say.data(sum(each.dynamo_bytes for each in found.collections)), "with indexes, as billed"),
        ("over 400 KB", f"{split:,}", "of those read, kept compressed"),
        ("queries that scan", str(scans), f"of {len(found.queries)} recorded shapes"),
        ("the copy", say.money(totals["copy"]), "once"),
        ("a month, flipped", say.money(totals["full_month"]), "requests and storage"),
    )
    return shown_tiles(tiles)


def _remarks(remarks: Sequence[Remark]) -> Markup:
    rows: list[list[Child]] = []
    for each in remarks:
        mark = tag("span", _WORDS[each.severity], class_=f"mark word {_CLASSES[each.severity]}")
        what = join((each.text, tag("code", each.mend) if each.mend else None))
        rows.append([mark, each.collection or "(database)", each.kind, what])
    return table(["", "Collection", "About", "What, and what to do"], rows, "Nothing.")


def _costs(found: Assessment) -> Markup:
    named = [(each.name, each.costs) for each in found.collections]
    plots = [
        bars("Copy, once", [(name, each.copy, say.money(each.copy)) for name, each in named]),
        bars("Storage a month", [(name, each.storage_month, say.money(each.storage_month)) for name, each in named]),
    ]
    if all(each.full_month is not None for _, each in named):
        plots.append(
            bars(
                "Flipped, a month", [(name, each.full_month or 0.0, say.money(each.full_month)) for name, each in named]
            )
        )
    rows = [
        [name, *map(say.money, (each.copy, each.verify, each.storage_month, each.dual_write_month, each.full_month))]
        for name, each in named
    ]
    rows.append(["together", *map(say.money, say.totals(found).values())])
    head = ["Collection", "Copy", "Verify", "Storage a month", "dual_write a month", "shadow, or flipped, a month"]
    note = "On demand, at the configured prices; check them. Unknown: give the rates with --reads and --writes."
    return join((tag("div", *plots, class_="plots"), table(head, rows, "None."), tag("p", note, class_="quiet")))


def _queries(found: Assessment) -> Markup:
    empty = "None recorded: use --queries FILE, or turn on MongoDB's profiler for a while."
    rows = [_query(each) for each in found.queries]
    head = ["Collection", "Query", "Seen", "Answered by", "Read units", "Index that would serve it"]
    return join((tag("p", f"From {found.queries_from}.", class_="quiet"), table(head, rows, empty)))


def _query(each: QueryReport) -> list[Child]:
    kind = {Served.SCAN: "warn", Served.REFUSED: "bad"}.get(each.served, "good")
    by = tag("span", say.read_by(each), class_=f"mark {kind}")
    units = say.number(each.units) if each.units is not None else "-"
    return [each.collection, tag("code", f"{each.verb} {each.shape}"), each.count, by, units, each.suggestion or "-"]


def _collection(each: CollectionReport) -> list[Child]:
    if not each.looked_at:
        return [tag("p", "It has no documents.", class_="quiet")]
    sizes, costs = each.sizes, each.costs
    facts = (
        ("Documents", f"{each.documents:,} ({'all' if each.whole else f'{each.looked_at:,}'} read)"),
        ("Bytes", f"{say.data(each.mongo_bytes)} in MongoDB, {say.data(each.dynamo_bytes)} on DynamoDB with indexes"),
        ("Items", f"median {say.data(sizes.median)}, 99 % up to {say.data(sizes.p99)}"),
        ("Largest", f"{say.data(sizes.largest)}: {say.headroom(sizes.largest)}"),
        ("Nesting", f"{each.deepest} deep"),
        ("Rates", say.rates(each.rates)),
        ("Copy", f"{say.duration(costs.copy_seconds)}, bound by {costs.copy_bound}"),
    )
    listed = tag("dl", *(join((tag("dt", name), tag("dd", value))) for name, value in facts))
    plots = [columns(f"Sizes of items: {each.name}", [_column(one) for one in sizes.histogram])]
    for index in each.indexes:
        if index.hottest:
            shares = [(one.hash, one.share, f"{one.share:.1%}") for one in index.hottest]
            plots.append(bars(f"{index.target}: the most frequent values", shares, most=1.0))
    return [listed, tag("div", *plots, class_="plots"), _indexes(each), _keys(each), _fields(each)]


def _column(one: Bucket) -> tuple[str, int, bool]:
    label = ">400" if one.upto is None else str(one.upto // 1024)
    return label, one.documents, one.upto is None


def _indexes(each: CollectionReport) -> Markup:
    rows = [
        [
            one.name,
            f"{one.keys} ({', '.join(one.options)})" if one.options else one.keys,
            join((one.becomes, tag("code", one.warning) if one.warning else None)),
            f"{one.entries:.0%}" if one.target else "-",
            one.values if one.target else "-",
            "-" if one.uses is None else f"{one.uses:,}",
        ]
        for one in each.indexes
    ]
    head = ["Index", "Of", "Becomes", "Entries", "Values seen", "Used, so far"]
    return join((tag("h3", "Indexes"), table(head, rows, "None but that of _id, which is the table's key.")))


def _keys(each: CollectionReport) -> Markup:
    rows = [[key.path, f"{key.longest} of {key.limit} bytes", say.key_facts(key)] for key in each.keys]
    return join((tag("h3", "Keys"), table(["Field", "Longest", "Values in the key"], rows, "None.")))


def _fields(each: CollectionReport) -> Markup:
    rows = [[say.short(one.path), one.type, f"{one.count:,}", one.form] for one in each.fields]
    listed = table(["Path", "Type", "Seen", "On DynamoDB"], rows, "None.")
    return tag(
        "details", tag("summary", f"Types: {len(rows)} at {len({one.path for one in each.fields})} paths"), listed
    )
