"""What kind of collection MongoDB has, and whether it can be kept in two stores. Pure; `mongo_looks` queries the
server.

Two stores can be kept equal only if a document that was written under a key stays there until shadow writes it again,
and if the same call finds the same documents on both. Other collections are refused while both stores are written
(phases `dual_write` and `shadow`). In phase `off` their calls are the driver's own.

Sources: the MongoDB manual, "Collation", "Capped Collections", "Time Series", "Clustered Collections", "Views", "Schema
Validation", "Queryable Encryption", "Shard Keys"; the shape of the input: the command `listCollections`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pymongo.client_options import ClientOptions

from shadow.errors import UnsupportedOperation
from shadow.stores.mongo.validators import ValidatorVerdict, judge, mending

__all__ = [
    "ADMITTED",
    "EXPIRING",
    "REASONS",
    "SHARDED",
    "KindRow",
    "ListedCollection",
    "Special",
    "UnfitKind",
    "doubtful_validator",
    "expiring_in_two_stores",
    "judge_client",
    "judge_collection",
    "judge_name",
    "refused_by_validator",
]


class Special(enum.StrEnum):
    """The property of a collection that two stores cannot keep equal."""

    SYSTEM = "system collection"
    VIEW = "view"
    TIME_SERIES = "time series collection"
    CAPPED = "capped collection"
    COLLATION = "default collation"
    ENCRYPTED = "encrypted fields"
    CLIENT = "client that encrypts"
    VALIDATOR = "validator that refuses the version"
    UNSEEN = "collection whose options cannot be seen"
    SHARDED_UNSEEN = "sharded collection whose shard key cannot be seen"


@dataclass(frozen=True, slots=True)
class KindRow:
    """`why` it is refused, or what to know about it, and the `next` step."""

    why: str
    next: str


_KEEP: Final = "keep it in phase off (every call is the driver's own)"

REASONS: Final[Mapping[Special, KindRow]] = {
    Special.SYSTEM: KindRow(
        "names that begin with system. are the server's own",
        "take it out of `collections`: the application's own collections are what is moved",
    ),
    Special.VIEW: KindRow(
        "a view cannot be written, and holds no documents of its own",
        f"name the collections that it reads from instead, and build on DynamoDB what the view computes; or {_KEEP}",
    ),
    Special.TIME_SERIES: KindRow(
        "its documents are stored in buckets: none can be changed or deleted by its key, which need not be unique, and "
        "none takes a version",
        f"copy it into a plain collection and name that one; or {_KEEP}",
    ),
    Special.CAPPED: KindRow(
        "MongoDB removes the oldest documents by itself, which no write shows; older servers refuse deletes, and "
        "documents that grow; and readers rely on the order of insertion, which DynamoDB does not have",
        "copy it into a collection without a bound, let the application delete what is old, and name that one; or "
        f"{_KEEP}",
    ),
    Special.COLLATION: KindRow(
        "MongoDB compares and orders texts by the collation, in _id and unique values too; DynamoDB "
        "compares bytes, so a write by another spelling of a key would reach one store alone",
        "copy it into a collection without a collation, with values that must be found by any spelling stored in one "
        f"spelling, and name that one; or {_KEEP}",
    ),
    Special.ENCRYPTED: KindRow(
        "its fields are found by the tokens that the server keeps for them, and no other store has these",
        "encrypt explicitly (`ClientEncryption`) into a collection without encryptedFields: such values are copied as "
        f"they are; or {_KEEP}",
    ),
    Special.CLIENT: KindRow(
        "the client that was passed in has auto_encryption_opts: it decrypts what shadow reads, so DynamoDB would hold "
        "in the clear what MongoDB holds encrypted",
        "pass in a client without auto_encryption_opts and encrypt explicitly (`ClientEncryption`): such values are "
        "copied as they are; or keep the collections in phase off",
    ),
    Special.VALIDATOR: KindRow(
        "its validator refuses every document that carries a version, so every write would fail",
        "let it accept the field: {mend}",
    ),
    Special.UNSEEN: KindRow(
        "the user may not run listCollections, so nothing says whether both stores can keep it equal",
        "grant the user the role readWrite on the database, or the action listCollections on it",
    ),
    Special.SHARDED_UNSEEN: KindRow(
        "it is sharded, and the user may not read which key: commands by key must carry the shard key",
        "grant the user the action find on config.collections (the role read on the database config has it)",
    ),
}
"""The reason and the remedy for each refused kind."""

EXPIRING: Final = "documents that expire (TTL index, clustered with expireAfterSeconds)"
SHARDED: Final = "sharded by another key"

ADMITTED: Final[Mapping[str, KindRow]] = {
    "clustered collection": KindRow("`_id` is the order of the documents themselves; every verb and job works", ""),
    "validator (strict, moderate; error, warn)": KindRow(
        "one that accepts the field of the version; it applies to the application's writes on MongoDB alone, and "
        "copies and tombstones pass by it, which takes the action bypassDocumentValidation where it refuses one",
        "without the right, the document waits in the journal and is named there",
    ),
    EXPIRING: KindRow(
        "MongoDB deletes them past shadow, and DynamoDB keeps them: `shadow verify` finds them as extra",
        "name a TTL index under `expires`: its documents expire on both stores then; let the application delete others",
    ),
    "unique index with a collation": KindRow(
        "DynamoDB has the same for English at strength 1 or 2. It has none of another collation: as primary it takes "
        "values that MongoDB refuses then, and such a document waits in the journal and is named there",
        "name it under `unique` with its collation; else store the value in one spelling under a plain unique index",
    ),
    "values encrypted by the application (`ClientEncryption`)": KindRow("binary values, copied as they are", ""),
    "sharded by `_id`, plain or hashed": KindRow("commands by key carry the shard key as they are", ""),
    SHARDED: KindRow(
        "commands by key carry the shard key's values: of the document, or looked up before. The server keeps `_id` "
        "unique on each shard alone: the application must make keys that are unique everywhere",
        "the user needs the action find on config.collections",
    ),
}
"""What is supported, and what to know about it."""


def expiring_in_two_stores(mongo_is_primary: bool) -> KindRow:
    """What happens to documents that MongoDB deletes by itself, by which store is primary."""
    row = ADMITTED[EXPIRING]
    if mongo_is_primary:
        return row
    return KindRow(
        "MongoDB deletes them past shadow, and DynamoDB, the primary, keeps them: `shadow verify` finds them as "
        "missing, and a repair restores them until they expire again",
        row.next,
    )


@dataclass(frozen=True, slots=True)
class ListedCollection:
    """One entry of `listCollections`: name, type (`collection`, `view`, `timeseries`), options, and the UUID as hex."""

    name: str
    type: str = "collection"
    options: Mapping[str, Any] = field(default_factory=dict)
    uuid: str = ""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> ListedCollection:
        uuid = raw.get("info", {}).get("uuid")
        return cls(
            str(raw["name"]),
            str(raw.get("type", "collection")),
            raw.get("options", {}),
            "" if uuid is None else bytes(uuid).hex(),
        )


@dataclass(frozen=True, slots=True)
class UnfitKind:
    """A collection that cannot be written to both stores: why, and what to do."""

    collection: str
    special: Special
    mend: str = ""

    @property
    def reason(self) -> str:
        return REASONS[self.special].why

    @property
    def advice(self) -> str:
        return REASONS[self.special].next.replace("{mend}", self.mend)

    def error(self) -> UnsupportedOperation:
        """The error of a write to both stores."""
        what = f"{self.collection} ({self.special}) in two stores"
        return UnsupportedOperation(what, self.reason, hint=self.advice)


_Judged: TypeAlias = "UnfitKind | None"


def judge_name(name: str) -> _Judged:
    """By the name only."""
    return UnfitKind(name, Special.SYSTEM) if name.startswith("system.") else None


def judge_client(name: str, client: Any) -> _Judged:
    """By the application's client: what it does to everything read and written through it."""
    if type(client).__module__.startswith("motor"):
        client = client.delegate
    options = getattr(client, "options", None)
    encrypts = isinstance(options, ClientOptions) and options.auto_encryption_opts is not None
    return UnfitKind(name, Special.CLIENT) if encrypts else None


