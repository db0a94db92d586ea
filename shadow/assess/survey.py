"""The assessment: one collection after the other, at a limited pace."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from shadow.assess import remarks as say
from shadow.assess.cost import costs, dynamo_bytes, units
from shadow.assess.design import Design, design, pruned, read_index
from shadow.assess.measure import Meter
from shadow.assess.model import (
    Assessment,
    CollectionReport,
    IndexReport,
    QueryReport,
    Rates,
    Remark,
    Served,
)
from shadow.assess.prices import Prices
from shadow.assess.queries import QueryShape, Recorded, from_profile, gather, reported
from shadow.assess.rates import rates, stated
from shadow.assess.server import Asked, Counts, ListedCollection, Server, UnreadableDocuments, is_whole
from shadow.compare.diff import Hasher
from shadow.errors import StoreUnavailable
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.version import Document

__all__ = ["SurveyOptions", "survey"]

OnProgress = Callable[[str, int, int], None]
"""Called with (collection, documents read, documents to read)."""


@dataclass(frozen=True)
class SurveyOptions:
    """`sample`: documents of each collection, None for all; `watch`: seconds for which rates are measured; `copy_rate`:
    documents per second assumed for the copy; `reads` and `writes` as in `rates.parse`; `given`: what the configuration
    already has for collections."""

    prices: Prices
    hasher: Hasher
    collections: Sequence[str] = ()
    sample: int | None = 10_000
    watch: float = 10.0
    copy_rate: float = 1000.0
    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    recorded: Sequence[Recorded] = ()
    prefix: str = ""
    given: Mapping[str, CollectionSpec] = field(default_factory=dict)
    on_progress: OnProgress = lambda collection, seen, total: None

    def spec(self, name: str) -> CollectionSpec:
        return self.given.get(name) or CollectionSpec(name)


_FIRST: Final = 2_000
_FIRST_BYTES: Final = 2**25
_INDEX_READ: Final = 0.5
"""Read units of an index are those of eventually consistent reads."""


async def survey(server: Server, database: str, options: SurveyOptions) -> Assessment:
    """Raises `StoreUnavailable` if the server cannot be reached or there is no such collection."""
    await server.connect()
    found = await _chosen(server, options.collections)
    remarks: list[Remark] = []
    left_out: dict[str, str] = {}
    for one in found:
        remark = say.unmovable(one, options.prefix)
        if remark is not None:
            remarks.append(remark)
            left_out[one.name] = remark.text
    moving = [one for one in found if one.name not in left_out]
    counts, rated = await _watched(server, [one.name for one in moving], options)
    entries, said = await server.profile()
    shapes = gather([*options.recorded, *from_profile(entries, database)])
    reports = []
    for one in moving:
        own = [shape for shape in shapes if shape.collection == one.name]
        report, more = await _collection(server, one, counts[one.name], rated[one.name], own, options)
        reports.append(report)
        remarks += more
    queries = _queries(shapes, reports, options)
    remarks += [*say.of_queries(queries), *say.of_sampling(server.in_order), *say.of_rights(server.denied)]
    sources = [f"{len(options.recorded)} recorded queries"] if options.recorded else []
    return Assessment(
        database,
        f"MongoDB {server.version}",
        dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "whole" if options.sample is None else f"at most about {2 * options.sample} documents per collection",
        tuple(reports),
        left_out,
        queries,
        ", ".join([*sources, f"{said}: {len(entries)} entries"]),
        say.sort_remarks(remarks),
    )


async def _chosen(server: Server, names: Sequence[str]) -> list[ListedCollection]:
    found = await server.collections()
    unknown = set(names) - {one.name for one in found}
    if unknown:
        raise StoreUnavailable(f"mongo: there is no collection {', '.join(sorted(unknown))}", hint="check the database")
    return [one for one in found if not names or one.name in names]


async def _watched(
    server: Server, names: Sequence[str], options: SurveyOptions
) -> tuple[dict[str, Counts], dict[str, Rates]]:
    """The size and rates of each collection."""
    asked = await server.asked()
    before = {name: await server.counts(name) for name in names}
    if options.watch <= 0:
        after, later = before, asked
    else:
        await asyncio.sleep(options.watch)
        later = await server.asked() if asked is not None else None
        after = {name: await server.counts(name) for name in names}
    found = {}
    total = sum(each.documents for each in after.values()) or 1
    for name in names:
        pair = None if asked is None or later is None else _pair(name, asked, later)
        seen = rates(before[name], after[name], pair)
        found[name] = stated(seen, name, after[name].documents / total, options.reads, options.writes)
    return after, found


_Look = tuple[dict[str, Asked], float]


def _pair(name: str, first: _Look, last: _Look) -> tuple[Asked, Asked, float]:
    return first[0].get(name, Asked()), last[0].get(name, Asked()), last[1]


async def _collection(
    server: Server,
    found: ListedCollection,
    counts: Counts,
    rated: Rates,
    shapes: Sequence[QueryShape],
    options: SurveyOptions,
) -> tuple[CollectionReport, list[Remark]]:
    name, given = found.name, options.spec(found.name)
    uses = await server.index_uses(name)
    indexes = [read_index(raw, uses) for raw in await server.indexes(name)]
    wished = design(name, indexes, shapes, given, given.reserved)
    meter, made, unreadable = await _measured(server, name, counts, wished, options)
    each = units(meter.weights, made.spec)
    passing = None
    if found.options.get("validator"):
        passing = await server.passing(name, found.options["validator"], given.reserved)
    remarks = [
        *say.of_collection(found, passing, given.reserved, await server.shard_key(name)),
        *say.of_unreadable(name, unreadable, options.hasher),
        *say.of_documents(name, meter, made, each),
    ]
    return _report(name, meter, made, counts, rated, options, reserved=_reserved(meter)), remarks


def _reserved(meter: Meter) -> str:
    return say.name_of_reserved(meter.spec.reserved, meter.paths.report()) if meter.foreign else meter.spec.reserved


async def _measured(
    server: Server, name: str, counts: Counts, wished: Design, options: SurveyOptions
) -> tuple[Meter, Design, UnreadableDocuments]:
    """Measures everything. The first documents decide which indexes are worthwhile, and are measured again without the
    others. Indexes rejected later are removed from the design; the sizes stay."""
    first = _FirstDocuments(wished)
    unreadable = UnreadableDocuments()
    wanted = counts.documents if is_whole(counts.documents, options.sample) else options.sample or 0
    async for page in server.documents(name, counts.documents, options.sample):
        for document, length in page.documents:
            first.add(document, length)
        unreadable.add(page.unreadable)
        options.on_progress(name, first.meter.weights.documents, wanted)
        await asyncio.sleep(0)
    first.settle()
    return first.meter, _pruned(first.design, first.meter), unreadable


class _FirstDocuments:
    """Measures, and keeps the first documents until the design is settled."""

    def __init__(self, wished: Design) -> None:
        self.design = wished
        self.meter = Meter(wished.spec)
        self._kept: list[tuple[Document, int]] | None = []
        self._bytes = 0

    def add(self, document: Document, length: int) -> None:
        self.meter.add(document, length)
        if self._kept is not None:
            self._kept.append((document, length))
            self._bytes += length
            if len(self._kept) >= _FIRST or self._bytes >= _FIRST_BYTES:
                self.settle()

    def settle(self) -> None:
        kept, self._kept = self._kept, None
        settled = _pruned(self.design, self.meter)
        if kept and settled.spec != self.design.spec:
            self.meter = Meter(settled.spec)
            for document, length in kept:
                self.meter.add(document, length)
        self.design = settled if kept else self.design


def _pruned(made: Design, meter: Meter) -> Design:
    keys = {report.path: report for report in meter.key_reports()}
    hottest = {index: (tally.total, tally.share) for index, tally in meter.tallies.items()}
    return pruned(made, keys, hottest)


def _report(
    name: str, meter: Meter, made: Design, counts: Counts, rated: Rates, options: SurveyOptions, *, reserved: str
) -> CollectionReport:
    spec, weights = made.spec, meter.weights
    each = units(weights, spec)
    looked_at = max(1, weights.documents)
    each = replace(each, scan=each.scan / looked_at * counts.documents)
    stored = dynamo_bytes(weights, spec, counts.documents)
    shares = [meter.tallies[index.name].share * weights.index_entries[index.name] / looked_at for index in spec.indexes]
    return CollectionReport(
        name=name,
        documents=counts.documents,
        looked_at=weights.documents,
        whole=is_whole(counts.documents, options.sample),
        mongo_bytes=counts.bytes,
        dynamo_bytes=stored,
        stamped=meter.stamped,
        deepest=meter.paths.deepest,
        spec=_with_reserved(spec, reserved),
        sizes=meter.sizes(),
        fields=meter.paths.report(),
        keys=meter.key_reports(),
        indexes=tuple(_indexes(made, meter, options.hasher)),
        rates=rated,
        units=each,
        costs=costs(each, counts.documents, stored, rated, options.prices, options.copy_rate, max(shares, default=0.0)),
        reach=meter.reach(),
    )


def _with_reserved(spec: CollectionSpec, reserved: str) -> CollectionSpec:
    """Indexes over several fields have their attribute under the reserved name."""
    indexes = [replace(index, hash=f"{reserved}_by_{index.name}") if index.fields else index for index in spec.indexes]
    return replace(spec, indexes=tuple(indexes), reserved=reserved)


def _indexes(made: Design, meter: Meter, hasher: Hasher) -> list[IndexReport]:
    found = []
    for each in made.became:
        source, spec, named = each.source, each.spec, each.spec or each.dropped
        if source is not None:
            said = (source.name, source.keys_text(), source.options)
        elif named is not None:
            said = (named.name, ", ".join(named.keys), ())
        else:
            assert each.unique is not None
            said = (each.unique.name, ", ".join(each.unique.fields), ("unique",))
        report = IndexReport(
            *said,
            each.text,
            configured=spec is not None or each.unique is not None,
            target=spec.name if spec is not None else "",
            warning=each.warning,
            uses=source.uses if source is not None else None,
        )
        found.append(report if spec is None else _measured_index(report, spec, meter, hasher))
    return found


def _measured_index(report: IndexReport, spec: IndexSpec, meter: Meter, hasher: Hasher) -> IndexReport:
    tally = meter.tallies[spec.name]
    share = meter.weights.index_entries[spec.name] / max(1, meter.weights.documents)
    return replace(report, entries=share, values=tally.values, hottest=tally.hottest(hasher))


def _queries(
    shapes: Sequence[QueryShape], reports: Sequence[CollectionReport], options: SurveyOptions
) -> tuple[QueryReport, ...]:
    by_name = {report.name: report for report in reports}
    specs = {name: report.spec for name, report in by_name.items()}
    return tuple(
        replace(
            query,
            units=_units(query, by_name[query.collection]),
            suggestion=_suggestion(query, by_name[query.collection]),
        )
        for _, query in reported(shapes, specs, options.hasher)
    )


def _suggestion(query: QueryReport, report: CollectionReport) -> str:
    """The index that would serve it, or why it was rejected."""
    hash = query.suggestion.removeprefix("hash ").partition(", range ")[0]
    for index in report.indexes:
        if hash and not index.configured and index.keys.partition(":")[0].partition(",")[0] == hash and index.warning:
            return f"{query.suggestion}: {index.warning}"
    return query.suggestion


def _units(query: QueryReport, report: CollectionReport) -> float | None:
    """Of one run: everything that is read, whatever the answer; for an index, the average entries of one value."""
    match query.served:
        case Served.KEY:
            return report.units.read
        case Served.SCAN:
            return report.units.scan
        case Served.INDEX:
            index = next((each for each in report.indexes if each.target == query.detail), None)
            if index is None or not index.values:
                return None
            return report.documents * index.entries / index.values * report.units.read * _INDEX_READ
    return None
