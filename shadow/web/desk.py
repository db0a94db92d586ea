"""The data and actions of the admin router, for one Shadow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from bson import json_util

from shadow.compare.diff import explain
from shadow.compare.equality import agree
from shadow.config import Settings
from shadow.errors import NotFollowed
from shadow.fleet.status import ProcessStatus
from shadow.jobs.config_file import put_in_file
from shadow.model.events import noted
from shadow.model.phase import Route, StoreName
from shadow.model.stored import check_copyable
from shadow.model.verdict import Healing
from shadow.model.version import Document, Image, Key
from shadow.observe.findings import path_pattern
from shadow.observe.findings_file import SharedFindings
from shadow.observe.log import Event
from shadow.observe.pulse import PeriodicTasks
from shadow.observe.report import Report

__all__ = ["AdminService", "Operated", "Refused"]

MOST_AT_ONCE: Final = 100
"""The maximum number of findings that one request may repair."""

LONGEST: Final = 2000
"""The maximum number of characters of one revealed value."""


class Refused(Exception):
    """A request that can't be granted. The text is shown to the client and contains no document content."""


class Operated(Protocol):
    """What the admin service needs of `shadow.admin`."""

    @property
    def settings(self) -> Settings: ...

    @property
    def shared_findings(self) -> SharedFindings: ...

    @property
    def pulse(self) -> PeriodicTasks: ...

    @property
    def report(self) -> Report: ...

    async def health(self) -> ProcessStatus: ...

    async def ready(self) -> tuple[bool, dict[str, str]]: ...

    def metrics(self) -> tuple[bytes, str]: ...

    def routes(self) -> Mapping[str, Route]: ...

    async def heal(self, collection: str, key: Key) -> Healing: ...

    async def flip(self, collection: str, to: StoreName, reason: str) -> dict[str, Any]: ...

    async def images(self, collection: str, key: Key) -> tuple[Image, Image]: ...