def judge_collection(found: ListedCollection, reserved: str) -> _Judged:
    """By the entry of `listCollections`; `reserved` is the field of the version."""
    options = found.options
    special = judge_name(found.name)
    if special is not None:
        return special
    kinds = {
        Special.TIME_SERIES: found.type == "timeseries" or "timeseries" in options,
        Special.VIEW: found.type == "view" or "viewOn" in options,
        Special.CAPPED: bool(options.get("capped")),
        Special.COLLATION: options.get("collation", {}).get("locale", "simple") != "simple",
        Special.ENCRYPTED: "encryptedFields" in options,
    }
    kind = next((each for each, is_so in kinds.items() if is_so), None)
    if kind is not None:
        return UnfitKind(found.name, kind)
    return _judge_validator(found, reserved)


def _judge_validator(found: ListedCollection, reserved: str) -> _Judged:
    """A `moderate` validator checks inserts, and documents that were valid before, like a strict one."""
    validator = _in_force(found)
    refuses = validator is not None and judge(validator, reserved)[0] is ValidatorVerdict.REFUSES
    return refused_by_validator(found, reserved) if refuses else None


def doubtful_validator(found: ListedCollection, reserved: str) -> Mapping[str, Any] | None:
    """The validator, if its text does not show whether it rejects documents that carry a version."""
    validator = _in_force(found)
    unsure = validator is not None and judge(validator, reserved)[0] is ValidatorVerdict.UNSURE
    return validator if unsure else None


def refused_by_validator(found: ListedCollection, reserved: str) -> UnfitKind:
    """With the change that lets the validator accept the field of the version."""
    validator = found.options["validator"]
    _, places = judge(validator, reserved)
    mend = mending(found.name, validator, reserved) if places else f"{reserved}, of type object"
    return UnfitKind(found.name, Special.VALIDATOR, mend)


def _in_force(found: ListedCollection) -> Mapping[str, Any] | None:
    """The validator, if there is one that rejects writes: not one that only warns, or is off."""
    options = found.options
    idle = options.get("validationLevel") == "off" or options.get("validationAction") == "warn"
    return None if idle else options.get("validator") or None
