"""The protocol with one rule weakened, each in the plainest way. The simulator must catch every one of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import bson
from pymongo import WriteConcern
from pymongo.errors import WriteConcernError

from shadow.compare.equality import agree
from shadow.control import epochs, members
from shadow.control.members import Member
from shadow.control.raising import Raising
from shadow.fleet.fleet import Fleet
from shadow.fleet.participant import Participant
from shadow.journal.base import Due, Entry, undecided_op
from shadow.journal.sqlite import tables as ledger
from shadow.journal.sqlite.tables import Ledger
from shadow.model.operation import ANY, Delete, Write
from shadow.model.order import key_digest
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Route, StoreName
from shadow.model.stored import is_copyable
from shadow.model.verdict import Healing
from shadow.model.version import ABSENT, Image, Key, State, Tombstone, Version, fresh_id
from shadow.routes.routes import OpenWrite, Routes
from shadow.stores import memory, replays
from shadow.stores.base import Store
from shadow.stores.many import Mark, _Part
from shadow.stores.memory import MemoryStore
from shadow.stores.mongo import durability as mongo_durability
from shadow.stores.mongo.durability import Durability, Lasting
from shadow.surface.direct.stamping import Stamping
from shadow.writes import dual_write, healer, replicator
from shadow.writes import heal as apply
from shadow.writes.dual_write import DualWrite
from shadow.writes.heal import HealContended, heal_many
from shadow.writes.replicator import Replicator
from shadow.writes.untangle import Untangler
from tests.simulation.conditions import DRIVEN, Conditions
from tests.simulation.journal import SimulatedJournal
from tests.simulation.many import SimulatedMany
from tests.simulation.replays import SimulatedCopies, SimulatedReplays

__all__ = ["MUTATIONS", "Mutation", "overdue"]

Patches = Sequence[tuple[object, str, Any]]


@dataclass(frozen=True)
class Mutation:
    """`patches`: (where, which, what instead). `conditions` are those under which the rule matters."""

    name: str
    patches: Patches
    conditions: Callable[[Conditions], Conditions]

    def applied(self) -> AbstractContextManager[Any]:
        stack = ExitStack()
        for target, name, instead in self.patches:
            stack.enter_context(mock.patch.object(target, name, instead))
        return stack


def calm(drawn: Conditions, **changes: Any) -> Conditions:
    """No faults but the ones named, so that what is caught is the rule."""
    return Conditions(
        processes=drawn.processes,
        keys=1,
        counters=0,
        callers=drawn.callers,
        operations=drawn.operations,
        haste=drawn.haste,
        slow=0.3,
        reads=0.0,
    ).but(**changes)


def overdue(drawn: Conditions) -> Conditions:
    """Requests to the primary that are held up for longer than any limit, beside other faults and crashes. Not with
    flips, for nothing may be asked of a store that is no longer primary."""
    crashes = (drawn.keys + drawn.operations) % 3
    faults = {"overdue": 0.2, "late": 0.1, "unanswered": 0.1, "crashes": crashes, "restarts": 1}
    return calm(drawn, processes=2, keys=3, counters=1, **faults)


_UPSERTS: Final = (("upsert", 1),)
_COME_AND_GO: Final = (("upsert", 1), ("delete", 1))
_CHURN: Final = (("insert", 5), ("upsert", 3), ("delete", 6))


def _refuses_half(error: BaseException) -> Outcome:
    return Outcome.REFUSED if isinstance(error, WriteConcernError) else classify(error)


# --- the journal ------------------------------------------------------------------------------------------------

_settle = Ledger.settle


def _settle_at_once(self: Ledger, due: Due) -> bool:
    """Of what is late: after it was looked at once, whatever its age."""
    return _settle(self, dataclasses.replace(due, claimed=1e12) if due.late else due)


_follow = Replicator.follow


def _close_first(self: Replicator, write: Write, route: Route) -> asyncio.Future[bool]:
    self._journal.close(write.op_id)
    return _follow(self, write, route)


_settle_all = DualWrite._settle_all


async def _close_with_the_answer(self: DualWrite, *made: Any) -> None:
    for op_id in made[2].op_ids:
        self._intents.close(op_id)
    await _settle_all(self, *made)


async def _open_nothing(self: SimulatedJournal, entries: Sequence[Entry]) -> None:
    return None


def _by_the_wall(self: Ledger, mark: float = 0.0) -> float:
    """Each process goes by the host's wall clock."""
    return ledger.time.time()


