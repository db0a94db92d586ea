"""Measures each document through the real codec: sizes, keys and types. Memory use is bounded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.assess.model import ITEM_BUCKETS, BoundsReached, Bucket, Hot, KeyReport, Sizes
from shadow.assess.paths import Paths
from shadow.assess.reach import ReachMeter
from shadow.compare.diff import Hasher
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.stored import RawDocument, document_of, oddities, without
from shadow.model.values import type_name
from shadow.model.version import STAMP_PARTS, Document, Version
from shadow.stores.dynamo.client.limits import HASH_LIMIT, ITEM_LIMIT, RANGE_LIMIT
from shadow.stores.dynamo.items import keys, unique
from shadow.stores.dynamo.items.codec import Codec, Encoded, item_size

__all__ = ["BILLED_BYTES", "READ_UNIT", "WRITE_UNIT", "Meter", "TextTally", "Weights", "is_stamp"]

WRITE_UNIT: Final = 1024
"""Bytes per write unit (Developer Guide, "Read and write request units")."""
READ_UNIT: Final = 4096
BILLED_BYTES: Final = 100
"""Bytes that DynamoDB adds to each item and index entry when it bills storage."""

_VERSION: Final = Version("0" * 24, 1)
_OPERATION: Final = "0" * 24
"""A version of realistic length."""
_PART_OVERHEAD: Final = 160
_NEAR: Final = ITEM_LIMIT * 9 // 10
_STEPS: Final = 64
"""Size classes per power of two: a quantile is accurate to about one per cent."""


def is_stamp(value: Any) -> bool:
    """Whether the value in the reserved field is shadow's own."""
    return isinstance(value, Mapping) and bool(value) and set(value) <= STAMP_PARTS


class TextTally:
    """Counts how often each text occurs, for at most `most` texts; beyond that the rarest are dropped."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()
        self.total = 0
        self.is_cut = False

    def add(self, text: str) -> None:
        self.total += 1
        self._counts[text] += 1
        if len(self._counts) > self._most:
            self._counts = Counter(dict(self._counts.most_common(self._most // 2)))
            self.is_cut = True

    @property
    def values(self) -> int:
        return len(self._counts)

    @property
    def share(self) -> float:
        """The share of the most frequent text; 0 if none occurs twice."""
        ((_, count),) = self._counts.most_common(1) or (("", 0),)
        return count / self.total if count > 1 else 0.0

    def hottest(self, hasher: Hasher, most: int = 3) -> tuple[Hot, ...]:
        """The most frequent texts, as keyed hashes with their shares; empty if none occurs twice."""
        return tuple(
            Hot(hasher.hash_value(text), count / self.total)
            for text, count in self._counts.most_common(most)
            if count > 1
        )


@dataclass
class Weights:
    """Sums over the documents read: units of one write and one read, billed bytes. `index_units` and `index_bytes` are
    by name of the index; `claims` are uniqueness items."""

    documents: int = 0
    write_units: int = 0
    read_units: int = 0
    bytes: int = 0
    claims: int = 0
    index_units: Counter[str] = field(default_factory=Counter)
    index_bytes: Counter[str] = field(default_factory=Counter)
    index_entries: Counter[str] = field(default_factory=Counter)


class Meter:
    """Measures one collection under the design `spec`."""

    def __init__(self, spec: CollectionSpec) -> None:
        self.spec = spec
        self.paths = Paths()
        self.weights = Weights()
        self.stamped = self.foreign = self.tombstones = 0
        self.odd: Counter[str] = Counter()
        """Documents with BSON that the driver does not reproduce, by kind."""
        fields = {name: HASH_LIMIT for index in spec.indexes for name in index.keys}
        fields |= {index.range: RANGE_LIMIT for index in spec.indexes if index.range is not None}
        self._keys = {"_id": _KeyMeter("_id", HASH_LIMIT)} | {
            name: _KeyMeter(name, limit) for name, limit in fields.items()
        }
        self.tallies = {index.name: TextTally() for index in spec.indexes}
        self._codec = Codec(spec)
        self._key_fields = frozenset({"_id", *self._codec.limits})
        self._sizes = _SizeMeter()
        self._reach = ReachMeter()

    def add(self, raw: Mapping[str, Any], bson_bytes: int) -> None:
        """Measures one document as stored in MongoDB; `bson_bytes` is its length there."""
        document = dict(raw)
        stamp = document.pop(self.spec.reserved, None)
        if is_stamp(stamp):
            if "t" in stamp:
                self.tombstones += 1
                return
            self.stamped += 1
        elif self.spec.reserved in raw:
            self.foreign += 1
            document[f"{self.spec.reserved}_"] = stamp  # the reserved field will get another name
        if isinstance(raw, RawDocument):
            document = document_of(without(raw.raw, self.spec.reserved))
            self.odd.update({each.kind for each in oddities(raw.raw)})
        text = keys.key_text(document["_id"])
        encoded = self._codec.encode(text, _VERSION, document, _OPERATION)
        natural = self._codec.natural_size(text, _VERSION, document, _OPERATION)
        self._sizes.add(encoded, natural, bson_bytes, odd=isinstance(document, RawDocument))
        self.paths.add(document, self._key_fields)
        for meter in self._keys.values():
            meter.add(document)
        self._weigh(encoded, document, bson_bytes)

    def _weigh(self, encoded: Encoded, document: Document, bson_bytes: int) -> None:
        weights, head = self.weights, item_size(encoded.item)
        pieces = [head, *(len(part) + _PART_OVERHEAD for part in encoded.parts)]
        weights.documents += 1
        weights.write_units += sum(math.ceil(size / WRITE_UNIT) for size in pieces)
        weights.read_units += sum(math.ceil(size / READ_UNIT) for size in pieces)
        weights.bytes += sum(size + BILLED_BYTES for size in pieces)
        values = len(unique.claims(self.spec, document))
        weights.claims += values
        self._reach.add(document, bson_bytes, values)
        for index in self.spec.indexes:
            entry = _entry(encoded, index)
            if entry is not None:
                self.tallies[index.name].add(entry)
                weights.index_units[index.name] += math.ceil(head / WRITE_UNIT)
                weights.index_bytes[index.name] += head + BILLED_BYTES
                weights.index_entries[index.name] += 1

    def reach(self) -> BoundsReached:
        return self._reach.report()

    def sizes(self) -> Sizes:
        return self._sizes.report()

    def key_reports(self) -> tuple[KeyReport, ...]:
        return tuple(meter.report() for meter in self._keys.values())

    def key_report(self, path: str) -> KeyReport:
        return self._keys[path].report()


def _entry(encoded: Encoded, index: IndexSpec) -> str | None:
    """The text of the item's hash in an index; None if the index does not contain it."""
    if index.range is not None and index.range not in encoded.item:
        return None
    text = encoded.item.get(index.hash, {}).get("S")
    return None if text is None else str(text)


