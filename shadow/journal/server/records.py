"""The records of the journal as the values that its contract speaks of, and how keys are addressed on a server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import bson

from shadow.host.process import Owner
from shadow.journal.base import Due, Pending, undecided_op
from shadow.journal.server.driver import Condition, Is, Kind, Merge, Place, Record
from shadow.model.order import key_digest
from shadow.model.values import CANONICAL
from shadow.model.version import Key

__all__ = [
    "UNDECIDED",
    "IntentRow",
    "Registered",
    "age_of",
    "as_claimed",
    "as_deferral",
    "as_late",
    "digest_of",
    "due_of",
    "estimate",
    "in_order",
    "intent_place",
    "intent_record",
    "key_place",
    "pack",
    "pending_of",
    "place_of",
    "registered_of",
    "row_of",
    "unpack",
]


@dataclass(frozen=True, slots=True)
class IntentRow:
    """An intent. `opened` is the earliest that its opening can have been, `expires` the latest that its operation can
    last: from then on any process may adopt it. Both in epoch seconds of the server; `key` is packed."""

    op_id: str
    collection: str
    digest: str
    key: bytes
    opened: float
    expires: float
    owner: str
    decided: bytes = b""
    """The packed key that an undecided operation has changed, which is not written to the server; else nothing."""

    @property
    def deferred_key(self) -> bytes:
        """Under what it is deferred."""
        return self.decided or self.key

    @property
    def deferred_digest(self) -> str:
        return digest_of(unpack(self.decided)) if self.decided else self.digest


@dataclass(frozen=True, slots=True)
class Registered:
    """A process that writes to the journal; `beat`: the latest that its last sign of life can have been."""

    id: str
    process: Owner
    beat: float


# --- keys -------------------------------------------------------------------------------------------------------


def pack(key: Key) -> bytes:
    return bson.encode({"": key})


def unpack(blob: bytes) -> Key:
    return bson.decode(blob, codec_options=CANONICAL)[""]


UNDECIDED: Final = "f" * 16
"""With what the digest of an undecided key begins, so that all of them lie together, behind nearly all others."""


def digest_of(key: Key) -> str:
    """The digest by which a journal addresses the entries of a key."""
    op_id = undecided_op(key)
    return key_digest(key) if op_id is None else f"{UNDECIDED}{op_id}"


def estimate(counted: int, last_digest: str) -> int:
    """How many there are, if so many have digests up to the last one: digests are spread evenly."""
    share = (int(last_digest[:12], 16) + 1) / 16**12
    return max(counted, round(counted / share))


# --- records ----------------------------------------------------------------------------------------------------


def intent_place(row: IntentRow) -> Place:
    return Place(Kind.INTENT, row.collection, row.digest, row.op_id)


def key_place(collection: str, key: Key, *, late: bool = False) -> Place:
    """Of the deferral of a key, or of what is left of it when it is settled."""
    return Place(Kind.LATE if late else Kind.DEFERRED, collection, digest_of(key))


def intent_record(row: IntentRow) -> Record:
    values = {"key": row.key, "opened": row.opened, "expires": row.expires, "owner": row.owner}
    return Record(intent_place(row), values)


def row_of(record: Record) -> IntentRow:
    place, values = record.place, record.values
    key, opened, expires = bytes(values["key"]), float(values["opened"]), float(values["expires"])
    return IntentRow(place.op_id, place.name, place.digest, key, opened, expires, values["owner"])


def as_deferral(row: IntentRow, settle_after: float) -> tuple[Place, Merge]:
    """An intent as one more deferral of its key: the generation rises, and its turn has come."""
    return Place(Kind.DEFERRED, row.collection, row.deferred_digest), Merge(
        put={"next_try": row.opened},
        first={"key": row.deferred_key, "attempts": 0},
        add={"generation": 1},
        least=("since", row.opened),
        most=("settle_after", settle_after),
    )


def as_claimed(due: Due) -> Sequence[Condition]:
    """The deferral as it was claimed: no other claim holds it, and it is not a later one with the same number."""
    return Is("generation", due.generation), Is("claimed", due.claimed)


def due_of(record: Record) -> Due:
    values = record.values
    return Due(
        record.place.name,
        unpack(values["key"]),
        int(values["generation"]),
        int(values["attempts"]),
        float(values["since"]),
        float(values["claimed"]),
        refused=values.get("refused", ""),
        settle_after=float(values["settle_after"]),
        late=record.place.kind is Kind.LATE,
    )


def as_late(due: Due, *, limit: float, late: float) -> tuple[Place, Merge]:
    """What stays of a deferral that is settled: its write began `limit` seconds before it could be."""
    began = due.settle_after - limit
    return key_place(due.collection, due.key, late=True), Merge(
        put={"next_try": 2 * due.claimed - began, "since": began},
        first={"key": pack(due.key), "attempts": 0},
        add={"generation": 1},
        most=("settle_after", began + late),
    )


def pending_of(record: Record) -> Pending:
    place, values = record.place, record.values
    key = unpack(values["key"])
    if place.kind is Kind.INTENT:
        opened, expires = float(values["opened"]), float(values["expires"])
        return Pending(place.name, key, opened, expires, op_id=place.op_id, owner=values["owner"])
    return Pending(
        place.name,
        key,
        float(values["since"]),
        float(values["settle_after"]),
        generation=int(values["generation"]),
        attempts=int(values["attempts"]),
        next_try=float(values["next_try"]),
        refused=values.get("refused", ""),
    )


def registered_of(record: Record) -> Registered:
    values = record.values
    process = Owner(values["place"], int(values["pid"]), float(values["started"]))
    return Registered(record.place.name, process, float(values["beat"]))


# --- order ------------------------------------------------------------------------------------------------------


def age_of(record: Record) -> tuple[float, str, str, str]:
    """A record's position in the order of age."""
    place = record.place
    moment = record.values["opened" if place.kind is Kind.INTENT else "since"]
    return float(moment), place.name, place.digest, place.op_id


def place_of(pending: Pending) -> tuple[float, str, str, str]:
    """The same of what people are shown."""
    return pending.since, pending.collection, digest_of(pending.key), pending.op_id


def in_order(records: Iterable[Record], limit: int) -> list[Record]:
    return sorted(records, key=age_of)[:limit]
