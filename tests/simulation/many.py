"""One command for many documents, as the store called MongoDB makes it: see `shadow.stores.many`, whose steps are the
real ones."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shadow.model.operation import Applied, Change, Delete, Update
from shadow.model.order import key_digest
from shadow.model.version import ABSENT, Image
from shadow.mongoql import cached_filter
from shadow.stores.many import Found, Mark
from shadow.stores.mongo.statements import applied_after, is_plain
from tests.simulation.replicas import Member

if TYPE_CHECKING:
    from tests.simulation.stores import Client

__all__ = ["SimulatedMany"]


@dataclass(frozen=True)
class SimulatedMany:
    client: Client
    collection: str
    changes: Sequence[Update | Delete]
    op_ids: Sequence[str]
    _read: dict[int, Image] = field(default_factory=dict)
    _begun: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def op_id(self) -> str:
        return self.op_ids[0]

    @property
    def deletes(self) -> bool:
        return isinstance(self.changes[0], Delete)

    async def look(self, places: Sequence[int]) -> Found:
        def look(on: Member) -> list[Image]:
            return [copy.deepcopy(on.memory._image(self.collection, self.changes[place].key)) for place in places]

        found = zip(places, await self.client._ask(f"look at {self._keys(places)}", look), strict=True)
        images, alone = {}, []
        for place, image in found:
            if image.document is None or not cached_filter(self.changes[place].filter).matches(image.document):
                continue
            if is_plain(self.client._seen(image)):
                images[place] = image
            else:
                alone.append(place)
        self._read.update(images)
        return Found(images, alone)

    async def change(self, images: Mapping[int, Image]) -> int:
        part, error = self.client._process.part_of(len(images))

        def change(on: Member) -> int:
            count = 0
            for place, image in list(images.items())[:part]:
                if self.is_at(on, place, image):
                    count += self._applied(on, self.changes[place], self.op_ids[place])
            if error is not None:
                raise error
            return count

        what = f"{type(self.changes[0]).__name__} many {self._keys(images)}"
        count, doubt = await self.client._acknowledged(self.collection, what, change, self._spent)
        if doubt is not None:
            raise doubt
        return count

    def _spent(self) -> float:
        """The server's limit of time is that of the whole operation, of which reading the documents had its share."""
        return asyncio.get_running_loop().time() - self._begun

    def is_at(self, on: Member, place: int, image: Image) -> bool:
        """The condition of the command."""
        return on.memory._image(self.collection, self.changes[place].key).state == image.state

    def _applied(self, on: Member, change: Change, op_id: str) -> bool:
        if self.client._apply(on, self.collection, change, op_id) is None:
            return False
        if not self.deletes:
            on.memory._chosen[self.collection, key_digest(change.key)] = self.op_id
        return True

    async def marks(self, places: Sequence[int]) -> Mapping[int, Mark]:
        def marks(on: Member) -> dict[int, Mark]:
            memory = on.memory
            keys = {place: self.changes[place].key for place in places}
            return {
                place: Mark(
                    memory._image(self.collection, key).state,
                    memory._chosen.get((self.collection, key_digest(key)), ""),
                )
                for place, key in keys.items()
            }

        return await self.client._ask(f"marks of {self._keys(places)}", marks, lasting=self.client._server.replicated)

    def applied(self, place: int, pre: Image) -> Applied:
        change = self.changes[place]
        return Applied(pre, Image(ABSENT)) if isinstance(change, Delete) else applied_after(change, pre)

    def modified(self, place: int) -> bool | None:
        try:
            self.applied(place, self._read[place])
        except Exception:
            return None
        return not self.deletes

    async def alone(self, place: int) -> Applied | None:
        return await self.client.apply(self.collection, self.changes[place], self.op_ids[place])

    def _keys(self, places: Sequence[int] | Mapping[int, Image]) -> str:
        return " ".join(str(self.changes[place].key) for place in places)
