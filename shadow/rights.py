"""Whether the users of MongoDB may do what the configuration asks of them, by action and collection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import OperationFailure, PyMongoError

from shadow.config import Settings
from shadow.control.place import MongoPlace
from shadow.host.supervisor import Turn
from shadow.model.phase import Route, StoreName
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.rights import Lack, Need, User, lacking, look, shown
from shadow.stores.mongo.upkeep import WITNESS

__all__ = ["LackedRights", "RightsWatch", "ask", "needs"]

_WRITES: Final = frozenset({"find", "insert", "update", "remove"})
_COPIES: Final = frozenset({"find", "insert", "update"})
_EVERY: Final = 1.0
"""Seconds between two looks at whether more is needed than before."""
_PATIENCE: Final = 5.0
"""Seconds until the servers are asked again if they did not answer."""


@dataclass(frozen=True, slots=True)
class LackedRights:
    """What one user lacks. `where`: the setting that names the connection."""

    where: str
    user: User
    lacks: tuple[Lack, ...]

    @property
    def stops(self) -> bool:
        """Whether a read or a write of the application cannot work, and not just a job."""
        return any(each.need.writes for each in self.lacks)

    def __str__(self) -> str:
        return f"{self.where}: {shown(self.user, self.lacks)}"


# --- what is needed ---------------------------------------------------------------------------------------------


def needs(settings: Settings, routes: Mapping[str, Route]) -> dict[str, list[Need]]:
    """By the setting that names the connection (`mongo.url`, `journal.url`, `control.url`)."""
    found: dict[str, list[Need]] = {"mongo.url": _of_stores(settings, routes)}
    if settings.journal.kind == "mongodb":
        _, database, name = settings.journal.mongo(settings.mongo)
        found["journal.url"] = [
            Need(database, f"{name}.{part}", _WRITES | {"createIndex"}, "the journal")
            for part in ("intents", "deferred", "owners")
        ]
    place = settings.control_place()
    if isinstance(place, MongoPlace):
        where = "control.url" if settings.control.url is not None else "journal.url"
        found.setdefault(where, []).append(Need(place.database, place.collection, _WRITES, "the control store"))
    return found


def _of_stores(settings: Settings, routes: Mapping[str, Route]) -> list[Need]:
    """Where MongoDB alone is written the calls are the application's own, and nobody knows which it makes."""
    database = settings.mongo.database
    found: list[Need] = []
    both = {name: route for name, route in routes.items() if route.dual_write}
    for name, route in both.items():
        if route.primary is StoreName.MONGO:
            found.append(Need(database, name, _WRITES, "reads and writes of the application"))
        else:
            found.append(Need(database, name, _COPIES, "what the primary has written"))
            found.append(Need(database, name, frozenset({"listIndexes"}), "tombstones beside unique indexes", False))
            found.append(Need(database, name, frozenset({"remove"}), "shadow finalize", False))
        made = frozenset({"createIndex", "dropIndex"})
        found.append(Need(database, name, made, "shadow tables create, shadow finalize", False))
    if both:
        kept = "a backup that was put back is noticed"
        found.append(Need(database, WITNESS, _COPIES, kept, False))
        found.append(Need(database, "", frozenset({"listCollections"}), kept, False))
        if settings.observe.watch_writers:
            found.append(Need(database, "", frozenset({"changeStream", "find"}), "observe.watch_writers", False))
    return found


async def _of_validators(database: Any, name: str, routes: Mapping[str, Route]) -> list[Need]:
    """A copy, or a tombstone, may be none of what a collection's validator lets in. `database` is the driver's."""
    both = [each for each, route in routes.items() if route.dual_write]
    chosen = {"name": {"$in": both}, "options.validator": {"$exists": True}}
    try:
        said = await database.command({"listCollections": 1, "filter": chosen, "cursor": {"batchSize": 10_000}})
    except OperationFailure:
        return []
    past = frozenset({"bypassDocumentValidation"})
    held = [each for each in said["cursor"]["firstBatch"] if each["options"].get("validationAction") != "warn"]
    return [
        Need(name, each["name"], past, "copies and tombstones that its validator refuses", False)
        for each in held
        if routes[each["name"]].primary is StoreName.DYNAMO
    ]


# --- what is granted --------------------------------------------------------------------------------------------


async def ask(
    settings: Settings, routes: Mapping[str, Route], database: Callable[[str], Any], *, handed_in: bool = False
) -> list[LackedRights]:
    """What lacks, by connection. `database` answers the driver's database of the stores' own connection, which is that
    of `mongo.url` unless a client was `handed_in`. Raises what the driver raises where it reaches nobody."""
    found = []
    own = "" if handed_in else settings.mongo.url.get_secret_value()
    for where, each in _together(settings, needs(settings, routes), own).items():
        if not each:
            continue
        client = None if where == "mongo.url" else connect(_url(settings, where), "pymongo")
        try:
            of = database if client is None else client.get_database
            user = await look(of("admin").command)
            if user is None:
                continue
            if client is None:
                each = [*each, *await _of_validators(of(settings.mongo.database), settings.mongo.database, routes)]
            if lacks := lacking(user, each):
                found.append(LackedRights(where, user, tuple(lacks)))
        finally:
            if client is not None:
                await client.close()
    return found


def _together(settings: Settings, wanted: Mapping[str, list[Need]], own: str) -> dict[str, list[Need]]:
    """What is on one connection is said once."""
    made: dict[str, list[Need]] = {"mongo.url": []}
    for where, each in wanted.items():
        made.setdefault("mongo.url" if _url(settings, where) == own else where, []).extend(each)
    return made


def _url(settings: Settings, where: str) -> str:
    if where == "mongo.url":
        return settings.mongo.url.get_secret_value()
    if where == "journal.url":
        return settings.journal.mongo(settings.mongo)[0]
    place = settings.control_place()
    assert isinstance(place, MongoPlace)
    return place.url


class RightsWatch:
    """Asks once what lacks, and again when the routes want more; `said` is told of each that is another than before."""

    def __init__(
        self,
        asked: Callable[[], Awaitable[list[LackedRights]]],
        wanted: Callable[[], Any],
        said: Callable[[LackedRights], None],
    ) -> None:
        self._asked = asked
        self._wanted = wanted
        self._said = said
        self.found: Sequence[LackedRights] = ()

    async def run(self, turn: Turn) -> None:
        """Until it is cancelled."""
        known = None
        while True:
            turn()
            wanted = self._wanted()
            if wanted != known:
                with suppress(PyMongoError, TimeoutError):
                    self._note(await self._asked())
                    known = wanted
            await asyncio.sleep(_EVERY if wanted == known else _PATIENCE)

    def _note(self, found: Sequence[LackedRights]) -> None:
        before = {str(each) for each in self.found}
        self.found = found
        for each in found:
            if str(each) not in before:
                self._said(each)
