"""How the secondary catches up: replay a write, and heal a key. Everything that is ever repaired, `heal` repairs."""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

from pymongo.errors import DuplicateKeyError

from shadow.compare.equality import agree
from shadow.journal.base import undecided_op
from shadow.model.operation import ANY, Change, Delete, Insert, Write, mongo_only
from shadow.model.phase import Role
from shadow.model.stored import check_copyable, is_copyable
from shadow.model.verdict import Healing
from shadow.model.version import Image, Key, State, Tombstone, Unknown, Version, fresh_id
from shadow.mongoql.values.collation import is_collated
from shadow.stores.base import CopyingMany, ReplayingMany, Store
from shadow.traces.spans import NO_TRACES, Traces

__all__ = [
    "HealContended",
    "Replayed",
    "Untangles",
    "by_result",
    "decided",
    "heal",
    "heal_many",
    "replay",
    "replay_fenced",
    "replay_many",
]


_REFUSALS: Final = 4
"""Duplicate key errors after which one heal raises them: whatever could be repaired along with it is repaired by then,
and what is left would keep it from ending."""


class Replayed(enum.Enum):
    EQUAL = enum.auto()
    """The secondary acknowledged the write and has what the primary has."""
    FENCED = enum.auto()
    """The secondary was not in the state that the primary had before the write; nothing changed."""
    DIFFERENT = enum.auto()
    """The secondary acknowledged the write with another result: a mismatch of the write kind."""
    UNMATCHED = enum.auto()
    """The secondary was in the state that the primary had, and yet the write matched nothing there: also one."""


class HealContended(Exception):
    """The secondary changed during every attempt. The key stays deferred; whoever changed it heals it as well."""


class Untangles(Protocol):
    """See `writes.untangle`."""

    async def untangle(
        self, primary: Store, secondary: Store, collection: str, key: Key, refusal: DuplicateKeyError
    ) -> bool:
        """Repairs a document together with those that block it. False: something changed meanwhile. Raises `refusal` if
        nothing that blocks it can be repaired."""


async def replay(secondary: Store, write: Write) -> tuple[Replayed, Image | None]:
    """The same operation on the secondary, fenced by the version before it; the image that it came to. One that only
    MongoDB can make is replicated by its result, on the same condition."""
    if by_result(write.change):
        return await _copy_result(secondary, write)
    image = await secondary.replay(write.collection, write)
    if image is None:
        return Replayed.FENCED, None
    return (Replayed.EQUAL if _as_meant(write, image) else Replayed.DIFFERENT), image


async def replay_many(secondary: ReplayingMany, writes: Sequence[Write]) -> list[bool]:
    """For each write of one collection, whether the secondary now has what the primary has. What has not, and what
    has another image, is to be replayed alone: that tells why."""
    images = await secondary.replay_many(writes[0].collection, writes)
    return [image is not None and _as_meant(write, image) for write, image in zip(writes, images, strict=True)]


async def replay_fenced(secondary: Store, write: Write) -> tuple[Replayed, Image | None]:
    """What a replay that changed nothing means: the fence did not hold, or, where the secondary is at the version
    before the write, the filter matches nothing there. That is asked twice: a copy may have come in between."""
    if by_result(write.change):
        return Replayed.FENCED, None
    seen = await secondary.image(write.collection, write.key)
    if not isinstance(write.pre, Version) or seen.state != write.pre:
        return Replayed.FENCED, None
    result, image = await replay(secondary, write)
    if result is not Replayed.FENCED:
        return result, image
    seen = await secondary.image(write.collection, write.key)
    return (Replayed.UNMATCHED, seen) if seen.state == write.pre else (Replayed.FENCED, None)


def by_result(change: Change) -> bool:
    """Whether a write is replicated by its result: the other store cannot check its conditions as the primary did."""
    return mongo_only(change) is not None or (not isinstance(change, Insert) and is_collated(change.filter))


async def _copy_result(secondary: Store, write: Write) -> tuple[Replayed, Image | None]:
    """Copies the image after the write, if the secondary is at the version before it. Both must be known."""
    change, image = write.change, write.post
    if not image.present and isinstance(change, Delete):
        image = Image(Tombstone(change.tombstone))
    if (
        isinstance(write.pre, Unknown)
        or (not image.present and not isinstance(change, Delete))
        or not is_copyable(image)
    ):
        return Replayed.FENCED, None
    done = await secondary.put(write.collection, write.key, image, write.pre)
    return (Replayed.EQUAL, image) if done else (Replayed.FENCED, None)


def _as_meant(write: Write, image: Image) -> bool:
    if not write.post.present:
        return isinstance(image.state, Tombstone)
    return agree(write.post, image)


