"""The fleet's record of a collection's indexes, kept in accord with MongoDB.

While MongoDB is the primary the record follows what the server lists. With DynamoDB as primary, MongoDB gets what the
record says that it still has to make or to drop, now or when it is in use again. An index that deletes documents is
made there only when MongoDB is the primary again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pymongo.errors import OperationFailure

from shadow.control.index_record import MadeIndex, MadeIndexes, Owed
from shadow.fleet.made_indexes import SharedIndexes
from shadow.model.collations import of_index
from shadow.model.events import ComponentFailed
from shadow.model.index_gaps import is_own
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.stores.base import Indexed
from shadow.surface.indexing.indexes import is_not_found

__all__ = ["IndexMemory", "constraint_of", "meaning"]

_TRIES: Final = 5
_REFUSED: Final = frozenset({2, 9, 14, 67, 72, 85, 86, 197, 16801, 31303})
"""The server will not make such an index, however often it is asked."""
_OPTIONS: Final = frozenset({"v", "key", "name", "ns"})


def constraint_of(entry: Mapping[str, Any]) -> UniqueSpec | None:
    """What a unique index of `listIndexes` means to DynamoDB; None for another index, and for one that DynamoDB cannot
    enforce."""
    collation = entry.get("collation")
    meant = of_index(collation)
    kinds = [kind for kind in entry["key"].values() if isinstance(kind, str)]
    if not entry.get("unique") or "partialFilterExpression" in entry or kinds or (collation and meant is None):
        return None
    return UniqueSpec(str(entry["name"]), tuple(entry["key"]), bool(entry.get("sparse")), meant)


def meaning(constraint: UniqueSpec) -> tuple[Any, ...]:
    """What a constraint says, whatever its name is."""
    return frozenset(constraint.fields), constraint.sparse, constraint.collation


class IndexMemory:
    """`spec`: the definition of a collection as this process has it now."""

    def __init__(self, shared: SharedIndexes, spec: Callable[[str], CollectionSpec]) -> None:
        self._shared = shared
        self._spec = spec
        self._reporter = shared.reporter

    def last(self, collection: str) -> MadeIndexes:
        """What this process has seen last; it asks nobody."""
        return self._shared.last(collection)

    async def known(self, collection: str, mongo: Indexed | None) -> MadeIndexes:
        """What applications see with DynamoDB as primary. `mongo`: MongoDB, if it is in use; it is asked where nothing
        is known yet."""
        found = await self._shared.load(collection)
        if found.known or mongo is None:
            return found
        try:
            return await self.accord(collection, mongo, leads=False)
        except Exception as error:
            self._reporter.publish(ComponentFailed("index", error))
            return found

    async def accord(self, collection: str, mongo: Indexed, *, leads: bool) -> MadeIndexes:
        """Brings the record and MongoDB into accord. `leads`: MongoDB is the primary. Raises what it raises."""
        seen = await self._shared.load(collection)
        for _ in range(_TRIES):
            await self.settle(seen, mongo, leads=leads)
            # The record is read before MongoDB, and written only if it is still that: what another process drops
            # meanwhile does not come back.
            seen = await self._shared.load(collection)
            reserved = self._spec(collection).reserved
            listed = [each for each in await mongo.indexes(collection) if not is_own(each["name"], reserved)]
            wanted = self._leading(seen, listed) if leads else _following(seen, listed)
            if wanted.known == seen.known and wanted.indexes == seen.indexes:
                return seen
            if await self._shared.save(wanted):
                return await self._shared.load(collection)
        return seen

    def _leading(self, seen: MadeIndexes, listed: Iterable[Any]) -> MadeIndexes:
        """What the server lists, and what it still has to make."""
        held = {meaning(each) for each in self._spec(seen.collection).unique}
        found = {}
        for entry in listed:
            before, meant = seen.named(str(entry["name"])), constraint_of(entry)
            is_held = meant is not None and meaning(meant) in held
            kept = before is not None and before.enforced and bool(entry.get("unique"))
            found[str(entry["name"])] = MadeIndex.of(entry, enforced=is_held or kept)
        owed = [each for each in seen.indexes if each.owed and each.name not in found]
        dropped = [each for each in seen.indexes if each.owed and each.name in found]
        made = [next((each for each in dropped if each.name == name), one) for name, one in found.items()]
        return seen.holding([*made, *owed])

    # --- what MongoDB still has to do ---------------------------------------------------------------------------

    async def settle(self, seen: MadeIndexes, mongo: Indexed, *, leads: bool) -> None:
        """Raises nothing: what MongoDB does not do now, it does later; what it refuses for good is reported."""
        for each in seen.indexes:
            if each.owed:
                await self._settled(seen.collection, each, mongo, leads=leads)

    async def _settled(self, collection: str, made: MadeIndex, mongo: Indexed, *, leads: bool) -> None:
        entry, name = made.entry(), made.name
        try:
            if made.owed in (Owed.DROP, Owed.REPLACE):
                await self._drop(mongo, collection, name)
            if made.owed is not Owed.DROP and "expireAfterSeconds" in entry and not leads:
                return
            if made.owed is not Owed.DROP:
                await mongo.create_index(collection, _keys(entry), _creation(entry))
                listed = await mongo.indexes(collection)
                entry = next((each for each in listed if each["name"] == name), entry)
        except Exception as error:
            self._reporter.publish(ComponentFailed("index", error))
            if not isinstance(error, OperationFailure) or error.code not in _REFUSED:
                return
        await self._shared.change(collection, _settling(made, MadeIndex.of(entry, enforced=made.enforced)))

    async def _drop(self, mongo: Indexed, collection: str, name: str) -> None:
        try:
            await mongo.drop_index(collection, name, {})
        except Exception as error:
            if not is_not_found(error):
                raise

    # --- what applications make and drop with DynamoDB as primary -----------------------------------------------

    async def made(self, collection: str, entry: Mapping[str, Any], *, enforced: bool) -> MadeIndexes:
        """An application has made an index; MongoDB has to make it."""

        def added(seen: MadeIndexes) -> MadeIndexes:
            before = seen.named(str(entry["name"]))
            gone = before is not None and before.owed in (Owed.DROP, Owed.REPLACE)
            owed = Owed.REPLACE if gone else Owed.CREATE
            return seen.having(MadeIndex.of(entry, enforced=enforced, owed=owed))

        return await self._shared.change(collection, added)

    async def dropped(self, collection: str, name: str) -> MadeIndexes:
        """An application has dropped an index; MongoDB has to drop it."""

        def marked(seen: MadeIndexes) -> MadeIndexes:
            before = seen.named(name)
            return seen if before is None else seen.having(MadeIndex(before.raw, False, Owed.DROP))

        return await self._shared.change(collection, marked)


def _following(seen: MadeIndexes, listed: Iterable[Any]) -> MadeIndexes:
    """What is known, and what was made on MongoDB past shadow, or before the flip."""
    more = [MadeIndex.of(entry) for entry in listed if seen.named(str(entry["name"])) is None]
    return seen.holding([*seen.indexes, *more])


def _settling(owed: MadeIndex, made: MadeIndex) -> Callable[[MadeIndexes], MadeIndexes]:
    """MongoDB has done what it owed; nothing if it owes something else by now."""

    def settled(seen: MadeIndexes) -> MadeIndexes:
        if seen.named(owed.name) != owed:
            return seen
        return seen.without(owed.name) if owed.owed is Owed.DROP else seen.having(made)

    return settled


def _keys(entry: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """As the driver takes them: the fields of a text index are in its weights."""
    found: list[tuple[str, Any]] = []
    for path, kind in entry["key"].items():
        if path == "_fts":
            found += [(each, "text") for each in entry["weights"]]
        elif path != "_ftsx":
            found.append((path, kind))
    return found


def _creation(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the driver's `create_index`."""
    made = {name: value for name, value in entry.items() if name not in _OPTIONS}
    if "collation" in made:
        made["collation"] = {name: value for name, value in made["collation"].items() if name != "version"}
    return {"name": entry["name"], **made}
