"""Every way in which a process may come to write one store alone, and what was proven before then says nothing.

A fleet has copied, verified and rehearsed. Then something happens, and the fleet starts again: no flip may be made on
what was proven before. Where a process writes one store alone, the control store knows it before that store is asked.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from shadow import Shadow
from shadow.control import flip_record as routing
from shadow.control import receipts
from shadow.control.epochs import proof_of
from shadow.control.flip_record import KEY, RouteRecord
from shadow.control.records import Records
from shadow.control.sqlite import SqliteRecords
from shadow.errors import ControlError, JournalError
from shadow.fleet.gates import REHEARSAL, is_way_back, more_gates
from shadow.host.process import this_process
from shadow.jobs.jobs import Jobs
from shadow.model.operation import Insert
from shadow.model.phase import Phase, StoreName
from shadow.model.version import fresh_id
from tests.faults.test_flip_by_file import order, text
from tests.support.memory import Place
from tests.support.pair import until
from tests.support.shadows import COLLECTION

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO
FULL = {"full": True, "sample": 1.0, "filter": "{}"}
PROVEN = {"copied": True, "equal": True, "way back": True}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Witness:
    """An operator who looks into the control store by himself."""

    def __init__(self, place: Place) -> None:
        self.records: Records = SqliteRecords(place.control)
        self.jobs = Jobs(self.records)

    def placed(self) -> RouteRecord:
        return routing.load(self.records).placed[COLLECTION]

    def proven(self) -> dict[str, bool]:
        placed = routing.load(self.records).placed
        return {gate.name: gate.ok for gate in more_gates(self.records, placed, [COLLECTION])}

    def prove(self) -> None:
        """What backfill, verify and a rehearsal leave behind."""
        for kind, outcome, options in (("backfill", "complete", {}), ("verify", "equal", FULL)):
            job = self.jobs.begin(kind, COLLECTION, "mark", options, restart=True)
            self.jobs.create_ranges(job, [{}], 10)
            claim = self.jobs.claim(job, "worker", this_process())
            assert claim is not None
            assert self.jobs.advance(claim, {"after": 1}, {"seen": 10, "compared": 10}, [])
            self.jobs.complete(claim)
            self.jobs.finish(job, outcome)
        body = {"done": True, "to": {COLLECTION: "dynamo"}, "epochs": {COLLECTION: self.placed().mark}}
        receipts.file(self.records, REHEARSAL, body)

    def close(self) -> None:
        self.records.close()


async def vouched(shadow: Shadow) -> None:
    """It has looked at journal and stores, and left fresh tokens."""
    await until(lambda: shadow.admin.fleet.vouched)


async def fresh_tokens(shadow: Shadow) -> None:
    """Leaves them in journal and stores, however long one of them takes to answer."""
    vouching = shadow.admin.fleet._vouching
    # What takes longer is left for the next time.
    vouching._patience = 60.0
    await vouching.tokens([COLLECTION], fresh=True)
    while "the journal" in vouching.silent:
        await vouching.tokens([COLLECTION], fresh=True)


async def begun(place: Place, witness: Witness) -> None:
    """A fleet that was stopped after everything had been proven."""
    async with place.shadow() as shadow:
        await shadow[COLLECTION].insert_one({"_id": "early"})
        await vouched(shadow)
        await asyncio.to_thread(witness.prove)
        await place.level(shadow)
    assert witness.proven() == PROVEN


def watched(place: Place, witness: Witness, seen: list[dict[str, bool]]) -> None:
    """Notes what counts as proven at each moment in which MongoDB is asked to write."""

    async def look(call: Callable[[], Awaitable[Any]]) -> Any:
        seen.append(await asyncio.to_thread(witness.proven))
        return await call()

    place.primary.on("apply", look, None)


# --- a process writes one store alone -------------------------------------------------------------------------------


async def phase_off_at_a_start(place: Place, witness: Witness) -> None:
    async with place.shadow(phase="off") as shadow:
        await shadow[COLLECTION].insert_one({"_id": "alone"})


async def an_older_file_beside_the_others(place: Place, witness: Witness) -> None:
    async with place.shadow() as new, place.shadow(phase="off") as old:
        await new[COLLECTION].find_one({})
        await old[COLLECTION].insert_one({"_id": "alone"})
        assert new.admin.routes()[COLLECTION].dual_write


async def a_new_file_that_says_off(place: Place, witness: Witness) -> None:
    async with place.shadow() as shadow:
        await shadow[COLLECTION].find_one({})
        await until(lambda: shadow.admin.fleet.participant.joined)
        for phase in ("dual_write", "off"):
            assert await shadow.admin.reload(text(shadow, phase=phase))
        await shadow[COLLECTION].insert_one({"_id": "alone"})
        for phase in ("dual_write", "shadow"):
            assert await shadow.admin.reload(text(shadow, phase=phase))


async def another_journal(place: Place, witness: Witness) -> None:
    async with place.shadow(phase="off", journal=str(place.journal.with_name("other.db"))) as shadow:
        await shadow[COLLECTION].insert_one({"_id": "alone"})


async def another_control_store(place: Place, witness: Witness) -> None:
    """Both are told by the token that it leaves."""
    other = str(place.control.with_name("other.db"))
    async with place.shadow(phase="off", control=other) as shadow:
        await shadow[COLLECTION].insert_one({"_id": "alone"})


async def a_journal_that_fails_with_on_failure_sync(place: Place, witness: Witness) -> None:
    async with place.shadow(on_failure="sync") as shadow:
        await shadow[COLLECTION].find_one({})
        fail(shadow)
        await shadow[COLLECTION].insert_one({"_id": "alone"})


async def a_journal_and_a_control_store_that_fail_with_on_failure_sync(place: Place, witness: Witness) -> None:
    async with place.shadow(on_failure="sync") as shadow:
        await shadow[COLLECTION].find_one({})
        fail(shadow)
        shadow.admin.fleet.records.close()
        shadow.admin.fleet.participant._raising._records = Gone()
        shadow.admin.fleet.participant.records = Gone()
        await shadow[COLLECTION].insert_one({"_id": "alone"})


async def phase_off_by_the_environment(place: Place, witness: Witness) -> None:
    """Whatever its file says."""
    path = place.journal.with_name("shadow.yaml")
    place.file(path, phase="shadow")
    async with place.from_file(path, {f"SHADOW_COLLECTIONS_{COLLECTION.upper()}_PHASE": "off"}) as shadow:
        await shadow[COLLECTION].insert_one({"_id": "alone"})
        assert shadow.admin.routes()[COLLECTION].phase is Phase.OFF


async def phase_off_without_a_control_store_with_on_failure_sync(place: Place, witness: Witness) -> None:
    """It goes on with the configured primary, and no list of processes has it."""
    async with place.shadow(phase="off", on_failure="sync") as shadow:
        shadow.admin.fleet.records.close()
        shadow.admin.fleet.participant._raising._records = Gone()
        shadow.admin.fleet.participant.records = Gone()
        await shadow[COLLECTION].insert_one({"_id": "alone"})


async def taken_out_of_the_file(place: Place, witness: Witness) -> None:
    """Its process may write it at any time, by the driver's own calls."""
    async with place.shadow(collections=["others"]) as shadow:
        await shadow["others"].insert_one({"_id": 1})
        await place.primary.apply(COLLECTION, Insert("alone", {"_id": "alone"}, fresh_id()), fresh_id())


