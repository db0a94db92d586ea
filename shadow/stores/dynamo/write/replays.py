"""Replays and copies in batches: PartiQL statements, 25 in a request, each on the condition that its item is as it was
read.

An item that is there is changed by UPDATE, to exactly the attributes that a put would leave; a key that is free is
filled by INSERT. The condition of an UPDATE is the version and the operation that wrote it last: every write of shadow
changes one of them. Unlike a put, a statement cannot be made idempotent by what DynamoDB returns with a failure, so
whoever sent it replays alone what was not done.

Long documents, unique constraints (which need transactions) and names that a statement would have to escape are not
for a batch. It needs the right `PartiQLUpdate`; without it, or on a server that cannot parse these statements, all is
replayed alone, and a batch is tried again after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from pymongo.errors import PyMongoError

from shadow.errors import ShadowError
from shadow.model.operation import Delete, Write
from shadow.model.outcome import Outcome, classify
from shadow.model.version import ABSENT, Image, Tombstone, fresh_id
from shadow.mongoql import cached_filter
from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.client.limits import MOST_KEYS, MOST_STATEMENTS, STATEMENT_TEXT
from shadow.stores.dynamo.context import OnLacking
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.items.codec import Item
from shadow.stores.dynamo.query.reads import CollectionTable, Reader
from shadow.stores.dynamo.write.batches import PLAIN_NAME, execute, insertion
from shadow.stores.dynamo.write.changes import computation, names_only_key
from shadow.stores.dynamo.write.inserts import single_item
from shadow.stores.replays import Put, Step, copy_together, replay_together

__all__ = ["Replays"]

_AT_ONCE: Final = MOST_KEYS
"""Replays of one batch: as many keys as one request reads."""
_IN_ONE_GO: Final = 8
"""Writes computed without yielding to the event loop."""
_REST: Final = 60.0
"""Seconds without batches after one of which the server has refused every statement."""
_DENIED: Final = "AccessDenied"
_REFUSED: Final = frozenset({_DENIED, "ValidationError"})
"""The codes of statements that this server will not do next time either."""
_UNAUTHORIZED: Final = 13
_STATED: Final = frozenset({"b", "r", "o"})
_OTHERWISE: Final = frozenset({"t", "z", "g", "n", "k"})
"""The parts of a stamp of a tombstone, of a document that is packed, and of an item that is none."""

Statement = dict[str, Any]


class Replays:
    """The batches of one store."""

    def __init__(self, gateway: Gateway, reader: Reader, on_lacking: OnLacking) -> None:
        self._gateway = gateway
        self._reader = reader
        self._on_lacking = on_lacking
        self._resting: dict[str, float] = {}
        self._told: set[str] = set()

    def at_once(self, table: CollectionTable) -> int:
        """How many replays one batch may have; 0: none."""
        if table.spec.unique or self._resting.get(table.name, 0.0) > time.monotonic():
            return 0
        return _AT_ONCE

    async def replay(self, table: CollectionTable, writes: Sequence[Write]) -> list[Image | None]:
        """See `stores.replays`. Raises only where the outcome is unknown."""
        batch = _Batch(self._gateway, self._reader, table)
        try:
            made = await replay_together(batch, writes)
        except PyMongoError as error:
            if classify(error) is Outcome.UNKNOWN:
                raise
            return [None] * len(writes)
        self._learn(batch)
        return made

    async def copy(self, table: CollectionTable, puts: Sequence[Put]) -> list[bool]:
        """See `stores.replays`. Raises only where the outcome is unknown."""
        batch = _Copies(self._gateway, self._reader, table)
        try:
            made = await copy_together(batch, puts)
        except PyMongoError as error:
            if classify(error) is Outcome.UNKNOWN:
                raise
            return [False] * len(puts)
        self._learn(batch)
        return made

    def _learn(self, batch: _Requests) -> None:
        """Rests where the server has refused every statement, and says once that it lacks the right."""
        faults, table = batch.faults, batch.table
        if not faults or not faults <= _REFUSED:
            return
        denied = _DENIED in faults
        self._resting[table.name] = time.monotonic() + _REST
        if denied and table.name not in self._told:
            self._told.add(table.name)
            self._on_lacking(table.name, "without the right dynamodb:PartiQLUpdate, writes are replayed one by one")


@dataclass(slots=True)
class _Requests:
    """The requests of one batch on one table."""

    gateway: Gateway
    reader: Reader
    table: CollectionTable
    faults: set[str] = field(default_factory=set)
    """The codes with which statements failed; empty if one was done."""

    def statement(self, item: Item | None, wanted: Item) -> Statement | None:
        """What makes `wanted` of an item, or of a free key, on the condition that it is still so; None if no statement
        has its names."""
        if item is None:
            return insertion(self.table.name, wanted)
        return _change(self.table.name, self.table.codec.reserved, item, wanted)

    async def send(self, statements: Sequence[Statement]) -> Sequence[bool]:
        chunks = [statements[i : i + MOST_STATEMENTS] for i in range(0, len(statements), MOST_STATEMENTS)]
        requests = (execute(self.gateway, self.table.name, chunk) for chunk in chunks)
        # All have ended when one of them raises: none may still be writing when the caller goes on.
        answers = await asyncio.gather(*requests, return_exceptions=True)
        done: list[bool] = []
        for chunk, responses in zip(chunks, answers, strict=True):
            codes = _codes(responses, len(chunk))
            done += [code is None for code in codes]
            self.faults.update(code for code in codes if code is not None)
        if any(done):
            self.faults.clear()
        return done


@dataclass(slots=True)
class _Copies(_Requests):
    """`stores.replays.Copies` on one table."""

    async def steps(self, puts: Mapping[int, Put]) -> Mapping[int, Step[Statement]]:
        texts = {place: keys.key_text(key) for place, (key, _, _) in puts.items()}
        heads = await self.reader.get_many(self.table, list(texts.values()))
        made: dict[int, Step[Statement]] = {}
        for number, (place, put) in enumerate(puts.items()):
            if number and number % _IN_ONE_GO == 0:
                await asyncio.sleep(0)
            # Whatever an image raises here, it raises again where it is put alone.
            with contextlib.suppress(PyMongoError, ShadowError, ArithmeticError, LookupError, TypeError, ValueError):
                step = self._step(texts[place], put, heads.get(texts[place]))
                if step is not None:
                    made[place] = step
        return made

    def _step(self, text: str, put: Put, item: Item | None) -> Step[Statement] | None:
        _, image, expected = put
        codec = self.table.codec
        if item is not None and not _is_plain(item, codec.reserved):
            return None
        if (ABSENT if item is None else codec.state(item)) != expected:
            return None
        wanted = single_item(self.table, text, image.state, image.document, fresh_id())
        statement = None if wanted is None else self.statement(item, wanted)
        return None if statement is None else Step(statement, image)


@dataclass(slots=True)
class _Batch(_Requests):
    """`stores.replays.Statements` on one table."""

    async def steps(self, writes: Mapping[int, Write]) -> Mapping[int, Step[Statement]]:
        texts = {place: keys.key_text(write.key) for place, write in writes.items()}
        asked = [texts[place] for place, write in writes.items() if not _is_insert(write)]
        heads = await self.reader.get_many(self.table, asked) if asked else {}
        made: dict[int, Step[Statement]] = {}
        for number, (place, write) in enumerate(writes.items()):
            if number and number % _IN_ONE_GO == 0:
                await asyncio.sleep(0)
            text = texts[place]
            # Whatever a write raises here, it raises again where it is replayed alone.
            with contextlib.suppress(PyMongoError, ShadowError, ArithmeticError, LookupError, TypeError, ValueError):
                step = self._step(text, write, None if _is_insert(write) else heads.get(text))
                if step is not None:
                    made[place] = step
        return made

    def _step(self, text: str, write: Write, item: Item | None) -> Step[Statement] | None:
        before = Image(ABSENT)
        if item is not None:
            if not _is_plain(item, self.table.codec.reserved):
                return None
            before = self.table.codec.decode(item)
        after = self._after(write, before)
        if after is None:
            return None
        wanted = single_item(self.table, text, after.state, after.document, write.op_id)
        if wanted is None:
            return None
        statement = self.statement(item, wanted)
        return None if statement is None else Step(statement, after)

    def _after(self, write: Write, before: Image) -> Image | None:
        """The image after the write; None where its fence does not hold, or the store cannot tell."""
        change = write.change
        if before.present and type(before.document) is not dict:
            return None
        if isinstance(change, Delete):
            if before.state not in (write.pre, ABSENT):
                return None
            document = before.document
            if document is not None and not names_only_key(change.filter):
                matches = cached_filter(change.filter).matches(document)
                return Image(Tombstone(change.tombstone)) if matches else None
            return Image(Tombstone(change.tombstone))
        if before.state != write.pre:
            return None
        return computation(self.table.namespace, change)(before)


def _codes(responses: list[Item] | BaseException, count: int) -> list[str | None]:
    """The code of the error of each statement; None: it is done. Raises where the outcome is unknown."""
    if isinstance(responses, BaseException):
        if not isinstance(responses, PyMongoError) or classify(responses) is Outcome.UNKNOWN:
            raise responses
        return [_DENIED if getattr(responses, "code", None) == _UNAUTHORIZED else ""] * count
    if len(responses) != count:
        return [""] * count
    return [str(each["Error"].get("Code", "")) if "Error" in each else None for each in responses]


def _is_insert(write: Write) -> bool:
    """Whether the key has to be free, which the statement itself finds out."""
    return write.pre == ABSENT and not isinstance(write.change, Delete)


def _is_plain(item: Item, reserved: str) -> bool:
    """Whether the item is a document in attributes of its own, at a version that a condition can name."""
    stamp = item.get(reserved, {}).get("M", {})
    return _STATED.issubset(stamp) and _OTHERWISE.isdisjoint(stamp)


def _change(table: str, reserved: str, item: Item, wanted: Item) -> Statement | None:
    """The UPDATE from one item to the other; None if no statement has these names."""
    sets = tuple(name for name, value in wanted.items() if name != "_id" and item.get(name) != value)
    removed = tuple(name for name in item if name not in wanted)
    text = _text(table, reserved, sets, removed)
    if not text:
        return None
    stamp = item[reserved]["M"]
    return {
        "Statement": text,
        "Parameters": [*(wanted[name] for name in sets), item["_id"], stamp["b"], stamp["r"], stamp["o"]],
    }


@lru_cache(maxsize=1024)
def _text(table: str, reserved: str, sets: tuple[str, ...], removed: tuple[str, ...]) -> str:
    """The statement that sets and removes these attributes; "" if there is none."""
    if not all(map(PLAIN_NAME.fullmatch, (reserved, *sets, *removed))):
        return ""
    steps = [*(f'SET "{name}"=?' for name in sets), *(f'REMOVE "{name}"' for name in removed)]
    stamp = (f'"{reserved}"."{part}"=?' for part in ("b", "r", "o"))
    text = f'UPDATE "{table}" {" ".join(steps)} WHERE ' + " AND ".join(['"_id"=?', *stamp])
    return text if len(text) <= STATEMENT_TEXT else ""
