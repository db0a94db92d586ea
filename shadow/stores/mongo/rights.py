"""Compares the rights of a MongoDB user with the needed ones: which actions are missing, and the commands to grant
them.

Sources: the MongoDB manual, "connectionStatus" (with `showPrivileges`), "Resource Document", "Privilege Actions" and
"Built-In Roles"; the needs of each command were tried on MongoDB 6.0.5.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import OperationFailure

__all__ = ["READ_WRITE", "Grant", "Lack", "Need", "User", "grants", "lacking", "look", "shown"]

READ_WRITE: Final = frozenset(
    {
        "changeStream",
        "collStats",
        "convertToCapped",
        "createCollection",
        "createIndex",
        "dbHash",
        "dbStats",
        "dropCollection",
        "dropIndex",
        "find",
        "insert",
        "killCursors",
        "listCollections",
        "listIndexes",
        "remove",
        "renameCollectionSameDB",
        "update",
    }
)
"""The actions of the built-in role `readWrite`, on every collection of its database."""
ROLE: Final = "shadow"
"""The name of the proposed role."""
_UNAUTHORIZED: Final = 13
_PROBE: Final = "getParameter"
"""An administrator's action that changes nothing: if a user without the right can do it, rights are not enforced."""


@dataclass(frozen=True, slots=True)
class Need:
    """`actions` on a collection, or on the database if `collection` is ""; `what`: their purpose; `writes`: whether the
    application's reads or writes fail without them, and not just a job."""

    database: str
    collection: str
    actions: frozenset[str]
    what: str
    writes: bool = True


@dataclass(frozen=True, slots=True)
class Lack:
    """The missing actions of a need."""

    need: Need
    actions: frozenset[str]

    @property
    def resource(self) -> str:
        return f"{self.need.database}.{self.need.collection}" if self.need.collection else self.need.database

    def __str__(self) -> str:
        return f"{', '.join(sorted(self.actions))} on {self.resource} ({self.need.what})"


@dataclass(frozen=True, slots=True)
class User:
    """The current user: name and database (both "" if not authenticated), roles, privileges, all as the server
    reports."""

    name: str
    database: str
    roles: tuple[Mapping[str, Any], ...] = ()
    privileges: tuple[Mapping[str, Any], ...] = ()
    free: bool = False
    """Whether the server does not enforce rights."""

    def may(self, action: str, database: str, collection: str) -> bool:
        """Whether an action is granted on a collection, or on a database as a whole if `collection` is ""."""
        return self.free or any(
            (action in each["actions"] or "anyAction" in each["actions"])
            and _covers(each["resource"], database, collection)
            for each in self.privileges
        )


def _covers(resource: Mapping[str, Any], database: str, collection: str) -> bool:
    if resource.get("anyResource"):
        return True
    if "db" not in resource:
        return False
    named = resource["collection"]
    all_of_them = named == "" and not collection.startswith("system.")
    return resource["db"] in ("", database) and (all_of_them or (collection != "" and named == collection))


async def look(command: Callable[..., Awaitable[Any]]) -> User | None:
    """The current user, by `command` of the database `admin`; None if the server does not report it. Raises what the
    driver raises if no server can be reached."""
    try:
        said = (await command("connectionStatus", showPrivileges=True))["authInfo"]
    except OperationFailure:
        return None
    users = said.get("authenticatedUsers") or [{"user": "", "db": ""}]
    user = User(
        users[0]["user"],
        users[0]["db"],
        tuple(said.get("authenticatedUserRoles") or ()),
        tuple(said.get("authenticatedUserPrivileges") or ()),
    )
    if any(_PROBE in each["actions"] or "anyAction" in each["actions"] for each in user.privileges):
        return user
    try:
        await command(_PROBE, authenticationMechanisms=1)
    except OperationFailure as error:
        return user if error.code == _UNAUTHORIZED else None
    return User(user.name, user.database, user.roles, user.privileges, free=True)


def lacking(user: User, needs: Iterable[Need]) -> list[Lack]:
    """One entry for each need that is not fully granted."""
    found = []
    for need in needs:
        missing = frozenset(each for each in need.actions if not user.may(each, need.database, need.collection))
        if missing:
            found.append(Lack(need, missing))
    return found


# --- the remedy -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grant:
    """A command for an administrator, in a database."""

    database: str
    command: Mapping[str, Any]

    def __str__(self) -> str:
        return f"db.getSiblingDB({json.dumps(self.database)}).runCommand({json.dumps(self.command)})"


def grants(user: User, lacks: Sequence[Lack]) -> list[Grant]:
    """The commands that grant exactly the missing rights: `readWrite` on a database where the user has no rights on
    single collections and the role is enough, a separate role otherwise."""
    found: list[Grant] = []
    given: list[dict[str, str]] = []
    for database in sorted({each.need.database for each in lacks}):
        here = [each for each in lacks if each.need.database == database]
        beyond = here
        if not _by_collection(user, database):
            beyond = [each for each in here if each.actions - READ_WRITE]
            if len(beyond) < len(here) or any(each.actions & READ_WRITE for each in here):
                given.append({"role": "readWrite", "db": database})
        privileges = _privileges(beyond, () if beyond is here else READ_WRITE)
        if not privileges:
            continue
        has = any(each.get("role") == ROLE and each.get("db") == database for each in user.roles)
        if has:
            found.append(Grant(database, {"grantPrivilegesToRole": ROLE, "privileges": privileges}))
        else:
            found.append(Grant(database, {"createRole": ROLE, "privileges": privileges, "roles": []}))
            given.append({"role": ROLE, "db": database})
    if given:
        found.append(Grant(user.database, {"grantRolesToUser": user.name, "roles": given}))
    return found


def _by_collection(user: User, database: str) -> bool:
    """Whether the user has been granted rights on single collections of a database."""
    return any(
        each["resource"].get("db") == database and each["resource"].get("collection", "") not in ("", "system.js")
        for each in user.privileges
    )


def _privileges(lacks: Sequence[Lack], without: Iterable[str]) -> list[dict[str, Any]]:
    by_place: dict[tuple[str, str], set[str]] = {}
    for each in lacks:
        place = (each.need.database, each.need.collection)
        by_place.setdefault(place, set()).update(each.actions - set(without))
    return [
        {"resource": {"db": database, "collection": collection}, "actions": sorted(actions)}
        for (database, collection), actions in by_place.items()
        if actions
    ]


def shown(user: User, lacks: Sequence[Lack]) -> str:
    """The missing rights, and the commands that grant them."""
    named = "; ".join(map(str, lacks))
    if not user.name:
        return f"the url names no user, and the server asks for one: it lacks {named}. Say user and password in the url"
    commands = "; ".join(map(str, grants(user, lacks)))
    return f"the user {user.name!r} of {user.database!r} lacks {named}. In mongosh, as an administrator: {commands}"