# --- something was put back, or is another one ----------------------------------------------------------------------


async def a_journal_of_before(place: Place, witness: Witness) -> None:
    backup = place.journal.with_name("backup.db")
    with sqlite3.connect(place.journal) as from_, sqlite3.connect(backup) as to:
        from_.backup(to)
    place.primary.on_all(hang_up)
    dying = place.shadow()
    await dying.admin.fleet.participant.join({COLLECTION: MONGO})
    await fresh_tokens(dying)
    place.primary.clear()
    for suffix in ("", "-wal", "-shm"):
        place.journal.with_name(place.journal.name + suffix).unlink(missing_ok=True)
    dying._engine.parts.journal.shut()
    shutil.copy(backup, place.journal)


async def a_journal_that_is_gone(place: Place, witness: Witness) -> None:
    dying = place.shadow()
    await dying.admin.fleet.participant.join({COLLECTION: MONGO})
    await fresh_tokens(dying)
    dying._engine.parts.journal.shut()
    for suffix in ("", "-wal", "-shm"):
        place.journal.with_name(place.journal.name + suffix).unlink(missing_ok=True)


async def mongodb_of_before(place: Place, witness: Witness) -> None:
    inner = place.inner[MONGO]
    images, tokens = copy.deepcopy(inner._images), dict(inner._tokens)
    async with place.shadow() as shadow:
        await shadow[COLLECTION].insert_one({"_id": "lost"})
        await vouched(shadow)
    inner._images, inner._tokens = images, tokens


