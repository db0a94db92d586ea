"""Missing MongoDB rights, reported by the commands that they stop: each action with its collection, and the commands
with which an administrator grants it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import typer
from pymongo.errors import OperationFailure, PyMongoError

from shadow.config import Settings, load
from shadow.errors import ShadowError, StoreUnavailable
from shadow.jobs.target import JobRefused
from shadow.model.phase import Phase, Route, StoreName
from shadow.observe.log import scrub
from shadow.rights import LackedRights, ask
from shadow.stores.mongo.drivers import connect

__all__ = ["lacking_for_all", "run", "tell_lacking"]

T = TypeVar("T")

_DENIED: Final = frozenset({13, 8000})
"""Unauthorized (MongoDB's error_codes.yml), and Atlas' own code for it."""


def run(config: Path, work: Coroutine[Any, Any, T], *, beside: Iterable[str] = ()) -> T:
    """`asyncio.run`. A refusal by MongoDB for a missing right is raised as `StoreUnavailable` (`JobRefused` if it was
    one), with the missing rights and the commands that grant them as its hint. `beside`: collections that the work
    writes and the configuration does not name."""
    try:
        return asyncio.run(work)
    except (PyMongoError, ShadowError) as error:
        if not _is_denied(error):
            raise
        found = _looked(load(config), beside)
        if not found:
            raise
        kind = JobRefused if isinstance(error, JobRefused) else StoreUnavailable
        raise kind(_said(error), hint="; ".join(map(str, found))) from error


def tell_lacking(config: Path, reasons: Iterable[str]) -> None:
    """Prints the missing rights on standard error if one of `reasons`, why something was not done, is a missing right.
    `reasons` end with a code, like those of jobs and repairs."""
    if any(reason.rpartition(" ")[2] in map(str, _DENIED) for reason in reasons):
        for each in _looked(load(config)):
            typer.echo(f"rights: {each}", err=True)


async def lacking_for_all(settings: Settings, names: Iterable[str], client: Any) -> list[LackedRights]:
    """The rights that the user of `mongo.url` lacks for a whole migration of these collections, with MongoDB as primary
    and then as secondary. `client` is PyMongo's, connected to `mongo.url`. Raises the driver's errors."""
    known = settings.model_copy(update={"journal": type(settings.journal)(), "control": type(settings.control)()})
    found = []
    for primary in StoreName:
        routes = {name: Route(primary=primary, phase=Phase.SHADOW) for name in names}
        found += await ask(known, routes, client.get_database)
    return _together(found)


def _together(found: Iterable[LackedRights]) -> list[LackedRights]:
    """One for each connection, with each need once."""
    made: dict[str, LackedRights] = {}
    for each in found:
        before = made.get(each.where)
        lacks = dict.fromkeys((*(before.lacks if before else ()), *each.lacks))
        made[each.where] = dataclasses.replace(each, lacks=tuple(lacks))
    return list(made.values())


def _looked(settings: Settings, beside: Iterable[str] = ()) -> list[LackedRights]:
    """Missing rights for jobs over the collections; nothing if the servers do not answer."""
    try:
        return asyncio.run(_look(settings, beside))
    except (PyMongoError, TimeoutError):
        return []


async def _look(settings: Settings, beside: Iterable[str]) -> list[LackedRights]:
    """Tries the file's primaries first. If nothing is missing with them, tries the others, which may be in force."""
    client = connect(settings.mongo.url.get_secret_value(), "pymongo")
    try:
        for routes in _routes(settings, beside):
            if found := await ask(settings, routes, client.get_database):
                return found
        return []
    finally:
        await client.close()


def _routes(settings: Settings, beside: Iterable[str]) -> Iterator[Mapping[str, Route]]:
    """A job over a collection in phase `off` needs the rights of the next phase."""
    own = {
        name: route if route.dual_write else dataclasses.replace(route, phase=Phase.DUAL_WRITE)
        for name, route in settings.routes().items()
    }
    own |= {name: Route(StoreName.MONGO, Phase.SHADOW) for name in beside}
    yield own
    yield {name: dataclasses.replace(route, primary=route.secondary) for name, route in own.items()}


def _is_denied(error: BaseException | None) -> bool:
    """Whether MongoDB's refusal is the cause. DynamoDB's own refusals name action and resource already."""
    while error is not None:
        if isinstance(error, OperationFailure) and error.code in _DENIED:
            return "awsCode" not in (error.details or {})
        error = error.__cause__ or error.__context__
    return False


def _said(error: PyMongoError | ShadowError) -> str:
    if isinstance(error, ShadowError):
        return error.message
    details = error.details or {} if isinstance(error, OperationFailure) else {}
    # After the command and its collection the message may quote a filter.
    said = scrub(str(details.get("errmsg", ""))).partition(",")[0]
    return f"a store refused (code {getattr(error, 'code', None)}){f': {said}' if said else ''}"