class AdminService:
    """Implements `admin.AdminView`. Every action is logged with its outcome before the response."""

    def __init__(self, shadow: Operated, path: Path | None = None) -> None:
        """`path`: the configuration file, if there is one."""
        self._shadow = shadow
        self._path = path
        token = shadow.settings.admin.token
        self.token = token.get_secret_value() if token is not None else None
        self.docs_url = shadow.settings.docs_url

    async def status(self) -> ProcessStatus:
        return await self._shadow.health()

    async def ready(self) -> tuple[bool, dict[str, str]]:
        return await self._shadow.ready()

    def metrics(self) -> tuple[bytes, str]:
        return self._shadow.metrics()

    async def findings(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Shape: {"findings": [...], "groups": [...], "summary": {...}}; `wanted` as for `Findings.list`."""
        shared = self._shadow.shared_findings
        return {
            "findings": await shared.list(**wanted),
            "groups": await shared.groups(),
            "summary": await shared.summary(),
        }

    async def finding(self, id: str) -> dict[str, Any] | None:
        return await self._shadow.shared_findings.get(id)

    def rates(self) -> dict[str, list[tuple[float, float]]]:
        """(epoch seconds, comparisons per second) of the last hour, by verdict."""
        samples = self._shadow.pulse.samples
        return {verdict: samples.rates(verdict) for verdict in ("match", "mismatch", "lagging", "transient", "shed")}

    async def heal(self, ids: list[str], *, dry_run: bool) -> dict[str, Any]:
        """One result per finding: {"id", "collection", "result"}. A dry run changes nothing and returns what would be
        done: equal (nothing), copied, tombstoned."""
        if not 0 < len(ids) <= MOST_AT_ONCE:
            raise Refused(f"1 to {MOST_AT_ONCE} findings at once")
        return {"dry_run": dry_run, "results": [await self._heal(each, dry_run=dry_run) for each in ids]}

    async def _heal(self, id: str, *, dry_run: bool) -> dict[str, Any]:
        found = await self._shadow.shared_findings.key_of(id)
        if found is None:
            return {"id": id, "collection": "", "result": "unknown_finding"}
        result = await _said(self._would if dry_run else self._do, *found)
        if not dry_run:
            self._shadow.report.publish(
                noted(Event.ADMIN_HEALED, collection=found[0], finding=id, key=found[1], result=result)
            )
        return {"id": id, "collection": found[0], "result": result}

    async def _do(self, collection: str, key: Key) -> str:
        self._check_followed(collection)
        return (await self._shadow.heal(collection, key)).value

    def _check_followed(self, collection: str) -> None:
        """A finding may be older than the configuration."""
        route = self._shadow.routes().get(collection)
        if route is None or not route.dual_write:
            raise NotFollowed(collection)

    async def _would(self, collection: str, key: Key) -> str:
        self._check_followed(collection)
        primary, secondary = await self._shadow.images(collection, key)
        if agree(primary, secondary):
            return Healing.EQUAL.value
        check_copyable(primary)
        return (Healing.COPIED if primary.document is not None else Healing.TOMBSTONED).value

    async def reveal(self, id: str, reason: str) -> dict[str, Any]:
        """The values at the paths of a finding, read again from both stores: those that `reveal_fields` of the
        collection allows, as extended JSON.
        Shape: {"id", "collection", "values": [{"path", "primary", "secondary"}], "hidden": n}. Raises `Refused`."""
        if not reason.strip():
            raise Refused("give a reason; it is logged")
        found = await self._shadow.shared_findings.key_of(id)
        if found is None:
            raise Refused("no such finding, or it is about a whole answer")
        collection, key = found
        entry = self._shadow.settings.collections.get(collection)
        if entry is None:
            raise Refused("its collection is no longer configured")
        allowed = entry.reveal_fields
        images = [image.document for image in await self._shadow.images(collection, key)]
        paths = _paths(*images, hasher=self._shadow.report.hasher)
        shown = [path for path in paths if _allowed(path, allowed)]
        self._shadow.report.publish(
            noted(
                Event.ADMIN_REVEALED,
                collection=collection,
                finding=id,
                key=key,
                reason=reason[:LONGEST],
                values=len(shown),
            )
        )
        values = [{"path": path, "primary": _at(images[0], path), "secondary": _at(images[1], path)} for path in shown]
        return {"id": id, "collection": collection, "values": values, "hidden": len(paths) - len(shown)}

    async def flip(self, collection: str, to: str, reason: str) -> dict[str, Any]:
        """Makes the other store the primary, in every process, if every gate of the collection is open, and records it
        in this process's configuration file. Shape: {"collection", "to", "done": bool, "said": text, "held": seconds
        for which writes were paused, "file": why it could not be changed, or ""}. Raises `Refused`."""
        if not reason.strip():
            raise Refused("give a reason; it is logged")
        status = await self._shadow.health()
        if collection not in status.collections or status.readiness is None:
            raise Refused("not a configured collection")
        closed = status.readiness.closed(collection)
        if closed:
            names = ", ".join(gate.name for gate in closed)
            raise Refused(f"gates are closed: {names}; only `shadow flip --force` overrides them")
        self._shadow.report.publish(noted(Event.ADMIN_FLIPPED, collection=collection, to=to, reason=reason[:LONGEST]))
        made = await self._shadow.flip(collection, StoreName(to), reason[:LONGEST])
        file = ""
        if made["done"] and self._path is not None:
            file = await asyncio.to_thread(put_in_file, self._path, [collection], {"primary": to})
        return {"collection": collection, "to": to, **made, "file": file}

    def refused(self, path: str, reason: str) -> None:
        """Someone requested something without permission."""
        self._shadow.report.publish(noted(Event.ADMIN_REFUSED, path=path, reason=reason))


async def _said(work: Callable[[str, Key], Awaitable[str]], collection: str, key: Key) -> str:
    """The result, or the class of the error: its text may quote a document."""
    try:
        return await work(collection, key)
    except Exception as error:
        return f"failed: {type(error).__name__}"


def _paths(primary: Document | None, secondary: Document | None, *, hasher: Any) -> list[str]:
    """The paths at which the documents differ; the names of fields if there is only one document."""
    if primary is not None and secondary is not None:
        return [each.path for each in explain(primary, secondary, hasher=hasher)]
    return [str(name) for name in (primary or secondary or {})]


def _allowed(path: str, allowed: tuple[str, ...]) -> bool:
    pattern = path_pattern(path)
    return any(pattern == path_pattern(each) or pattern.startswith(f"{path_pattern(each)}.") for each in allowed)


def _at(document: Document | None, path: str) -> str:
    """The value at a path, as readable text."""
    value: Any = document
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return "(missing)"
    text = json_util.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
