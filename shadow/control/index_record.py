"""The indexes that applications have made in a collection, for the whole fleet: a record for each collection.

While MongoDB is the primary the record holds what the server lists. With DynamoDB as primary it is what applications
see, and it says what MongoDB still has to make or to drop.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson.codec_options import CodecOptions
from bson.son import SON

from shadow.control.records import MISSING
from shadow.control.shared_record import SharedRecord

__all__ = ["MadeIndex", "MadeIndexes", "Owed", "record_of"]

_PREFIX: Final = "indexes/"
_AS_DRIVERS: Final = CodecOptions(SON)
"""As the drivers decode `listIndexes`, whatever the options of the collection are."""


class Owed(enum.StrEnum):
    """What MongoDB still has to do about an index."""

    NOTHING = ""
    CREATE = "create"
    DROP = "drop"
    REPLACE = "replace"
    """It was dropped, and another one of its name was made."""


@dataclass(frozen=True, slots=True)
class MadeIndex:
    """`raw`: an entry of `listIndexes`, in BSON; `enforced`: DynamoDB keeps its values unique."""

    raw: bytes
    enforced: bool = False
    owed: Owed = Owed.NOTHING

    @classmethod
    def of(cls, entry: Mapping[str, Any], *, enforced: bool = False, owed: Owed = Owed.NOTHING) -> MadeIndex:
        return cls(bson.encode(entry), enforced, owed)

    def entry(self) -> Any:
        """As the driver decodes it."""
        return bson.decode(self.raw, _AS_DRIVERS)

    @property
    def name(self) -> str:
        return str(self.entry()["name"])


@dataclass(frozen=True, slots=True)
class MadeIndexes:
    """`known`: False where nobody has asked MongoDB yet, and nothing was made with DynamoDB as primary."""

    collection: str
    indexes: tuple[MadeIndex, ...] = ()
    known: bool = False
    revision: str = MISSING

    @property
    def there(self) -> tuple[MadeIndex, ...]:
        """Those that applications see."""
        return tuple(each for each in self.indexes if each.owed is not Owed.DROP)

    def named(self, name: str) -> MadeIndex | None:
        """The one of that name, also one that was dropped and that MongoDB still has."""
        return next((each for each in self.indexes if each.name == name), None)

    def having(self, made: MadeIndex) -> MadeIndexes:
        """With `made` in the place of the one of its name."""
        rest = [each for each in self.indexes if each.name != made.name]
        place = next((at for at, each in enumerate(self.indexes) if each.name == made.name), len(rest))
        return self.holding([*rest[:place], made, *rest[place:]])

    def without(self, name: str) -> MadeIndexes:
        return self.holding(each for each in self.indexes if each.name != name)

    def holding(self, indexes: Iterable[MadeIndex]) -> MadeIndexes:
        return dataclasses.replace(self, indexes=tuple(indexes), known=True)


def record_of(collection: str) -> SharedRecord[MadeIndexes]:
    # Names of collections may be longer than a key, and hold what no key may.
    key = f"{_PREFIX}{hashlib.sha256(collection.encode()).hexdigest()[:24]}"
    return SharedRecord(key, lambda: MadeIndexes(collection), _encoded, _decoded)


def _encoded(made: MadeIndexes) -> dict[str, Any]:
    # In BSON, because names of fields may have dots and dollars, and numbers and their order count.
    rows = [{"raw": each.raw, "enforced": each.enforced, "owed": each.owed.value} for each in made.indexes]
    return {"collection": made.collection, "indexes": rows}


def _decoded(value: Mapping[str, Any], revision: str) -> MadeIndexes:
    rows = (MadeIndex(bytes(row["raw"]), bool(row["enforced"]), Owed(row["owed"])) for row in value["indexes"])
    return MadeIndexes(value["collection"], tuple(rows), True, revision)