def _adopt_all(self: Ledger, now: float) -> None:
    """Takes every intent for orphaned, and its operation for ended."""
    for row in self._db.execute("SELECT op_id FROM intents").fetchall():
        self.defer(row[0], unknown=False)


_open = SimulatedJournal.open
_defer = Ledger.defer


async def _open_decided_only(self: SimulatedJournal, entries: Sequence[Entry]) -> None:
    await _open(self, [entry for entry in entries if undecided_op(entry.key) is None])


async def _decided_never(stores: Any, collection: str, key: Key) -> list[Key]:
    """What an undecided intent stands for is not asked for."""
    return [key] if undecided_op(key) is None else []


async def _chosen_never(self: MemoryStore, collection: str, op_id: str) -> Key:
    return ANY


def _defer_decided(self: Ledger, op_id: str, *, unknown: bool) -> None:
    """An operation whose outcome is unknown, and which has not found its document, has changed nothing."""
    row = self._db.execute("SELECT key FROM intents WHERE op_id = ?", (op_id,)).fetchone()
    if row is not None and undecided_op(bson.decode(row[0])[""]) is not None:
        self.close(op_id)
    else:
        _defer(self, op_id, unknown=unknown)


_settle = Ledger.settle


def _settle_any(self: Ledger, due: Due) -> bool:
    query = "SELECT generation, next_try FROM deferred WHERE collection = ? AND key = ?"
    row = self._db.execute(query, (due.collection, bson.encode({"": due.key}))).fetchone()
    return _settle(self, due if row is None else dataclasses.replace(due, generation=row[0], until=row[1]))


def _defer_known(self: Ledger, op_id: str, *, unknown: bool) -> None:
    _defer(self, op_id, unknown=False)


# --- the fences -------------------------------------------------------------------------------------------------


async def _replay_unfenced(self: MemoryStore, collection: str, write: Write) -> Image | None:
    """The operation, on whatever stands there."""
    if isinstance(write.change, Delete):
        post: Image | None = Image(Tombstone(write.change.tombstone))
    else:
        seen = self._image(collection, write.key)
        post = write.post if seen.present and write.pre == ABSENT else memory._effect(write.change, seen)
    if post is not None:
        self._set(collection, write.key, post)
    return post


def _rank(state: State) -> tuple[str, int]:
    """Ids begin with the clock of whoever made them."""
    match state:
        case Version(born, rev):
            return born, rev
        case Tombstone(id_):
            return id_, 0
        case _:
            return "", 0


async def _replay_ordered(self: MemoryStore, collection: str, write: Write) -> Image | None:
    """Last writer wins: what is newer takes the place of what is older."""
    post = Image(Tombstone(write.change.tombstone)) if isinstance(write.change, Delete) else write.post
    if not _rank(post.state) >= _rank(self._image(collection, write.key).state):
        return None
    self._set(collection, write.key, post)
    return post


_replay = MemoryStore.replay


async def _replay_over_tombstones(self: MemoryStore, collection: str, write: Write) -> Image | None:
    """A tombstone is nothing."""
    seen = self._image(collection, write.key)
    if write.pre == ABSENT and not isinstance(write.change, Delete) and not seen.present:
        self._set(collection, write.key, write.post)
        return write.post
    return await _replay(self, collection, write)


async def _put_always(self: MemoryStore, collection: str, key: Key, image: Image, expected: State) -> bool:
    self._set(collection, key, image)
    return True