async def decided(stores: Iterable[Store], collection: str, key: Key) -> list[Key]:
    """The key itself; for an undecided one the key of the document that its operation has changed, if there is any."""
    op_id = undecided_op(key)
    if op_id is None:
        return [key]
    # Every store: the operation may have been made while the other one was primary.
    found = [await store.chosen(collection, op_id) for store in stores]
    return [each for each in found if each is not ANY]


async def heal(
    primary: Store,
    secondary: Store,
    collection: str,
    key: Key,
    *,
    attempts: int = 12,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    untangles: Untangles | None = None,
    traces: Traces = NO_TRACES,
) -> Healing:
    """Makes the secondary hold what the primary holds under `key`, whatever happened before.

    The secondary is read first: what the primary shows after that is at least as new as anything that could make the
    condition hold. A deletion always writes a fresh tombstone, even over one that stands or over nothing, because the
    touch is what makes a stale copy, still under way elsewhere, fail its condition.

    With `untangles`, documents that block it by a unique value and differ from the primary's are repaired along with
    it.

    Where the condition cannot tell two contents apart (out-of-band writes leave the version as it is), both are read
    once more after the copy: another repair may have copied what is newer just before.

    What the secondary holds may be unreadable, for the copy depends on its stamp alone. What the primary holds may
    not: that is neither copied nor taken for a deletion.

    Raises `HealContended`, `UnreadableDocument`, and whatever the stores raise.
    """
    refusals, result = 0, Healing.EQUAL
    for attempt in range(attempts):
        with traces.request(secondary.name, Role.SECONDARY):
            seen = await secondary.image(collection, key)
        with traces.request(primary.name):
            wanted = await primary.image(collection, key)
        check_copyable(wanted)
        if wanted.document is not None and agree(wanted, seen):
            return result
        if isinstance(wanted.state, Tombstone) and wanted.state.passing:
            # It was set aside while this store was the secondary. Only the other store may still have it.
            raise HealContended(f"{collection}: the primary has set the document of one key aside")
        image = wanted if wanted.present else Image(Tombstone(fresh_id()))
        try:
            with traces.request(secondary.name, Role.SECONDARY):
                done = await secondary.put(collection, key, image, seen.state)
        except DuplicateKeyError as refusal:
            refusals += 1
            if untangles is None or refusals == _REFUSALS:
                raise
            done = await untangles.untangle(primary, secondary, collection, key, refusal)
        if done and not image.present:
            return Healing.TOMBSTONED
        if done:
            result = Healing.COPIED
            if _is_of_one_content(seen.state, image.state):
                return result
            continue
        await pause(random.uniform(0, min(0.5, 0.005 * 2**attempt)))
    raise HealContended(f"{collection}: the secondary changed under {attempts} attempts to heal one key")


async def heal_many(
    primary: CopyingMany,
    secondary: CopyingMany,
    collection: str,
    keys: Sequence[Key],
    *,
    traces: Traces = NO_TRACES,
) -> list[Healing | None]:
    """One attempt of a repair for many keys, in the same order: the secondary is read first, then the primary, and then
    each key is put on a condition of its own. None: the key was not made equal here, and has to be repaired alone,
    which finds out why.

    What needs more than one attempt is left to that: documents that cannot be copied, contents that the condition
    cannot distinguish, whatever has changed meanwhile. Raises what the stores raise; some keys may be put then.
    """
    with traces.request(secondary.name, Role.SECONDARY):
        seen = await secondary.lasting_images(collection, keys)
    with traces.request(primary.name):
        wanted = await primary.lasting_images(collection, keys)
    results: list[Healing | None] = [None] * len(keys)
    puts: dict[int, tuple[Key, Image, State]] = {}
    for place, (key, here, there) in enumerate(zip(keys, wanted, seen, strict=True)):
        if not is_copyable(here):
            continue
        if here.document is not None and agree(here, there):
            results[place] = Healing.EQUAL
        elif (image := _copied(here)) is not None and _can_tell(there.state, image.state):
            puts[place] = key, image, there.state
    if puts:
        with traces.request(secondary.name, Role.SECONDARY):
            made = await secondary.copy_many(collection, list(puts.values()))
        for place, done in zip(puts, made, strict=True):
            if done:
                results[place] = Healing.COPIED if puts[place][1].present else Healing.TOMBSTONED
    return results


def _copied(wanted: Image) -> Image | None:
    """What the secondary is to hold. None where a repair would have to wait."""
    if isinstance(wanted.state, Tombstone) and wanted.state.passing:
        return None
    return wanted if wanted.present else Image(Tombstone(fresh_id()))


def _can_tell(seen: State, copied: State) -> bool:
    """Whether a batch can put over what was seen, and know that no more is to be done."""
    return not isinstance(seen, Unknown) and _is_of_one_content(seen, copied)


def _is_of_one_content(seen: State, copied: State) -> bool:
    """Whether the condition of a copy, to be at `seen`, can never hold again after it."""
    return seen != copied and not (isinstance(seen, Version) and not seen.born)
