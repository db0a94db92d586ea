"""The store called MongoDB as a replica set: a member that is deposed and does not know it, and what is rolled back.

A set is *divided* for a time. The one side has elected a primary of its own, by a new term; the other side still takes
the old one for the primary. What the old one is asked to do, it does, and whoever is content with its own word hears
so; a majority never has it. When the members are together again, all of it is gone.

What the product makes of that is the product's own: `Durability` and `Lasting` of `shadow.stores.mongo.durability` run
here over a driver that knows terms and read concerns, and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pymongo import WriteConcern
from pymongo.read_concern import ReadConcern

from shadow.model.version import Image, Key
from shadow.stores.memory import MemoryStore
from shadow.stores.mongo.durability import LINEARIZABLE

__all__ = ["CONCERNS", "Driver", "Member", "is_lasting"]

CONCERNS: Final[Mapping[str, WriteConcern]] = {
    "majority": WriteConcern("majority"),
    "1": WriteConcern(1),
    "none": WriteConcern(),
    "here": WriteConcern("here"),
}
"""What the application's client asks for. "here" names a write concern of the set's own, which one member fulfils."""


def is_lasting(concern: WriteConcern) -> bool:
    """Whether an answer with this write concern means that a majority has the write."""
    return bool(concern.document.get("w") == "majority")


@dataclass(slots=True, eq=False)
class Term:
    """What the driver has seen of the servers: a primary of this election, of three members."""

    election_id: int
    server_type_name: str = "RSPrimary"
    all_hosts: tuple[str, ...] = ("a", "b", "c")

    def server_descriptions(self) -> dict[str, Term]:
        return {"primary": self}


@dataclass(slots=True, eq=False)
class Member:
    """The primary, as some processes see it."""

    memory: MemoryStore
    term: Term = field(default_factory=lambda: Term(1))
    deposed: bool = False
    """Whether no majority follows it any more."""
    gone: bool = False
    """Whether it has heard so, and has undone what it had alone."""

    def divided(self) -> Member:
        """The old primary, which this one has taken the place of."""
        other = Member(copy.deepcopy(self.memory), self.term, deposed=True)
        self.term = Term(self.term.election_id + 1)
        return other


Look = Callable[[Sequence[Key], bool], Awaitable[list[Image]]]
"""Images of keys as the member in sight has them; True: only if a majority confirms that it still is the primary."""
Chosen = Callable[[str, bool], Awaitable[list[Any]]]
"""The keys, one at most, of the document that an operation has found."""


class Driver:
    """Client, database and link in one, as far as `Durability` and `Lasting` use them."""

    codec_options: Any = None

    def __init__(self, asked: str, seat: Callable[[], Member], look: Look, chosen: Chosen) -> None:
        self.client = self
        self.write_concern = CONCERNS[asked]
        self.look, self.chosen = look, chosen
        self._seat = seat

    @property
    def topology_description(self) -> Term:
        return self._seat().term

    def get_collection(self, name: str, *, read_concern: ReadConcern | None = None) -> _Collection:
        return _Collection(self, name, read_concern)

    def __getitem__(self, name: str) -> _Collection:
        return self.get_collection(name)


class _Collection:
    def __init__(self, driver: Driver, name: str, read_concern: ReadConcern | None) -> None:
        self.name = name
        self._driver = driver
        self._read_concern = read_concern

    def with_options(self, *, read_concern: ReadConcern) -> _Collection:
        return _Collection(self._driver, self.name, read_concern)

    @property
    def _lasting(self) -> bool:
        return self._read_concern == LINEARIZABLE

    async def find_one(self, filter: dict[str, Any], *_: Any, **options: Any) -> Image:
        return (await self._driver.look([filter["_id"]], self._lasting))[0]

    def find(self, filter: dict[str, Any], *_: Any, **options: Any) -> _Cursor:
        if "_id" in filter:
            return _Cursor(lambda: self._driver.look(filter["_id"]["$in"], self._lasting))
        return _Cursor(lambda: self._driver.chosen(filter["op"], self._lasting))


@dataclass(slots=True)
class _Cursor:
    ask: Callable[[], Awaitable[list[Any]]]

    async def to_list(self, length: int | None) -> list[Any]:
        return await self.ask()