# --- tombstones -------------------------------------------------------------------------------------------------

_set_image = MemoryStore._set


def _set_without_tombstones(self: MemoryStore, collection: str, key: Key, image: Image) -> None:
    if isinstance(image.state, Tombstone):
        self._images.get(collection, {}).pop(key_digest(key), None)
    else:
        _set_image(self, collection, key, image)


def _set_tombstones_over_documents_only(self: MemoryStore, collection: str, key: Key, image: Image) -> None:
    if not isinstance(image.state, Tombstone) or self._image(collection, key).state != ABSENT:
        _set_image(self, collection, key, image)


# --- heal -------------------------------------------------------------------------------------------------------


async def _heal_without_touch(primary: Store, secondary: Store, collection: str, key: Key, **options: Any) -> Healing:
    """Where neither has a document there is nothing to do."""
    for _ in range(12):
        seen = await secondary.image(collection, key)
        wanted = await primary.image(collection, key)
        if agree(wanted, seen):
            return Healing.EQUAL
        image = wanted if wanted.present else Image(Tombstone(fresh_id()))
        if await secondary.put(collection, key, image, seen.state):
            return Healing.COPIED
        await asyncio.sleep(0.005)
    raise HealContended(collection)


async def _heal_primary_first(primary: Store, secondary: Store, collection: str, key: Key, **options: Any) -> Healing:
    for _ in range(12):
        wanted = await primary.image(collection, key)
        seen = await secondary.image(collection, key)
        if wanted.present and agree(wanted, seen):
            return Healing.EQUAL
        image = wanted if wanted.present else Image(Tombstone(fresh_id()))
        if await secondary.put(collection, key, image, seen.state):
            return Healing.COPIED
        await asyncio.sleep(0.005)
    raise HealContended(collection)


_BY_FILTER: Final = (("first", 4), ("upsert_first", 3), ("replace_first", 1), ("insert", 1), ("delete", 1))

# --- values that change hands -----------------------------------------------------------------------------------


async def _untangle_nothing(self: Untangler, *arguments: Any) -> bool:
    raise arguments[-1]


