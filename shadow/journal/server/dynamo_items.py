"""What the journal's table holds, as DynamoDB's items: their keys, their attributes, and expressions on them. No
request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from shadow.journal.server.driver import STORED, Absent, AtMost, Condition, Is, Kind, Place, Record, Same, Under
from shadow.journal.server.records import UNDECIDED

__all__ = [
    "META",
    "PREFIXES",
    "Expressions",
    "Item",
    "decoded",
    "encoded",
    "item_key",
    "item_of",
    "key_of",
    "partitions",
    "parts",
    "place_at",
    "quoted",
    "record_of",
    "shard_of",
]

_SHARDS: Final = 4
META: Final = "meta"
_LETTERS: Final = {Kind.INTENT: "i", Kind.DEFERRED: "d", Kind.LATE: "l"}
PREFIXES: Final[Mapping[Kind, str]] = {
    Kind.OWNER: "owner#",
    Kind.PASSED: "passed#",
    Kind.UNVERIFIED: "unclean#",
    Kind.PRIMARY: "primary#",
    Kind.SWEEP: "sweep",
}
"""With what the sort key of a note begins, in the partition `meta`; the name follows."""

_STORED: Final[Mapping[Kind, Mapping[str, str]]] = {
    **STORED,
    Kind.UNVERIFIED: {"since": "u", "mark": "m"},
    Kind.PRIMARY: {"primary": "p"},
    Kind.SWEEP: {"until": "u"},
}
"""The names of attributes, by kind; those that are missing here are stored as they are."""
_READ: Final = {kind: {stored: name for name, stored in names.items()} for kind, names in _STORED.items()}

Item: TypeAlias = dict[str, Any]


# --- keys -------------------------------------------------------------------------------------------------------


def item_key(partition: str, sort_key: str) -> Item:
    return {"pk": {"S": partition}, "sk": {"S": sort_key}}


def partitions(kind: Kind) -> list[str]:
    return [f"{_LETTERS[kind]}#{shard}" for shard in range(_SHARDS)]


def shard_of(kind: Kind, digest: str) -> str:
    """The partition of a digest."""
    # From its end: within a partition the digests stay evenly spread from the first digit on. What is undecided lies
    # in one partition, for it is asked for all at once.
    shard = 0 if digest.startswith(UNDECIDED) else int(digest[-2:], 16) % _SHARDS
    return f"{_LETTERS[kind]}#{shard}"


def quoted(collection: str) -> str:
    """A collection's name within a sort key, without the separator."""
    return quote(collection, safe="")


def parts(sort_key: str) -> tuple[str, str, str]:
    """Collection, digest and op_id; a deferral has none."""
    name, digest, op_id = (*sort_key.split("#", 2), "")[:3]
    return unquote(name), digest, op_id


def key_of(place: Place) -> Item:
    if place.kind in PREFIXES:
        return item_key(META, f"{PREFIXES[place.kind]}{place.name}")
    pieces = [quoted(place.name), place.digest, *([place.op_id] if place.op_id else [])]
    return item_key(shard_of(place.kind, place.digest), "#".join(pieces))


def place_at(kind: Kind, sort_key: str) -> Place:
    if kind in PREFIXES:
        return Place(kind, sort_key.removeprefix(PREFIXES[kind]))
    return Place(kind, *parts(sort_key))


# --- attributes -------------------------------------------------------------------------------------------------


def encoded(value: str | float | bytes) -> Item:
    if isinstance(value, str):
        return {"S": value}
    return {"B": value} if isinstance(value, bytes) else {"N": repr(value)}


def decoded(attribute: Item) -> str | float | bytes:
    ((kind, value),) = attribute.items()
    return float(value) if kind == "N" else value


def item_of(record: Record) -> Item:
    names = _STORED[record.place.kind]
    values = {names.get(name, name): encoded(value) for name, value in record.values.items()}
    return {**key_of(record.place), **values}


def record_of(kind: Kind, item: Item) -> Record:
    names = _READ[kind]
    values = {names.get(name, name): decoded(value) for name, value in item.items() if name not in ("pk", "sk")}
    return Record(place_at(kind, item["sk"]["S"]), values)


class Expressions:
    """The expressions of one request on an item of a kind, with the names and values that are in them."""

    def __init__(self, kind: Kind) -> None:
        self._stored = _STORED[kind]
        self.names: dict[str, str] = {}
        self.values: Item = {}

    def name(self, field: str) -> str:
        stored = self._stored.get(field, field)
        self.names[f"#{stored}"] = stored
        return f"#{stored}"

    def value(self, value: str | float | bytes) -> str:
        name = f":v{len(self.values)}"
        self.values[name] = encoded(value)
        return name

    def setting(self, values: Mapping[str, Any]) -> str:
        """An update that sets fields, and removes those that become empty."""
        put = [f"{self.name(field)} = {self._side(value)}" for field, value in values.items() if value != ""]
        gone = [self.name(field) for field, value in values.items() if value == ""]
        return " ".join(self.clauses(SET=put, REMOVE=gone))

    def _side(self, value: Any) -> str:
        return self.name(value.field) if isinstance(value, Same) else self.value(value)

    def clauses(self, **clauses: Sequence[str]) -> Iterable[str]:
        return (f"{verb} {', '.join(terms)}" for verb, terms in clauses.items() if terms)

    def meeting(self, conditions: Sequence[Condition]) -> list[str]:
        return [self._condition(each) for each in conditions]

    def _condition(self, condition: Condition) -> str:
        match condition:
            case Is(field, value):
                return f"{self.name(field)} = {self.value(value)}"
            case AtMost(field, value):
                return f"{self.name(field)} <= {self.value(value)}"
            case Under(field, value):
                return f"{self.name(field)} < {self.value(value)}"
            case Absent(field):
                return f"attribute_not_exists({self.name(field)})"

    def request(self, **expressions: str) -> dict[str, Any]:
        """The parameters of the request, without those that would be empty."""
        parameters = {
            **expressions,
            "ExpressionAttributeNames": self.names,
            "ExpressionAttributeValues": self.values,
        }
        return {name: value for name, value in parameters.items() if value}
