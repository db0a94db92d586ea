"""Whether the MongoDB users have the rights that the configuration needs, by action and collection."""

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
"""Seconds between two checks whether more rights are needed than before."""
_PATIENCE: Final = 5.0
"""Seconds before asking a server again that did not answer."""


@dataclass(frozen=True, slots=True)
class LackedRights:
    """The rights that one user lacks. `where`: the setting that names the connection."""

    where: str
    user: User
    lacks: tuple[Lack, ...]

    @property
    def stops(self) -> bool:
        """Whether reads or writes of the application would fail, rather than only a job."""
        return any(each.need.writes for each in self.lacks)

    def __str__(self) -> str:
        return f"{self.where}: {shown(self.user, self.lacks)}"


# --- needed rights ---------------------------------------------------------------------------------------------


def needs(settings: Settings, routes: Mapping[str, Route]) -> dict[str, list[Need]]:
    """Needed rights by the setting that names the connection (`mongo.url`, `journal.url`, `control.url`)."""
    found: dict[str, list[Need]] = {"mongo.url": _of_stores(settings, routes)}
    if settings.journal.kind == "mongodb":
        _, database, name = settings.journal.mongo(settings.mongo)
        found["journal.url"] = [
            Need(database, f"{name}.{part}", _WRITES | {"createIndex"}, "the journal")
            for part in ("intents", "deferred", "owners", "late")
        ]
    place = settings.control_place()
    if isinstance(place, MongoPlace):
        where = "control.url" if settings.control.url is not None else "journal.url"
        found.setdefault(where, []).append(Need(place.database, place.collection, _WRITES, "the control store"))
    return found


def _of_stores(settings: Settings, routes: Mapping[str, Route]) -> list[Need]:
    """Where only MongoDB is written, the application's own calls decide, and they are not known."""
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
        kept = "detection of a restored backup"
        found.append(Need(database, WITNESS, _COPIES, kept, False))
        found.append(Need(database, "", frozenset({"listCollections"}), kept, False))
        for asked in ("watch_writers", "follow_writers"):
            if getattr(settings.observe, asked):
                found.append(Need(database, "", frozenset({"changeStream", "find"}), f"observe.{asked}", False))
    return found


async def _of_validators(database: Any, name: str, routes: Mapping[str, Route]) -> list[Need]:
    """A validator may refuse a copy or a tombstone. `database` is the driver's."""
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


# --- granted rights --------------------------------------------------------------------------------------------


async def ask(
    settings: Settings, routes: Mapping[str, Route], database: Callable[[str], Any], *, handed_in: bool = False
) -> list[LackedRights]:
    """Missing rights by connection. `database` returns the driver's database on the stores' own connection: that of
    `mongo.url`, unless a client was `handed_in`. Raises the driver's errors if no server can be reached."""
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
    """Merges needs that share a connection, so that each is reported once."""
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
    """Checks for missing rights once, and again when the routes need more. `said` is called with each new result."""

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
        """Runs until cancelled."""
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
