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
from pymongo.errors import WriteConcernError

from shadow import router
from shadow.model.operation import ANY, Delete, Write
from shadow.model.order import key_digest
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Route
from shadow.model.stored import is_copyable
from shadow.model.verdict import Healing
from shadow.model.version import ABSENT, Image, Key, State, Tombstone, Version, fresh_id
from shadow.replicate import apply, follower, ledger
from shadow.replicate.apply import HealContended, agree
from shadow.replicate.follower import Follower
from shadow.replicate.journal import Due, Entry, undecided_op
from shadow.replicate.ledger import Ledger
from shadow.replicate.untangle import Untangler
from shadow.stores import memory
from shadow.stores.base import Store
from shadow.stores.memory import MemoryStore
from tests.simulation.conditions import Conditions
from tests.simulation.journal import SimulatedJournal

__all__ = ["MUTATIONS", "Mutation"]

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


def _calm(drawn: Conditions, **changes: Any) -> Conditions:
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


_UPSERTS: Final = (("upsert", 1),)
_COME_AND_GO: Final = (("upsert", 1), ("delete", 1))
_CHURN: Final = (("insert", 5), ("upsert", 3), ("delete", 6))


def _refuses_half(error: BaseException) -> Outcome:
    return Outcome.REFUSED if isinstance(error, WriteConcernError) else classify(error)


# --- the journal ------------------------------------------------------------------------------------------------

_follow = Follower.follow


def _close_first(self: Follower, write: Write, route: Route) -> asyncio.Future[bool]:
    self._journal.close(write.op_id)
    return _follow(self, write, route)


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
    return _calm(
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


def _heal_with(heal: Any) -> Patches:
    return ((follower, "heal", heal), (apply, "heal", heal))


MUTATIONS: Final = (
    Mutation(
        "the intent is closed before the secondary has the write",
        ((Follower, "follow", _close_first),),
        lambda drawn: _calm(drawn, crashes=1),
    ),
    Mutation(
        "no intent is opened",
        ((SimulatedJournal, "open", _open_nothing),),
        lambda drawn: _calm(drawn, crashes=1),
    ),
    Mutation(
        "the replay has no fence",
        ((MemoryStore, "replay", _replay_unfenced),),
        lambda drawn: _calm(drawn, processes=2, haste=0.01),
    ),
    Mutation(
        "fences order versions instead of comparing them for equality",
        ((MemoryStore, "replay", _replay_ordered),),
        lambda drawn: _calm(drawn, processes=2, haste=0.05, skewed=True),
    ),
    Mutation(
        "an insert is replayed over a tombstone",
        ((MemoryStore, "replay", _replay_over_tombstones),),
        lambda drawn: _calm(drawn, processes=2, haste=0.01, verbs=_CHURN),
    ),
    Mutation(
        "a deletion leaves no tombstone",
        ((MemoryStore, "_set", _set_without_tombstones),),
        lambda drawn: _calm(drawn, processes=2, haste=0.01, verbs=_CHURN),
    ),
    Mutation(
        "a deletion leaves no tombstone where the secondary had nothing",
        ((MemoryStore, "_set", _set_tombstones_over_documents_only),),
        lambda drawn: _calm(drawn, processes=2, callers=2, operations=2, haste=0.02, verbs=_CHURN, late=0.2),
    ),
    Mutation(
        "a deletion is not touched again",
        _heal_with(_heal_without_touch),
        lambda drawn: _calm(
            drawn, processes=1, keys=3, callers=3, operations=6, verbs=_COME_AND_GO, late=0.2, slow=0.0
        ),
    ),
    Mutation(
        "heal reads the primary first",
        _heal_with(_heal_primary_first),
        lambda drawn: _calm(drawn, processes=2, haste=0.01, repairs=4),
    ),
    Mutation(
        "the copy has no condition",
        ((MemoryStore, "put", _put_always),),
        lambda drawn: _calm(drawn, processes=2, haste=0.01, repairs=4),
    ),
    Mutation(
        "recovery takes over the intents of living, young operations",
        ((Ledger, "_adopt", _adopt_all),),
        lambda drawn: _calm(drawn, processes=2, haste=0.3, slow=0.5, crashes=1),
    ),
    Mutation(
        "the journal goes by a clock that somebody sets",
        ((Ledger, "now", _by_the_wall), (Ledger, "at", _by_the_wall)),
        lambda drawn: _calm(drawn, processes=2, haste=0.3, slow=0.5, late=0.2, crashes=1, steps=3),
    ),
    Mutation(
        "a settlement ignores what was deferred since",
        ((Ledger, "settle", _settle_any),),
        lambda drawn: _calm(drawn, processes=1, keys=3, callers=6, haste=0.1, narrow=True, verbs=_UPSERTS),
    ),
    Mutation(
        "what the primary holds and nobody can read is taken for deleted",
        _heal_with(_heal_unreadable_as_gone),
        lambda drawn: _calm(drawn, processes=2, haste=0.01, repairs=4, unreadable=0.3),
    ),
    Mutation(
        "what cannot be read at the same version counts as equal",
        ((apply, "agree", _agree_by_version),),
        lambda drawn: _calm(drawn, processes=1, wrong=0.3, unreadable=0.3),
    ),
    Mutation(
        "an unknown outcome is settled at once",
        ((Ledger, "defer", _defer_known),),
        lambda drawn: _calm(drawn, late=0.2),
    ),
    Mutation(
        "no intent is opened before the document is found",
        ((SimulatedJournal, "open", _open_decided_only),),
        lambda drawn: _calm(drawn, crashes=1, verbs=_BY_FILTER),
    ),
    Mutation(
        "recovery does not ask which document an operation has found",
        ((follower, "decided", _decided_never),),
        lambda drawn: _calm(drawn, crashes=1, verbs=_BY_FILTER),
    ),
    Mutation(
        "the id of the operation that found a document is not kept with it",
        ((MemoryStore, "chosen", _chosen_never),),
        lambda drawn: _calm(drawn, unanswered=0.2, verbs=_BY_FILTER),
    ),
    Mutation(
        "an operation without an answer that had no document yet is taken for undone",
        ((Ledger, "defer", _defer_decided),),
        lambda drawn: _calm(drawn, late=0.2, verbs=_BY_FILTER),
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
        ((router, "classify", _refuses_half),),
        lambda drawn: _calm(drawn, half=0.2),
    ),
)