async def _put_all_always(self: MemoryStore, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> bool:
    for key, image, _ in puts:
        self._set(collection, key, image)
    return True


def _trading(drawn: Conditions, **changes: Any) -> Conditions:
    """Values that change hands while the secondary is away."""
    return calm(
        drawn,
        keys=3,
        callers=4,
        operations=12,
        haste=0.1,
        secondary_down=2,
        unique=True,
        verbs=(("take", 30), ("drop", 2), ("delete", 2)),
    ).but(**changes)


async def _heal_unreadable_as_gone(
    primary: Store, secondary: Store, collection: str, key: Key, **options: Any
) -> Healing:
    """What cannot be read is not there."""
    for _ in range(12):
        seen = await secondary.image(collection, key)
        wanted = await primary.image(collection, key)
        if wanted.present and agree(wanted, seen):
            return Healing.EQUAL
        image = wanted if wanted.present and is_copyable(wanted) else Image(Tombstone(fresh_id()))
        if await secondary.put(collection, key, image, seen.state):
            return Healing.COPIED
        await asyncio.sleep(0.005)
    raise HealContended(collection)


def _agree_by_version(primary: Image, secondary: Image) -> bool:
    """What cannot be read at the same version will be the same."""
    if is_copyable(primary) and is_copyable(secondary):
        return agree(primary, secondary)
    return primary.state == secondary.state


# --- what is rolled back ----------------------------------------------------------------------------------------


def _as_asked(asked: WriteConcern, count: int) -> WriteConcern:
    return asked


def _one_term(self: Durability) -> int:
    return 1


async def _without_asking(collection: Any, limit_ms: int) -> bool:
    return True


_prove = Durability.prove


async def _prove_unmarked(self: Durability, *arguments: Any) -> None:
    self._on_doubt = lambda collection: None
    await _prove(self, *arguments)


async def _by_one_member(self: Durability) -> WriteConcern:
    return WriteConcern(1)


async def _read_anyhow(self: Lasting, collection: str) -> Any:
    return self.database.get_collection(collection)


_find = Lasting.find


async def _found_anyhow(self: Lasting, collection: str, filter: dict[str, Any], projection: Any) -> list[Any]:
    """Images are read from the primary for good; which document an operation has found, from whoever answers."""
    if "op" not in filter:
        return await _find(self, collection, filter, projection)
    found: list[Any] = await self.database.get_collection(collection).find(filter, projection).to_list(length=None)
    return found


def _trust_always(self: Ledger, collection: str, doubts: str) -> None:
    self._db.execute("DELETE FROM unclean WHERE collection = ?", (collection,))


def _divided(drawn: Conditions, **changes: Any) -> Conditions:
    """A set that is divided while its callers are at work."""
    divided: dict[str, Any] = {"replicas": True, "divisions": 2, "operations": 8, "haste": 0.3, "keys": 2}
    return calm(drawn, **divided | changes)


# --- writes of one store and of both ----------------------------------------------------------------------------


def _left_as_refused(self: OpenWrite, error: BaseException | None = None) -> None:
    """Whatever came of it, it has ended."""
    _leave(self)


_leave = OpenWrite.leave
_advanced = epochs.advanced
_entered = epochs.entered


def _advanced_at_once(seen: Any, names: Any, rows: Any, silent: Any = ()) -> Any:
    return _advanced(seen, names, [], silent)


def _forgotten_at_once(self: Raising, dead: Sequence[Member]) -> bool:
    for row in dead:
        members.forget(self._records, row.id)
    return False


def _entered_quietly(seen: Any, kept: Any, dual: Any, rows: Any, **options: Any) -> Any:
    """In the epoch that stands, whatever it writes itself."""
    standing = [name for name, each in seen.placed.items() if each.both]
    return _entered(seen, kept, [*dual, *standing], rows, **options)


async def _unstamped(self: Stamping, own: Any, verb: str, arguments: Any, options: Any) -> Any:
    return await getattr(own, verb)(**options)


async def _interrupt_nothing(self: Participant, names: Any) -> None:
    return None


async def _lower_at_once(self: Fleet, name: str, wanted: Route) -> bool:
    """While a heal is under way."""
    done = await self._write_alone(name)
    if done:
        self._parts.routes.set(name, wanted)
    return done


def _lost_if_bare(self: OpenWrite) -> None:
    """What moves a version will be found by whoever looks."""
    if self._route.bare:
        _lost(self)


_lost = OpenWrite.lost


async def _write_both_at_once(self: Fleet, collections: list[str]) -> None:
    """While writes of one store are under way."""
    routes = self._parts.routes
    for name in collections:
        routes.set(name, dataclasses.replace(routes[name], phase=self.wants_both()[name]))


def _mixed(drawn: Conditions, **changes: Any) -> Conditions:
    """Processes that change between writes of one store and of both, while all of them write."""
    mixed: dict[str, Any] = {
        "fleet": True, "changes": 4, "processes": 3, "callers": 4, "operations": 8, "haste": 0.3, "counters": 1,
        "verifications": 3, "verbs": DRIVEN, "slow": 0.2,
    }  # fmt: skip
    return calm(drawn, **mixed | changes)


def _raised(drawn: Conditions, **changes: Any) -> Conditions:
    """All begin with dual writes and some prove; then a few processes leave them, with callers that have much to do."""
    return _mixed(drawn, raised=True, operations=20, seeded=False, verifications=4).but(**changes)


def _heal_with(heal: Any) -> Patches:
    return ((healer, "heal", heal), (apply, "heal", heal))


# --- many at once -----------------------------------------------------------------------------------------------

_is_changed = _Part._is_changed


def _all_changed(self: _Part, pre: State, mark: Mark) -> bool:
    return True


def _not_changed_if_unclear(self: _Part, pre: State, mark: Mark) -> bool:
    return bool(_is_changed(self, pre, mark))


def _many(drawn: Conditions, **changes: Any) -> Conditions:
    verbs = (("insert", 3), ("inc", 2), ("first", 2), ("replace", 2), ("delete", 1))
    return calm(drawn, keys=3, callers=4, operations=8, haste=0.01, many=0.6, verbs=verbs).but(**changes)


def _all_done(places: Sequence[int], answers: Sequence[bool]) -> Sequence[int]:
    return places


def _of_another_key(places: Sequence[int], answers: Sequence[bool]) -> Sequence[int]:
    turned = [*answers[1:], *answers[:1]]
    return [place for place, done in zip(places, turned, strict=True) if done]


def _batches(drawn: Conditions, **changes: Any) -> Conditions:
    return _many(drawn, batches=True).but(**changes)


def _left_behind(drawn: Conditions) -> Conditions:
    """Several keys wait for the secondary at a time, and hardly a later write finds what is missing."""
    rare: dict[str, Any] = {"operations": 3, "processes": 1, "slow": 0.0, "many": 0.0}
    verbs = (("insert", 3), ("delete", 1))
    return _batches(drawn, secondary_down=1, refused=0.2, partial=0.6, callers=3, verbs=verbs, **rare)


async def _heal_many_primary_first(
    primary: Any, secondary: Any, collection: str, keys: Sequence[Key], **options: Any
) -> list[Healing | None]:
    wanted = await primary.lasting_images(collection, keys)
    seen = await secondary.lasting_images(collection, keys)
    results: list[Healing | None] = [None] * len(keys)
    puts = {}
    for place, (key, here, there) in enumerate(zip(keys, wanted, seen, strict=True)):
        if not is_copyable(here):
            continue
        if here.document is not None and agree(here, there):
            results[place] = Healing.EQUAL
        else:
            puts[place] = (key, here if here.present else Image(Tombstone(fresh_id())), there.state)
    made = await secondary.copy_many(collection, list(puts.values())) if puts else []
    for place, done in zip(puts, made, strict=True):
        results[place] = Healing.COPIED if done else None
    return results


async def _heal_many_all(*arguments: Any, **options: Any) -> list[Healing | None]:
    return [result or Healing.COPIED for result in await heal_many(*arguments, **options)]


async def _heal_many_without_touch(
    primary: Any, secondary: Any, collection: str, keys: Sequence[Key], **options: Any
) -> list[Healing | None]:
    """Where neither has a document there is nothing to do."""
    seen = await secondary.lasting_images(collection, keys)
    wanted = await primary.lasting_images(collection, keys)
    pairs = zip(keys, wanted, seen, strict=True)
    left = [key for key, here, there in pairs if here.present or there.present or not is_copyable(here)]
    made = await heal_many(primary, secondary, collection, left, **options) if left else []
    results = dict(zip(map(key_digest, left), made, strict=True))
    return [results.get(key_digest(key), Healing.EQUAL) for key in keys]


def _in_parts(drawn: Conditions) -> Conditions:
    """Batches of inserts, of which a part arrives; hardly a later write finds what is missing."""
    once: dict[str, Any] = {"callers": 1, "operations": 3, "processes": 1, "slow": 0.0, "haste": 0.3}
    return _batches(drawn, partial=0.7, many=0.5, verbs=(("insert_many", 3),), **once)


MUTATIONS: Final = (
    Mutation(
        "the intent is closed before the secondary has the write",
        ((Replicator, "follow", _close_first),),
        lambda drawn: calm(drawn, crashes=1),
    ),
    Mutation(
        "no intent is opened",
        ((SimulatedJournal, "open", _open_nothing),),
        lambda drawn: calm(drawn, crashes=1),
    ),
    Mutation(
        "the replay has no fence",
        ((MemoryStore, "replay", _replay_unfenced),),
        lambda drawn: calm(drawn, processes=2, haste=0.01),
    ),
    Mutation(
        "fences order versions instead of comparing them for equality",
        ((MemoryStore, "replay", _replay_ordered),),
        lambda drawn: calm(drawn, processes=2, haste=0.05, skewed=True),
    ),
    Mutation(
        "an insert is replayed over a tombstone",
        ((MemoryStore, "replay", _replay_over_tombstones),),
        lambda drawn: calm(drawn, processes=2, haste=0.01, verbs=_CHURN),
    ),
    Mutation(
        "a deletion leaves no tombstone",
        ((MemoryStore, "_set", _set_without_tombstones),),
        lambda drawn: calm(drawn, processes=2, haste=0.01, verbs=_CHURN),
    ),
    Mutation(
        "a deletion leaves no tombstone where the secondary had nothing",
        ((MemoryStore, "_set", _set_tombstones_over_documents_only),),
        lambda drawn: calm(drawn, processes=2, callers=2, operations=2, haste=0.02, verbs=_CHURN, late=0.2),
    ),
    Mutation(
        "a deletion is not touched again",
        _heal_with(_heal_without_touch),
        lambda drawn: calm(drawn, processes=1, keys=3, callers=3, operations=6, verbs=_COME_AND_GO, late=0.2, slow=0.0),
    ),
    Mutation(
        "heal reads the primary first",
        _heal_with(_heal_primary_first),
        lambda drawn: calm(drawn, processes=2, haste=0.01, repairs=4),
    ),
    Mutation(
        "the copy has no condition",
        ((MemoryStore, "put", _put_always),),
        lambda drawn: calm(drawn, processes=2, haste=0.01, repairs=4),
    ),
    Mutation(
        "recovery takes over the intents of living, young operations",
        ((Ledger, "_adopt", _adopt_all),),
        lambda drawn: calm(drawn, processes=2, haste=0.3, slow=0.5, crashes=1),
    ),
    Mutation(
        "the journal goes by a clock that somebody sets",
        ((Ledger, "now", _by_the_wall), (Ledger, "at", _by_the_wall)),
        lambda drawn: calm(drawn, processes=2, haste=0.3, slow=0.5, late=0.2, crashes=1, steps=3),
    ),
    Mutation(
        "a settlement ignores what was deferred since",
        ((Ledger, "settle", _settle_any),),
        lambda drawn: calm(drawn, processes=1, keys=3, callers=6, haste=0.1, narrow=True, verbs=_UPSERTS),
    ),
    Mutation(
        "what the primary holds and nobody can read is taken for deleted",
        _heal_with(_heal_unreadable_as_gone),
        lambda drawn: calm(drawn, processes=2, haste=0.01, repairs=4, unreadable=0.3),
    ),
    Mutation(
        "what cannot be read at the same version counts as equal",
        ((apply, "agree", _agree_by_version),),
        lambda drawn: calm(drawn, processes=1, wrong=0.3, unreadable=0.3),
    ),
    Mutation(
        "an unknown outcome is settled at once",
        ((Ledger, "defer", _defer_known),),
        lambda drawn: calm(drawn, late=0.2),
    ),
    Mutation(
        "no intent is opened before the document is found",
        ((SimulatedJournal, "open", _open_decided_only),),
        lambda drawn: calm(drawn, crashes=1, verbs=_BY_FILTER),
    ),
    Mutation(
        "recovery does not ask which document an operation has found",
        ((healer, "decided", _decided_never),),
        lambda drawn: calm(drawn, crashes=1, verbs=_BY_FILTER),
    ),
    Mutation(
        "the id of the operation that found a document is not kept with it",
        ((MemoryStore, "chosen", _chosen_never),),
        lambda drawn: calm(drawn, unanswered=0.2, verbs=_BY_FILTER),
    ),
    Mutation(
        "an operation without an answer that had no document yet is taken for undone",
        ((Ledger, "defer", _defer_decided),),
        lambda drawn: calm(drawn, late=0.2, verbs=_BY_FILTER),
    ),
    Mutation(
        "documents that are in each other's way are healed one by one",
        ((Untangler, "untangle", _untangle_nothing),),
        _trading,
    ),
    Mutation(
        "values change hands in one step that has no conditions",
        ((MemoryStore, "put_all", _put_all_always),),
        lambda drawn: _trading(drawn, processes=2, together=True),
    ),
    Mutation(
        "a write concern error is taken for a refusal",
        ((dual_write, "classify", _refuses_half),),
        lambda drawn: calm(drawn, half=0.2),
    ),
    Mutation(
        "a write is acknowledged before a majority has it",
        ((mongo_durability, "strengthened", _as_asked), (Durability, "unproven", False)),
        lambda drawn: _divided(drawn, asked="1"),
    ),
    Mutation(
        "what one member has acknowledged is not held against a majority",
        ((mongo_durability, "_has_majority", _without_asking),),
        lambda drawn: _divided(drawn, asked="here"),
    ),
    Mutation(
        "a change of term between the acknowledgement and the majority is not noticed",
        ((Durability, "election", _one_term),),
        lambda drawn: _divided(drawn, asked="here"),
    ),
    Mutation(
        "what may have been rolled back is not marked",
        ((Durability, "prove", _prove_unmarked),),
        lambda drawn: _divided(drawn, asked="here"),
    ),
    Mutation(
        "a verification takes back what was doubted while it ran",
        ((Ledger, "trust", _trust_always),),
        lambda drawn: _divided(drawn, asked="here", verifications=4, slow=0.6),
    ),
    Mutation(
        "a copy that one member has counts as made",
        ((Durability, "for_copies", _by_one_member),),
        lambda drawn: _divided(drawn, primary=StoreName.DYNAMO),
    ),
    Mutation(
        "what is healed is read from whoever says that it is the primary",
        ((Lasting, "reader", _read_anyhow),),
        lambda drawn: _divided(drawn, crashes=1, repairs=4),
    ),
    Mutation(
        "which document an operation has found is asked of whoever says that it is the primary",
        ((Lasting, "find", _found_anyhow),),
        lambda drawn: _divided(drawn, processes=3, operations=4, haste=2.0, keys=6, unanswered=0.3, verbs=_BY_FILTER),
    ),
    Mutation(
        "a process goes on with bare writes when it hears nothing any more",
        ((Routes, "fresh", True),),
        lambda drawn: _mixed(drawn, operations=16, cut_off=2),
    ),
    Mutation(
        "bare writes under way are not waited for",
        ((Routes, "drained", lambda self, collections: True),),
        lambda drawn: _mixed(drawn, slow=0.6),
    ),
    Mutation(
        "a bare write without an answer counts as ended",
        ((OpenWrite, "leave", _left_as_refused),),
        lambda drawn: _mixed(drawn, late=0.3),
    ),
    Mutation(
        "dual writes begin before the others have taken note",
        ((epochs, "advanced", _advanced_at_once),),
        _mixed,
    ),
    Mutation(
        "a process that has died has no bare write under way",
        ((Raising, "_arriving", _forgotten_at_once),),
        lambda drawn: _mixed(drawn, late=0.2, crashes=2),
    ),
    Mutation(
        "a process that ends has no bare write under way",
        ((Participant, "_arrived", _interrupt_nothing),),
        lambda drawn: _mixed(drawn, late=0.3, restarts=3),
    ),
    Mutation(
        "an event loop begins by what the one before it knew",
        ((Routes, "forget", lambda self: None),),
        lambda drawn: _raised(drawn, loops=6, operations=8, processes=2),
    ),
    Mutation(
        "what one store is given alone keeps the version that both have",
        ((Stamping, "write", _unstamped),),
        lambda drawn: _raised(drawn, changes=8, everywhere=1.0),
    ),
    Mutation(
        "two times of writes to one store have one name",
        ((Fleet, "era", lambda self, collection: "one"),),
        lambda drawn: _raised(drawn, changes=8, everywhere=1.0),
    ),
    Mutation(
        "what one store is given alone is copied to the other",
        tuple((place, "check_followed", lambda collection, route: None) for place in (healer, replicator)),
        lambda drawn: _raised(drawn, changes=8, everywhere=1.0, repairs=4, processes=2, operations=8),
    ),
    Mutation(
        "a heal goes on while its process begins to write one store alone",
        ((Fleet, "_lower", _lower_at_once),),
        lambda drawn: _raised(drawn, changes=4, everywhere=1.0, repairs=12, processes=2, operations=8),
    ),
    Mutation(
        "a versioned write to one store alone that had no answer counts as ended",
        ((OpenWrite, "lost", _lost_if_bare),),
        lambda drawn: _raised(
            drawn, changes=10, late=0.15, slow=0.0, processes=2, keys=2, callers=2, operations=8, verifications=8
        ),
    ),
    Mutation(
        "a process writes alone and what was proven stands",
        ((Participant, "interrupt", _interrupt_nothing),),
        _raised,
    ),
    Mutation(
        "a process that begins alone leaves what was proven as it is",
        ((epochs, "entered", _entered_quietly),),
        lambda drawn: _raised(drawn, restarts=4, processes=2, keys=2, callers=2, operations=8, verifications=8),
    ),
    Mutation(
        "a process writes both while a write of its own to one store is under way",
        ((Fleet, "write_both", _write_both_at_once),),
        lambda drawn: _raised(
            drawn, slow=0.0, dawdling=0.3, changes=10, processes=2, keys=2, callers=2, operations=8, verifications=8
        ),
    ),
    Mutation(
        "a write without an answer is forgotten when it is settled",
        ((Ledger, "_keep_late", lambda self, due, entry: None),),
        overdue,
    ),
    Mutation(
        "a write without an answer is looked at once more, and then forgotten",
        ((Ledger, "settle", _settle_at_once),),
        overdue,
    ),
    Mutation(
        "a command for many documents changes them at any version",
        ((SimulatedMany, "is_at", lambda self, on, place, image: True),),
        _many,
    ),
    Mutation(
        "what a command for many documents has not changed counts as changed",
        ((_Part, "_is_changed", _all_changed),),
        _many,
    ),
    Mutation(
        "what a command for many documents may have changed is changed alone",
        ((_Part, "_is_changed", _not_changed_if_unclear),),
        _many,
    ),
    Mutation(
        "the intents of many documents are closed with the answer",
        ((DualWrite, "_settle_all", _close_with_the_answer),),
        lambda drawn: _many(drawn, crashes=1),
    ),
    Mutation(
        "the statements of a batch of replays have no conditions",
        ((SimulatedReplays, "is_at", lambda self, on, write, state: True),),
        lambda drawn: _batches(drawn, processes=2, slow=0.5),
    ),
    Mutation(
        "what a batch of replays has not done counts as done",
        ((replays, "_done", _all_done),),
        _in_parts,
    ),
    Mutation(
        "the answer to one statement of a batch is taken for that to another",
        ((replays, "_done", _of_another_key),),
        _in_parts,
    ),
    Mutation(
        "a batch of heals reads the primary first",
        ((healer, "heal_many", _heal_many_primary_first),),
        lambda drawn: _batches(drawn, processes=2, repairs=6, slow=0.5),
    ),
    Mutation(
        "what a batch of heals has not put counts as put",
        ((healer, "heal_many", _heal_many_all),),
        _left_behind,
    ),
    Mutation(
        "the statements of a batch of heals have no conditions",
        ((SimulatedCopies, "is_at", lambda self, on, key, state: True),),
        lambda drawn: _batches(drawn, processes=2, repairs=6, slow=0.5),
    ),
    Mutation(
        "a batch of heals does not touch a deletion again",
        ((healer, "heal_many", _heal_many_without_touch),),
        lambda drawn: _batches(drawn, processes=1, callers=3, operations=6, verbs=_COME_AND_GO, late=0.2, repairs=2),
    ),
)
