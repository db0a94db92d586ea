"""Documents of the secondary that block each other by a unique value, repaired together.

While the secondary is down, unique values change hands: A gives m1 to B, B gives m2 to A. Copied one by one, each of
them is refused because of the other. So where a copy is refused for a unique value, the document that holds the value
in the secondary is found, then the one that holds what that document is to get, and so on; all of them that differ from
the primary are repaired along with it.

    together     a store that can (DynamoDB) changes all of them in one transaction
    in passing   else each is put in its turn, and one that blocks another is set aside first: its key gets a
                 *passing* tombstone, which holds no value, until its own turn comes

A document that has expired gives way for good. As the primary, DynamoDB lets another document have its values before it
is deleted there, so the secondary, which may hold them once, gets a tombstone for it: no read shows it on either side.

Setting aside is safe at every moment. Each of these keys has an intent of its own before any of them is touched, so a
process that dies leaves each to be repaired; each put is conditional on the state that was seen; and a tombstone, as
always, makes every stale copy and replay that is still under way fail its condition.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from pymongo.errors import DuplicateKeyError

from shadow.compare.equality import agree
from shadow.host.failpoints import Failpoints, Point, no_failpoint
from shadow.model.order import key_digest
from shadow.model.schema import ExpirySpec
from shadow.model.verdict import Deferral
from shadow.model.version import Image, Key, Tombstone, fresh_id
from shadow.mongoql.expiry import has_expired
from shadow.stores.base import Store
from shadow.writes.intents import Intents

__all__ = ["Untangler"]

_MOST: Final = 24
"""Documents that are repaired together. Those further along in a longer chain are set aside and repaired later."""


class Untangler:
    """One for each event loop."""

    def __init__(
        self,
        intents: Intents,
        reach: Failpoints = no_failpoint,
        expiry: Callable[[str], ExpirySpec | None] = lambda collection: None,
    ) -> None:
        """`expiry`: by which rule the documents of a collection expire."""
        self._intents = intents
        self._reach = reach
        self._expiry = expiry
        # Two in one process would only collide.
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def untangle(
        self, primary: Store, secondary: Store, collection: str, key: Key, refusal: DuplicateKeyError
    ) -> bool:
        """Repairs the document under `key`, with those that block it. False: something changed meanwhile.

        Raises `refusal` if no document that blocks it differs from the primary's, for then the primary holds a value
        twice that the secondary can hold only once; `JournalError`, and whatever the stores raise.
        """
        expiry = self._expiry(collection)
        async with self._turns[collection]:
            try:
                group = await _group(primary, secondary, collection, key, expiry)
            except _Moved:
                return False
            own = group[key_digest(key)]
            if len(group) == 1:
                return await _alone(primary, secondary, collection, own, refusal, expiry)
            async with self._noted(collection, [each.key for each in group.values()]) as left:
                with contextlib.suppress(_Moved):
                    await self._put_right(secondary, collection, group)
                left.difference_update(digest for digest, each in group.items() if each.done)
            return own.done

    @asynccontextmanager
    async def _noted(self, collection: str, keys: Sequence[Key]) -> AsyncIterator[set[str]]:
        """Intents for all keys that may be touched. Yields their digests; what is left of these when the block ends is
        deferred. The key that is repaired has one more: not every heal was asked for by the journal."""
        opened = await self._intents.open_durably(collection, keys)
        left = {key_digest(key) for key in keys}
        try:
            yield left
        finally:
            for key, op_id in zip(keys, opened.op_ids, strict=True):
                if key_digest(key) in left:
                    self._intents.defer(collection, op_id, Deferral.SECONDARY_ERROR)
                else:
                    self._intents.close(op_id)

    async def _put_right(self, secondary: Store, collection: str, group: dict[str, _Member]) -> None:
        """Raises `_Moved`, and what the secondary raises."""
        counted = [each for each in group.values() if each.counted]
        together = None
        # A value that is held outside of the group, at the end of a long chain, is set aside in passing.
        with contextlib.suppress(DuplicateKeyError):
            puts = [(each.key, each.image, each.seen.state) for each in counted]
            together = await secondary.put_all(collection, puts)
        if together is False:
            raise _Moved
        if together:
            for each in counted:
                each.done = True
            return
        # Those that were found last hold what is in the way of the others.
        for each in reversed(counted):
            await self._put_in_turn(secondary, collection, group, each)

    async def _put_in_turn(self, secondary: Store, collection: str, group: dict[str, _Member], member: _Member) -> None:
        for _ in range(len(group) + 1):
            try:
                member.done = await secondary.put(collection, member.key, member.image, member.seen.state)
            except DuplicateKeyError:
                await self._set_aside(secondary, collection, group, member)
                continue
            if not member.done:
                raise _Moved
            return
        raise _Moved

    async def _set_aside(self, secondary: Store, collection: str, group: dict[str, _Member], member: _Member) -> None:
        """Sets aside whatever blocks `member`."""
        assert member.image.document is not None
        in_the_way = [
            group.get(key_digest(key)) for key in await secondary.holders(collection, member.key, member.image.document)
        ]
        movable = [each for each in in_the_way if each is not None and not each.done]
        if len(movable) < len(in_the_way) or not movable:
            raise _Moved
        for each in movable:
            aside = Image(Tombstone.in_passing(fresh_id()) if each.image.present else Tombstone(fresh_id()))
            if not await secondary.put(collection, each.key, aside, each.seen.state):
                raise _Moved
            self._reach(Point.AFTER_ASIDE)
            each.seen = aside
            # Where the primary has no document, nothing else is to be done.
            each.done = not each.image.present


@dataclass(slots=True)
class _Member:
    """A document to repair: what the secondary has, and the image that it has to get."""

    key: Key
    seen: Image
    image: Image
    counted: bool = True
    """Whether it is repaired here, and not only set aside if necessary."""
    done: bool = False


class _Moved(Exception):
    """Something has changed meanwhile."""


async def _group(
    primary: Store, secondary: Store, collection: str, key: Key, expiry: ExpirySpec | None
) -> dict[str, _Member]:
    """The document under `key`, and all that differ or have expired, and that block, by what they hold in the
    secondary, one of the group; by the digests of their keys."""
    own = await _member(primary, secondary, collection, key)
    if own is None:
        raise _Moved
    group = {key_digest(key): own}
    waiting = [key]
    while waiting:
        member = group[key_digest(waiting.pop(0))]
        if member.image.document is None:
            continue
        for other in await secondary.holders(collection, member.key, member.image.document):
            digest = key_digest(other)
            if digest in group:
                continue
            found = await _member(primary, secondary, collection, other)
            if found is not None and has_expired(expiry, found.image.document):
                found.image = Image(Tombstone(fresh_id()))
            if found is None or (found.image.document is not None and agree(found.image, found.seen)):
                continue
            found.counted = len(group) < _MOST
            group[digest] = found
            if found.counted:
                waiting.append(other)
    return group


async def _member(primary: Store, secondary: Store, collection: str, key: Key) -> _Member | None:
    """None: the primary itself set the document aside, while it was the secondary, so it cannot say what is right."""
    seen = await secondary.image(collection, key)
    wanted = await primary.image(collection, key)
    if isinstance(wanted.state, Tombstone) and wanted.state.passing:
        return None
    return _Member(key, seen, wanted if wanted.present else Image(Tombstone(fresh_id())))


async def _alone(
    primary: Store,
    secondary: Store,
    collection: str,
    own: _Member,
    refusal: DuplicateKeyError,
    expiry: ExpirySpec | None,
) -> bool:
    """Nothing that could be repaired blocks it, or nothing any more."""
    with contextlib.suppress(DuplicateKeyError):
        together = await secondary.put_all(collection, [(own.key, own.image, own.seen.state)])
        if together is not None:
            return together
    now = await primary.image(collection, own.key)
    document = now.document
    if now.state != own.image.state or document is None or not await secondary.holders(collection, own.key, document):
        return False
    if has_expired(expiry, document):
        return await secondary.put(collection, own.key, Image(Tombstone(fresh_id())), own.seen.state)
    raise refusal
