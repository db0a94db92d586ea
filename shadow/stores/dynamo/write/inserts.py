"""Many inserts in few requests, in order or not.

    unordered    PartiQL batches, each statement of which fails alone; inserts that they do not make are sent singly
    ordered      transactions of up to 100 documents: all documents of one are inserted, or none, so nothing after a
                 rejected document is ever written. A rejected transaction names the document: those before it are sent
                 again, that one is sent alone, which gives the exact error, and the rest is not attempted

A transaction costs twice the write units of its items, and takes one round trip instead of up to a hundred; the setting
`transactional_inserts` chooses. Batches after a check of the keys would cost less, but if another writer inserted a
duplicate in between, the documents after it would be written nevertheless.

No two actions of a transaction may be on one item; `limits` has the maximum number of actions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeAlias

from bson.errors import BSONError
from pymongo.errors import DocumentTooLarge, WriteError

from shadow.model.operation import Applied, Insert
from shadow.model.outcome import Outcome, classify
from shadow.model.schema import CollectionSpec
from shadow.model.version import ABSENT, Document, Image, Key, State, Version
from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.client.limits import MOST_ACTIONS, TRANSACTION
from shadow.stores.dynamo.items import keys, unique
from shadow.stores.dynamo.items.codec import Item, item_size
from shadow.stores.dynamo.items.unique import UniqueClaim
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.write.batches import insert_absent
from shadow.stores.dynamo.write.writes import Addition, Writer

__all__ = ["Inserter", "Pair", "Result", "single_item"]

Pair: TypeAlias = tuple[Insert, str]
"""An insert and the id of its operation."""
Result: TypeAlias = Applied | Exception | None
Alone: TypeAlias = Callable[[Insert, str], Awaitable[Applied | None]]
"""Makes one insert by itself; raises its error."""

_WORTH_A_BATCH: Final = 2
_CANNOT_ENCODE: Final = (BSONError, DocumentTooLarge, OverflowError, TypeError, ValueError)


class Inserter:
    def __init__(self, gateway: Gateway, writer: Writer, *, transactional: bool) -> None:
        self._gateway = gateway
        self._writer = writer
        self._transactional = transactional

    async def unordered(self, table: CollectionTable, pairs: Sequence[Pair], alone: Alone) -> list[Result]:
        """Attempts every insert; of inserts with the same key or unique value, the first is sent first."""
        images = [_image(insert) for insert, _ in pairs]
        done = await self.put_absent(table, [insert.key for insert, _ in pairs], images, [op_id for _, op_id in pairs])
        results: list[Result] = [Applied(Image(ABSENT), image) for image in images]
        left = [place for place, one in enumerate(done) if not one]
        for wave in _waves(left, lambda place: _wanted(table.spec, pairs[place][0])):
            for place, result in zip(wave, await asyncio.gather(*(_tried(alone, pairs[p]) for p in wave)), strict=True):
                results[place] = result
        return results

    async def put_absent(
        self, table: CollectionTable, keys_: Sequence[Key], images: Sequence[Image], op_ids: Sequence[str]
    ) -> list[bool]:
        """Puts, in batches, the images whose keys are free. False: not put, or unknown. Of several images with one key,
        only the first may be in a batch: a later one must not take the key if the first cannot be put."""
        done = [False] * len(images)
        if table.spec.unique or len(images) < _WORTH_A_BATCH:
            return done
        items: dict[int, Item] = {}
        seen: set[str] = set()
        for place, (key, image, op_id) in enumerate(zip(keys_, images, op_ids, strict=True)):
            text = keys.key_text(key)
            if text not in seen:
                item = single_item(table, text, image.state, image.document, op_id)
                if item is not None:
                    items[place] = item
            seen.add(text)
        # Documents that a failed request did insert are recognised one by one when they are written one by one.
        inserted = await insert_absent(self._gateway, table.name, list(items.values()))
        for place, one in zip(items, inserted, strict=True):
            done[place] = one
        return done

    async def ordered(self, table: CollectionTable, pairs: Sequence[Pair], alone: Alone) -> list[Result]:
        """Stops at the first insert that fails; None for those after it."""
        results: list[Result] = [None] * len(pairs)
        apart: set[int] = set() if self._transactional else set(range(len(pairs)))
        place = 0
        while place < len(pairs):
            run = _run(table, pairs, place, apart)
            if len(run) < _WORTH_A_BATCH:
                results[place] = outcome = await _tried(alone, pairs[place])
                if isinstance(outcome, Exception):
                    break
                place += 1
                continue
            refused = await self._together(table, run)
            if isinstance(refused, Exception):
                # The outcome of the request is unknown, so it is for each of its documents: unknown, not unattempted.
                results[place : place + len(run)] = [refused] * len(run)
                break
            if refused:
                apart.update(place + each for each in refused)
                continue
            for insert, _ in pairs[place : place + len(run)]:
                results[place] = Applied(Image(ABSENT), _image(insert))
                place += 1
        return results

    async def _together(self, table: CollectionTable, run: Sequence[Addition]) -> Sequence[int] | Exception:
        """No positions: all inserted. Some: none inserted, and these must be sent alone. An exception: unknown."""
        try:
            return await self._writer.add_all(table, run)
        except Exception as error:
            return error if classify(error) is Outcome.UNKNOWN else range(len(run))


def _image(insert: Insert) -> Image:
    return Image(Version(insert.born, 1), insert.document)


def single_item(table: CollectionTable, text: str, state: State, document: Document | None, op_id: str) -> Item | None:
    """The item of an image; None if it has to be written by itself: it cannot be stored, or not as one item."""
    with contextlib.suppress(*_CANNOT_ENCODE):
        if document is not None and table.codec.is_large(document):
            return None
        encoded = table.codec.encode(text, state, document, op_id)
        return None if encoded.parts else encoded.item
    return None


def _run(table: CollectionTable, pairs: Sequence[Pair], start: int, apart: set[int]) -> list[Addition]:
    """The inserts from `start` on that fit into one transaction. Empty: the first must be sent alone."""
    run: list[Addition] = []
    taken: set[str] = set()
    actions = size = 0
    for place in range(start, len(pairs)):
        made = None if place in apart else _addition(table, *pairs[place])
        if made is None or taken & made.names:
            break
        actions, size = actions + len(made.names), size + item_size(made.item)
        if actions > MOST_ACTIONS or size > TRANSACTION:
            break
        taken |= made.names
        run.append(made)
    return run


def _addition(table: CollectionTable, insert: Insert, op_id: str) -> Addition | None:
    text = keys.key_text(insert.key)
    item = single_item(table, text, Version(insert.born, 1), insert.document, op_id)
    claims = _claims(table.spec, insert.document)
    return None if item is None or claims is None else Addition(text, item, claims)


async def _tried(alone: Alone, pair: Pair) -> Result:
    try:
        return await alone(*pair)
    except Exception as error:
        return error


def _wanted(spec: CollectionSpec, insert: Insert) -> set[str]:
    """What an insert claims in the table: its key and its unique values."""
    return {keys.key_text(insert.key), *(_claims(spec, insert.document) or ())}


def _claims(spec: CollectionSpec, document: Document) -> dict[str, UniqueClaim] | None:
    """None for a document that a unique index rejects: it is written by itself, so that only it is rejected."""
    try:
        return unique.claims(spec, document)
    except WriteError:
        return None


def _waves(places: Iterable[int], wanted: Callable[[int], set[str]]) -> list[list[int]]:
    """Splits the positions into waves: of inserts with the same claim, the first is sent first."""
    waves: list[list[int]] = []
    last: dict[str, int] = {}
    for place in places:
        wants = wanted(place)
        number = max((last[one] + 1 for one in wants if one in last), default=0)
        last.update(dict.fromkeys(wants, number))
        if number == len(waves):
            waves.append([])
        waves[number].append(place)
    return waves
