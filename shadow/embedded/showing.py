"""What keeps the demo alive for somebody who only looks: damage that is found and repaired, and a ramp of reads that
begins again at its top."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
from bson import ObjectId

from shadow.client import Shadow
from shadow.control import guard_record
from shadow.control.guard_record import GuardRecord, RampState
from shadow.embedded.audit import Audit
from shadow.embedded.traffic import Person
from shadow.errors import ControlError
from shadow.fleet.ramp import ramp_move
from shadow.model.version import Document

__all__ = ["RAMP", "RAMPED", "Showing"]

RAMPED: Final = "users"
"""The collection whose reads are ramped: nothing damages it."""
RAMP: Final[Mapping[str, Any]] = {
    "ramp": ["1%", "5%", "25%", "50%", "100%"],
    "every": "20s",
    # The embedded servers say nothing about how fast a store is.
    "guards": {"slower": 0},
}
_DAMAGED: Final = "generated_content"
_STAYS: Final = 15.0
"""Seconds for which a ramp stays at its top, and a found damage in the secondary."""


class Showing:
    """`person`: whose documents are damaged, and read; nobody else writes them."""

    def __init__(self, shadow: Shadow, audit: Audit, person: Person) -> None:
        self._shadow = shadow
        self._audit = audit
        self._person = person
        self.damaged = 0
        """Documents that were damaged, found and repaired."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._damage_forever())
            group.create_task(self._ramp_forever())

    async def _damage_forever(self) -> None:
        await self._person.sign_up()
        await self._person.upload(4)
        while True:
            with contextlib.suppress(httpx.HTTPError):
                await self._damage()
            await asyncio.sleep(_STAYS)

    async def _damage(self) -> None:
        """One document of the secondary, with the bare driver, until a shadow read has found it."""
        document = random.choice(self._person.documents)
        found = await self._shadow[_DAMAGED].find_one({"document_id": ObjectId(document)})
        if found is None or await self._shadow.admin.lagging(_DAMAGED, found["_id"]):
            await asyncio.sleep(1.0)  # the worker has not made it yet
            return
        wrong = {"N": str(-random.randint(1, 10**6))}
        await asyncio.to_thread(self._audit.damage, _DAMAGED, found["_id"], "tokens", wrong)
        while not self._is_open(found):
            await self._person.ask("GET", f"/documents/{document}/generated")
            await asyncio.sleep(0.5)
        await asyncio.sleep(_STAYS)
        await self._shadow.admin.heal(_DAMAGED, found["_id"])
        self.damaged += 1

    def _is_open(self, document: Document) -> bool:
        return any(each.key == document["_id"] for each in self._shadow.admin.findings.open(_DAMAGED))

    async def _ramp_forever(self) -> None:
        while True:
            await asyncio.sleep(_STAYS)
            with contextlib.suppress(ControlError):
                await asyncio.to_thread(guard_record.change, self._shadow.admin.fleet.records, _begun_again)


def _begun_again(seen: GuardRecord) -> GuardRecord | None:
    """A ramp at its top, or stopped by a guard, begins at 0."""
    before = seen.ramps.get(RAMPED)
    if before is None or before.state is RampState.RAMPING or time.time() - before.since < _STAYS:
        return None
    after = dataclasses.replace(before.moved(0.0, RampState.RAMPING, time.time()), waits="")
    move = ramp_move(before, after, by="shadow demo", reason="the demo shows it again", figures={})
    return seen.with_ramp(after, move)
