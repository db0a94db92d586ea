"""The remarks of an assessment, the worst first, each with what to do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from shadow.assess import reach
from shadow.assess.cost import PARTITION_READS, PARTITION_UNITS
from shadow.assess.design import Design
from shadow.assess.figures import short
from shadow.assess.measure import Meter
from shadow.assess.model import (
    FieldReport,
    KeyReport,
    QueryReport,
    Remark,
    RemarkKind,
    Served,
    Severity,
    Sizes,
    Units,
)
from shadow.assess.paths import BLOB
from shadow.assess.server import ListedCollection, UnreadableDocuments
from shadow.compare.diff import Hasher
from shadow.model.schema import RESERVED
from shadow.model.uses import UsesOf
from shadow.model.values import type_name
from shadow.observe.portability import ADVICE
from shadow.stores.dynamo.client.limits import ITEM_LIMIT
from shadow.stores.dynamo.client.settings import is_table_name
from shadow.stores.mongo.kinds import ADMITTED, EXPIRING, REASONS, SHARDED, Special, judge_collection
from shadow.stores.mongo.shard_keys import ShardKey
from shadow.stores.mongo.validators import ValidatorVerdict, judge, mending

__all__ = [
    "name_of_reserved",
    "of_collection",
    "of_documents",
    "of_queries",
    "of_rights",
    "of_unreadable",
    "of_uses",
    "sort_remarks",
    "unmovable",
]

_HOT: Final = 0.1
_ENOUGH: Final = 100
_ORDER: Final = {Severity.BLOCKER: 0, Severity.WARNING: 1, Severity.NOTE: 2}
_NO_DOCUMENTS: Final = (Special.VIEW, Special.TIME_SERIES)
"""Kinds of collections that nobody expects to migrate."""
_B, _W, _N = Severity.BLOCKER, Severity.WARNING, Severity.NOTE


def sort_remarks(remarks: Sequence[Remark]) -> tuple[Remark, ...]:
    return tuple(sorted(remarks, key=lambda remark: (_ORDER[remark.severity], remark.collection)))


def unmovable(found: ListedCollection, prefix: str) -> Remark | None:
    """Why a collection is not migrated; None if it is."""
    unfit = judge_collection(found, RESERVED)
    if unfit is not None and unfit.special is not Special.VALIDATOR:
        severity = _W if unfit.special in _NO_DOCUMENTS else _B
        text = f"it is not moved: {unfit.special}: {unfit.reason}"
        return Remark(severity, RemarkKind.NOT_MOVED, found.name, text, unfit.advice)
    if not is_table_name(prefix + found.name):
        return Remark(
            _B,
            RemarkKind.NAME,
            found.name,
            "its name cannot be a table's: only letters, digits and _ . -, 3 to 255 of them",
            "give all tables a dynamo.table_prefix if it is too short; else rename the collection first",
        )
    return None


def name_of_reserved(reserved: str, taken: Sequence[FieldReport]) -> str:
    """A name for the reserved field that no document has."""
    names = {each.path.partition(".")[0] for each in taken}
    wanted = f"{reserved}_version"
    while wanted in names:
        wanted += "_"
    return wanted


# --- the collection -----------------------------------------------------------------------------------


def of_collection(
    found: ListedCollection, passing: tuple[int, int] | None, reserved: str, shard_key: ShardKey | None = None
) -> Iterator[Remark]:
    options = found.options
    if "expireAfterSeconds" in options:
        row = ADMITTED[EXPIRING]
        yield Remark(_W, RemarkKind.OPTION, found.name, f"its documents expire: {row.why}", row.next)
    if shard_key is not None and shard_key.paths:
        row = ADMITTED[SHARDED]
        yield Remark(
            _W, RemarkKind.OPTION, found.name, f"it is sharded by {', '.join(shard_key.paths)}: {row.why}", row.next
        )
    validator = options.get("validator")
    if validator and options.get("validationLevel") != "off":
        yield from _of_validator(found, validator, passing, reserved)


def _of_validator(
    found: ListedCollection, validator: Mapping[str, Any], passing: tuple[int, int] | None, reserved: str
) -> Iterator[Remark]:
    verdict, places = judge(validator, reserved)
    said = "its validator"
    if passing is not None and passing[0]:
        now, then = passing
        verdict = (
            ValidatorVerdict.REFUSES
            if then < now
            else ValidatorVerdict.ACCEPTS
            if verdict is not ValidatorVerdict.REFUSES
            else verdict
        )
        said = f"its validator, asked about {now} documents that pass it,"
    severity = _W if options_warn(found) else _B
    mend = mending(found.name, validator, reserved) if places else f"let it accept a field {reserved} of type object"
    if verdict is ValidatorVerdict.REFUSES:
        effect = "logs a warning for" if options_warn(found) else "refuses"
        yield Remark(
            severity,
            RemarkKind.VALIDATOR,
            found.name,
            f"{said} {effect} documents that carry a version in {reserved}",
            mend,
        )
    elif verdict is ValidatorVerdict.UNSURE:
        text = f"{said} may refuse documents that carry a version in {reserved}: nothing shows that it does not"
        yield Remark(_W, RemarkKind.VALIDATOR, found.name, text, mend)
    yield Remark(
        _N,
        RemarkKind.VALIDATOR,
        found.name,
        "it has a validator: MongoDB as the secondary takes copies and tombstones past it, which needs the right "
        "bypassDocumentValidation; DynamoDB has no validators",
    )


def options_warn(found: ListedCollection) -> bool:
    return found.options.get("validationAction") == "warn"


# --- its documents -------------------------------------------------------------------------------------------


def of_unreadable(name: str, found: UnreadableDocuments, hasher: Hasher) -> Iterator[Remark]:
    """Documents that cannot be copied: how many, why, and the first of them by the hash of their key."""
    if not found.reasons:
        return
    kinds = ", ".join(f"{count} {reason}" for reason, count in found.reasons.most_common())
    keys = ", ".join(f"{type_name(key)}:{hasher.hash_key(key)}" for key in found.keys)
    yield Remark(
        _B,
        RemarkKind.UNREADABLE,
        name,
        f"{found.reasons.total()} documents cannot be read, so nothing copies them: {kinds}; keys: {keys}",
        "correct or delete them in MongoDB: `shadow backfill` names them too, and the gates stay closed until then",
    )


def of_documents(name: str, meter: Meter, made: Design, units: Units) -> Iterator[Remark]:
    reserved = meter.spec.reserved
    if meter.foreign:
        yield Remark(
            _B,
            RemarkKind.RESERVED,
            name,
            f"documents with a field {reserved} that is not shadow's: {meter.foreign}",
            "give the collection another `reserved`; the written configuration does",
        )
    if meter.odd:
        places = _some([f"{kind} ({count})" for kind, count in meter.odd.most_common()])
        yield Remark(
            _W,
            RemarkKind.BLOB,
            name,
            f"BSON that Python's driver does not reproduce: {places}; such documents are kept as their BSON, "
            "to the byte",
            "an update on DynamoDB keeps what the driver reads of them; rewrite them if that is not enough",
        )
    yield from _of_sizes(name, meter.sizes())
    yield from reach.remarks_of(name, meter.reach())
    blobs = sorted({each.path for each in meter.paths.report() if each.form == BLOB})
    if blobs:
        text = f"no form on DynamoDB, so exact but not readable there: {_some([short(each) for each in blobs])}"
        yield Remark(_N, RemarkKind.BLOB, name, text)
    for key in meter.key_reports():
        yield from _of_key(name, key)
    for index in made.spec.indexes:
        yield from _of_hot(name, meter, index.name, units)
    for each in made.became:
        if each.warning:
            source = each.source.name if each.source else each.dropped.name if each.dropped else "an index"
            yield Remark(_W, RemarkKind.INDEX, name, f"{source}: {each.warning}")


def _of_sizes(name: str, sizes: Sizes) -> Iterator[Remark]:
    if sizes.split:
        yield Remark(
            _W,
            RemarkKind.LARGE,
            name,
            f"over 400 KB even compressed: {sizes.split}; each is split over up to {sizes.most_parts} items",
            "they work; each write of one costs many units, and other tools cannot read them",
        )
    compressed = sizes.compressed - sizes.unnamed
    if compressed > 0:
        yield Remark(_W, RemarkKind.LARGE, name, f"over 400 KB, so kept compressed: {compressed}")
    if sizes.unnamed:
        text = f"with field names that no item can have, so kept compressed: {sizes.unnamed}"
        yield Remark(_W, RemarkKind.NAME, name, text)
    if sizes.near:
        text = f"within a tenth of 400 KB ({ITEM_LIMIT} bytes): {sizes.near}; they are kept compressed when they grow"
        yield Remark(_N, RemarkKind.LARGE, name, text)


def _of_key(name: str, key: KeyReport) -> Iterator[Remark]:
    aside = sum(key.aside.values())
    if aside:
        kinds = ", ".join(f"{count} {kind}" for kind, count in key.aside.items())
        text = f"{key.path}: {kinds}: no key can hold them, so it has a digest or a number, with the value beside it"
        yield Remark(_N, RemarkKind.KEY, name, f"{text}; they are found by equality, not by range")
    if key.arrays:
        text = f"{key.path}: lists, which share one partition of an index: {key.arrays}"
        yield Remark(_W, RemarkKind.KEY, name, f"{text}; each query by it reads them all")


def _of_hot(name: str, meter: Meter, index: str, units: Units) -> Iterator[Remark]:
    tally = meter.tallies[index]
    share = tally.share
    if tally.total >= _ENOUGH and share >= _HOT:
        entries = share * meter.weights.index_entries[index] / max(1, meter.weights.documents)
        bound = PARTITION_UNITS / max(units.item, 1.0) / max(entries, 1e-9)
        yield Remark(
            _W,
            RemarkKind.HOT,
            name,
            f"{index}: one value has {share:.0%} of the entries; one partition takes {PARTITION_UNITS} write units a "
            f"second, so writes throttle from about {bound:.0f} a second on, and so does the copy",
        )


# --- the database -----------------------------------------------------------------------------------------------


def of_queries(queries: Sequence[QueryReport]) -> Iterator[Remark]:
    for each in queries:
        if each.served is Served.REFUSED:
            yield Remark(
                _B,
                RemarkKind.QUERY,
                each.collection,
                f"{each.verb} {each.shape}: {each.detail} is refused with DynamoDB as primary",
                "change the query, or keep it on the driver",
            )
        elif each.served is Served.SCAN:
            served = each.suggestion or "no index of the table would serve it"
            units = "" if each.units is None else f", {each.units:.0f} read units each time"
            text = f"{each.verb} {each.shape} scans the table{units}"
            yield Remark(_W, RemarkKind.QUERY, each.collection, text, served)
        for hot in each.hottest:
            if hot.share >= _HOT:
                text = f"{each.verb} {each.shape}: {hot.share:.0%} of {each.count} ask for one key ({hot.hash})"
                mend = f"one partition takes {PARTITION_READS} read units a second: keep such a key in a cache"
                yield Remark(_N, RemarkKind.HOT, each.collection, text, mend)


def of_uses(found: UsesOf, accepted: Mapping[str, Collection[str]]) -> Iterator[Remark]:
    """What the application was seen to do. `accepted`: the operators that a collection may lose, by collection."""
    for collection, operators in sorted(found.items()):
        for name, uses in sorted(operators.items()):
            day = dt.datetime.fromtimestamp(uses.last, dt.UTC).date()
            verbs = ", ".join(sorted(uses.verbs))
            text = f"{name} was used {uses.count} times by the application ({verbs}), last on {day}"
            known = name in accepted.get(collection, ())
            mend = "it is named in accept_not_portable" if known else ADVICE
            yield Remark(_N if known else _W, RemarkKind.NOT_PORTABLE, collection, text, mend)


def of_sampling(in_order: Iterable[str]) -> Iterator[Remark]:
    for name in sorted(in_order):
        text = "the server was too slow for random documents: most of those read are the first ones by key"
        yield Remark(_N, RemarkKind.SAMPLE, name, text, "repeat it when the server is less busy, or with --whole")


_RIGHTS: Final = {
    **dict.fromkeys(("top", "serverStatus", "indexStats"), "role clusterMonitor on admin"),
    "config.collections": f"{REASONS[Special.SHARDED_UNSEEN].next}; without it a sharded collection is refused",
}


def of_rights(denied: Mapping[str, str]) -> Iterator[Remark]:
    for what, tells in denied.items():
        mend = _RIGHTS.get(what, "role dbAdmin")
        yield Remark(_N, RemarkKind.RIGHTS, "", f"{what}: not allowed, so not known: {tells}", mend)


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