class _KeyMeter:
    def __init__(self, path: str, limit: int) -> None:
        self.path, self.limit = path, limit
        self.exact = self.escaped = self.absent = self.arrays = self.longest = 0
        self.aside: Counter[str] = Counter()
        self.types: Counter[str] = Counter()

    def add(self, document: Document) -> None:
        value = document.get(self.path)
        self.types["missing" if self.path not in document else type_name(value)] += 1
        if value is None and self.path != "_id":
            self.absent += 1
        elif type(value) is list:
            self.arrays += 1
        else:
            text, is_exact = keys.text_and_exactness(value, self.limit)
            self.longest = max(self.longest, len(text.encode()))
            if not is_exact:
                reason = f"string over {self.limit} bytes" if text.startswith("~strx:") else type_name(value)
                self.aside[reason] += 1
            elif text.startswith("~str:"):
                self.escaped += 1
            else:
                self.exact += 1

    def report(self) -> KeyReport:
        return KeyReport(
            self.path,
            self.limit,
            self.exact,
            self.escaped,
            self.absent,
            self.arrays,
            dict(self.aside.most_common()),
            dict(self.types.most_common()),
            self.longest,
        )


class _SizeMeter:
    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self._buckets: Counter[int | None] = Counter()
        self._smallest: int | None = None
        self._largest = 0
        self._near = self._compressed = self._split = self._most_parts = self._unnamed = 0
        self._bson = self._items = 0

    def add(self, encoded: Encoded, natural: int | None, bson_bytes: int, *, odd: bool) -> None:
        head = item_size(encoded.item)
        size = head if natural is None else natural
        self._smallest = size if self._smallest is None else min(self._smallest, size)
        self._largest = max(self._largest, size)
        self._classes[int(math.log2(size) * _STEPS)] += 1
        self._buckets[next((upto for upto in ITEM_BUCKETS if size <= upto), None)] += 1
        self._near += _NEAR < size <= ITEM_LIMIT
        self._split += bool(encoded.parts)
        self._compressed += not encoded.parts and not odd and (natural is None or natural > ITEM_LIMIT)
        self._most_parts = max(self._most_parts, len(encoded.parts))
        self._unnamed += natural is None and not odd
        self._bson += bson_bytes
        self._items += head + sum(len(part) + _PART_OVERHEAD for part in encoded.parts)

    def _quantile(self, share: float) -> int:
        """The upper bound of the class that contains it."""
        rest = share * self._classes.total()
        for number in sorted(self._classes):
            rest -= self._classes[number]
            if rest <= 0:
                return min(self._largest, int(2 ** ((number + 1) / _STEPS)))
        return self._largest

    def report(self) -> Sizes:
        return Sizes(
            tuple(Bucket(upto, self._buckets[upto]) for upto in (*ITEM_BUCKETS, None)),
            self._smallest or 0,
            self._quantile(0.5),
            self._quantile(0.99),
            self._largest,
            self._near,
            self._compressed,
            self._split,
            self._most_parts,
            self._unnamed,
            self._bson,
            self._items,
        )
