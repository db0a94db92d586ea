"""The process is killed with SIGKILL in a transaction of the application; the next one makes both stores equal.

Each transaction is there as a whole or not at all, and one whose commit arrived is not lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from bson import Binary

from shadow.embedded.servers import FaultProxy, Mode
from shadow.host.failpoints import Point
from shadow.model.version import Document
from tests.faults.test_crash import LIMITS, PATIENT, join, recover
from tests.support.shadows import COLLECTION, Site
from tests.support.topologies import root_client
from tests.support.writer import notes, spawn

POINTS: Final = (Point.AFTER_PRIMARY, Point.BEFORE_REPLAY, Point.AFTER_REPLAY, Point.BEFORE_HEAL, Point.AFTER_HEAL)
"""Those that a process comes by once its commit is acknowledged: a key that was changed twice is copied, not
replayed."""
BEFORE, SENT, ARRIVED, ACKED = "before", "sent", "arrived", "acked"
MOMENTS: Final = (BEFORE, SENT, ARRIVED, *POINTS, ACKED)
COMMITS: Final = {"mongo": b"commitTransaction", "dynamo": b".TransactWriteItems"}
"""What only the request of a commit contains."""


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def transact(site: Site, moment: str, log: str) -> None:
    """One transaction of three documents; dies at `moment`, and for `SENT` waits to be killed."""
    armed = False

    def reach(at: object) -> None:
        if armed and at == moment:
            die()

    async def run() -> None:
        nonlocal armed
        async with site.shadow(reach) as shadow:
            for task in shadow._engine.runtime()._tasks:
                if task.get_name() == "shadow-recovery":
                    task.cancel()  # what a sibling leaves is for the process that comes after them all
            things = shadow[COLLECTION]
            async with shadow.client.start_session() as session:
                Path(log).write_text(f"session {bytes(session.session_id['id']).hex()}\n")
                commit = session.commit_transaction

                async def committing() -> None:
                    await commit()
                    if moment == ARRIVED:
                        die()

                session.commit_transaction = committing
                await session.start_transaction()
                await things.update_one({"_id": f"{moment}-inc"}, {"$inc": {"n": 1}}, session=session)
                await things.update_one({"_id": f"{moment}-inc"}, {"$inc": {"n": 1}}, session=session)
                await things.insert_one({"_id": f"{moment}-new", "n": 2}, session=session)
                await things.delete_one({"_id": f"{moment}-old"}, session=session)
                if moment == BEFORE:
                    die()
                armed = True
                await session.commit_transaction()
                if moment == ACKED:
                    die()
            await shadow.settled(60)

    asyncio.run(run())


def effect(moment: str, found: dict[Any, Document]) -> tuple[int, bool, bool]:
    return found[f"{moment}-inc"]["n"], f"{moment}-new" in found, f"{moment}-old" in found


@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_killed_in_a_transaction(
    site: Site, tmp_path: Path, primary: str, new_proxy: Callable[[str], FaultProxy]
) -> None:
    site = site.but(primary=primary, driver="pymongo", limits=LIMITS)
    patient = site.but(limits=PATIENT, patience=20.0)
    async with patient.shadow() as shadow:
        await shadow.prepare()
        both = [{"_id": f"{moment}-{kind}", "n": 0} for moment in MOMENTS for kind in ("inc", "old")]
        await shadow[COLLECTION].insert_many(both)
        await site.level(shadow)
    proxy = new_proxy(getattr(site, f"{primary}_url"))
    proxy.set(Mode.HANG, only=COMMITS[primary])
    through = patient.but(**{f"{primary}_url": proxy.url})
    logs = {moment: tmp_path / f"{moment}.log" for moment in MOMENTS}
    processes = {
        moment: spawn(transact, through if moment == SENT else patient, moment, str(log))
        for moment, log in logs.items()
    }
    async with asyncio.timeout(120):
        while not proxy.faults:  # noqa: ASYNC110 - the proxy wakes nobody
            await asyncio.sleep(0.02)
    processes[SENT].kill()
    killed = await join(list(processes.values()))
    assert killed == [-signal.SIGKILL] * len(MOMENTS), "every process came to its moment and died there"
    proxy.clear()  # the commit of a dead process arrives
    try:
        found = await recover(site)  # one transaction is still open in MongoDB meanwhile
    finally:
        open_ = uuid.UUID(next(words[1] for words in notes(logs[BEFORE])))
        root_client(site.mongo_url).admin.command("killSessions", [{"id": Binary.from_uuid(open_)}])
    nothing, whole = (0, False, True), (2, True, False)
    assert effect(BEFORE, found) == nothing
    assert effect(SENT, found) in (nothing, whole)
    assert {moment: effect(moment, found) for moment in (ARRIVED, *POINTS, ACKED)} == dict.fromkeys(
        (ARRIVED, *POINTS, ACKED), whole
    )