async def a_collection_of_mongodb_of_before(place: Place, witness: Witness) -> None:
    place.inner[MONGO]._identities.clear()


async def a_table_of_before(place: Place, witness: Witness) -> None:
    place.inner[DYNAMO]._identities.clear()


async def a_control_store_that_an_older_version_has_written(place: Place, witness: Witness) -> None:
    found = witness.records.get(KEY)
    assert found is not None
    witness.records.put(KEY, {"placed": found.value["placed"], "flip": found.value["flip"]})


async def hang_up(call: Callable[[], Awaitable[Any]]) -> Any:
    raise ConnectionError


class Gone:
    """A control store that cannot be used."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise ControlError("the control store cannot be used")

        return fail


def fail(shadow: Shadow) -> None:
    """Its journal takes no intent any more."""

    async def full(entries: Any) -> None:
        raise JournalError("the disk is full")

    shadow._engine.parts.journal.open = full  # type: ignore[method-assign]


WRITTEN_ALONE = (
    phase_off_at_a_start,
    an_older_file_beside_the_others,
    a_new_file_that_says_off,
    another_journal,
    a_journal_that_fails_with_on_failure_sync,
    phase_off_by_the_environment,
    taken_out_of_the_file,
)
LATER = (
    another_control_store,
    a_journal_and_a_control_store_that_fail_with_on_failure_sync,
    phase_off_without_a_control_store_with_on_failure_sync,
    a_journal_of_before,
    a_journal_that_is_gone,
    mongodb_of_before,
    a_collection_of_mongodb_of_before,
    a_table_of_before,
    a_control_store_that_an_older_version_has_written,
)
Way = Callable[[Place, Witness], Awaitable[None]]


@pytest.mark.parametrize("way", [*WRITTEN_ALONE, *LATER], ids=lambda way: way.__name__)
async def test_what_was_proven_before_a_gap_opens_no_gate_after_it(place: Place, way: Way) -> None:
    witness = Witness(place)
    await begun(place, witness)
    await way(place, witness)
    async with place.shadow() as shadow:
        await shadow[COLLECTION].find_one({})
        await vouched(shadow)
        assert shadow.admin.routes()[COLLECTION].phase is Phase.SHADOW
        assert witness.proven() == dict.fromkeys(PROVEN, False)
        await asyncio.to_thread(witness.prove)
        assert witness.proven() == PROVEN, "what is proven now counts"
    witness.close()


@pytest.mark.parametrize("way", WRITTEN_ALONE, ids=lambda way: way.__name__)
async def test_the_control_store_knows_of_a_gap_before_the_first_write(place: Place, way: Way) -> None:
    witness, seen = Witness(place), []
    await begun(place, witness)
    watched(place, witness, seen)
    await way(place, witness)
    assert seen
    assert all(each == dict.fromkeys(PROVEN, False) for each in seen)
    witness.close()


async def test_nothing_is_flipped_that_does_not_say_whether_it_is_the_one_of_before(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(collection: str) -> str:
        raise TimeoutError

    witness = Witness(place)
    await begun(place, witness)
    async with place.shadow() as shadow:
        await shadow[COLLECTION].find_one({})
        await vouched(shadow)
        assert await shadow.admin.fleet.vouch([COLLECTION]) == ""
        monkeypatch.setattr(place.inner[MONGO], "token", silent)
        assert "not confirmed in time" in await shadow.admin.fleet.vouch([COLLECTION])
        assert await shadow.admin.fleet.vouch([COLLECTION], whole=False) == "", "a store that was switched off"
        monkeypatch.undo()
        assert await shadow.admin.fleet.vouch([COLLECTION]) == ""
    assert witness.proven() == PROVEN
    witness.close()


async def test_another_control_store_leaves_its_token_before_the_first_write(place: Place) -> None:
    witness, seen = Witness(place), []
    await begun(place, witness)
    before = await place.inner[MONGO].token(COLLECTION)

    async def look(call: Callable[[], Awaitable[Any]]) -> Any:
        seen.append(await place.inner[MONGO].token(COLLECTION))
        return await call()

    place.primary.on("apply", look, None)
    await another_control_store(place, witness)
    assert seen
    assert before not in seen
    witness.close()


async def test_a_restart_without_a_gap_keeps_what_was_proven(place: Place) -> None:
    witness = Witness(place)
    await begun(place, witness)
    for turn in range(2):
        async with place.shadow() as one, place.shadow() as other:
            await one[COLLECTION].insert_one({"_id": turn})
            await other[COLLECTION].find_one({})
            await vouched(one)
            await vouched(other)
            await place.level(one)
        assert witness.proven() == PROVEN
    witness.close()


async def test_a_flip_takes_the_way_back_only_as_long_as_there_is_no_gap(place: Place) -> None:
    witness = Witness(place)
    async with place.shadow() as shadow:
        await shadow[COLLECTION].insert_one({"_id": 1})
        await order(shadow, DYNAMO)
        assert is_way_back(witness.placed(), MONGO)
        async with place.shadow(phase="off") as alone:
            await alone[COLLECTION].insert_one({"_id": 2})
            assert alone.admin.routes()[COLLECTION].primary is DYNAMO, "the fleet's word, whatever the file says"
        assert not is_way_back(witness.placed(), MONGO)
        assert place.held(DYNAMO).keys() == {1, 2}
    witness.close()


@pytest.mark.parametrize("way", ["cancelled", "refused"])
async def test_a_gap_that_does_not_come_about_leaves_no_process_standing_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A loop that ends while its file changes to phase `off`, and a write that neither journal nor control store take:
    the process goes on writing both, and what is proven from then on counts."""
    async with place.shadow() as shadow:
        await until(lambda: shadow.admin.fleet.participant.joined and shadow.admin.routes()[COLLECTION].dual_write)
        fleet, reached = shadow.admin.fleet, asyncio.Event()

        async def hangs(names: Any) -> None:
            reached.set()
            await asyncio.Event().wait()

        async def fails(*names: Any) -> bool:
            if names == (COLLECTION,):
                return False
            raise ControlError("not now")

        if way == "cancelled":
            monkeypatch.setattr(fleet.participant, "interrupt", hangs)
            off = dataclasses.replace(shadow.admin.routes()[COLLECTION], phase=Phase.OFF)
            change = asyncio.create_task(fleet.change(COLLECTION, off))
            await reached.wait()
            assert proof_of(fleet.records, COLLECTION) == ""
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
        else:
            monkeypatch.setattr(fleet.participant, "interrupt", fails)
            monkeypatch.setattr(fleet._vouching, "spoil", fails)
            with pytest.raises(JournalError):
                await fleet.gap(COLLECTION)
        assert shadow.admin.routes()[COLLECTION].dual_write
        await fleet.participant.beat()
        assert proof_of(fleet.records, COLLECTION) != ""
