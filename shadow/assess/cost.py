"""Units, money and time. Pure functions of the measurements, the rates and the prices.

The rules (Developer Guide, "Read and write request units"): a write unit per KiB of the item, and the same for each
index that contains it; a strongly consistent read unit per 4 KiB; twice as much in a transaction, which a unique
constraint needs for inserts and deletes, with one more item per value.
"""

from __future__ import annotations

from typing import Final

from shadow.assess.measure import READ_UNIT, Weights
from shadow.assess.model import Costs, Rates, Units
from shadow.assess.prices import Prices
from shadow.model.schema import CollectionSpec

__all__ = ["HOUR", "MONTH", "NEW_TABLE_UNITS", "PARTITION_READS", "PARTITION_UNITS", "costs", "dynamo_bytes", "units"]

HOUR: Final = 3600
MONTH: Final = 730 * HOUR
"""Seconds."""
PARTITION_UNITS: Final = 1000
"""Write units per second of one partition (Developer Guide, "Partitions and data distribution")."""
PARTITION_READS: Final = 3000
"""Read units per second (same source)."""
NEW_TABLE_UNITS: Final = 4000
"""Write units per second that a new on-demand table accepts at once (same guide, "On-demand capacity mode")."""
_GIGABYTE: Final = 1024**3
_MILLION: Final = 1_000_000


def units(weights: Weights, spec: CollectionSpec) -> Units:
    """Units of one operation on the average document; nothing if no documents were read."""
    count = max(1, weights.documents)
    table = weights.write_units / count
    indexes = sum(weights.index_units[index.name] for index in spec.indexes) / count
    claims = weights.claims / count
    single = table + indexes
    constrained = 2 * table + indexes + 2 * claims if spec.unique else single
    return Units(
        item=table,
        copy=constrained,
        insert=constrained,
        update=single,
        delete=constrained,
        read=weights.read_units / count,
        scan=weights.bytes / READ_UNIT,
    )


def dynamo_bytes(weights: Weights, spec: CollectionSpec, documents: int) -> float:
    """The billed size of the table and its indexes."""
    looked_at = max(1, weights.documents)
    return (weights.bytes + sum(weights.index_bytes[index.name] for index in spec.indexes)) / looked_at * documents


def costs(
    each: Units, documents: int, stored: float, rates: Rates, prices: Prices, copy_rate: float, hottest: float
) -> Costs:
    """`each.scan` is of the whole table. `copy_rate`: documents per second. `hottest`: the greatest share of all
    documents that one value of an index has."""
    write, read = prices.write_million / _MILLION, prices.read_million / _MILLION
    writes = _writes(each, rates)
    write_units = None if writes is None else writes[0]
    reads = None if rates.reads is None else rates.reads * each.read
    followed = None if writes is None else writes[0] * write + writes[1] * each.read * read
    shadowed = None if followed is None or reads is None else followed + reads * read
    storage = stored / _GIGABYTE * prices.storage_gb_month
    seconds, bound = _copy_time(each, documents, copy_rate, hottest)
    return Costs(
        copy=each.copy * documents * write,
        verify=each.scan * read,
        storage_month=storage,
        dual_write_month=None if followed is None else storage + followed * MONTH,
        full_month=None if shadowed is None else storage + shadowed * MONTH,
        copy_seconds=seconds,
        copy_bound=bound,
        write_units_second=write_units,
        read_units_second=reads,
    )


def _writes(each: Units, rates: Rates) -> tuple[float, float] | None:
    """Write units per second, and writes per second that first read the document; None if no rate is known."""
    if rates.inserts is None and rates.updates is None and rates.deletes is None:
        return None
    inserts, updates, deletes = (rate or 0.0 for rate in (rates.inserts, rates.updates, rates.deletes))
    return inserts * each.insert + updates * each.update + deletes * each.delete, updates + deletes


def _copy_time(each: Units, documents: int, copy_rate: float, hottest: float) -> tuple[float, str]:
    """Seconds and their limiting factor: the pace, the capacity of a new table, or one partition of an index."""
    bounds = {
        f"the pace of {copy_rate:g} documents per second": documents / copy_rate,
        f"the {NEW_TABLE_UNITS} write units per second of a new table on demand": documents
        * each.copy
        / NEW_TABLE_UNITS,
        f"the {PARTITION_UNITS} write units per second of the partition of the most frequent value": documents
        * hottest
        * each.item
        / PARTITION_UNITS,
    }
    bound = max(bounds, key=lambda name: bounds[name])
    return bounds[bound], bound
