"""Calls of the whole Motor surface, drawn from one stream of chance, each to be made on two collections.

The documents and operations are those of `generators.Generator`; what is added here is the verbs, keys that collide,
and the few conditions under which a right answer is one and only one answer (`one`).
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pymongo
from bson import Decimal128, Int64, ObjectId

from tests.compat.generators import Generator

__all__ = ["Call", "Caller"]

KEYS: Final = [
    *range(8),
    *(f"k{n}" for n in range(6)),
    1.0,
    2.5,
    Int64(3),
    Decimal128("4"),
    True,
    None,
    "",
    {"a": 1},
    {"a": 1, "b": [2]},
    dt.datetime(2024, 1, 1),
    ObjectId("5f" + "0" * 21 + "1"),
]
UNIQUE: Final = ["u0", "u1", 5, 5.0, None, [1, "u0"], {"v": 1}]


@dataclass(frozen=True)
class Call:
    """One call. `loose`: the order of what it answers is free. `torn`: if it fails, what it has changed by then is not
    determined."""

    verb: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    loose: bool = False
    torn: bool = False
    one: bool = False
    """The answer is determined only where at most one document matches the first argument."""

    async def on(self, collection: Any) -> Any:
        arguments, options = copy.deepcopy((self.arguments, self.options))
        made = getattr(collection, self.verb)(*arguments, **options)
        if self.verb in ("find", "aggregate"):
            return await made.to_list(None)
        return await made

    def __str__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"{self.verb}({', '.join([*map(repr, self.arguments), *options])})"


class Caller:
    """Draws calls. `unique`: the documents have a field `u` under a sparse unique index."""

    def __init__(self, seed: int, *, unique: bool) -> None:
        self.g = Generator(seed, plain=True)
        self.unique = unique

    def key(self) -> Any:
        return self.g.pick(KEYS)

    def document(self, key: Any) -> dict[str, Any]:
        made = self.g.document(key)
        if self.unique and self.g.chance(0.7):
            made["u"] = self.g.pick(UNIQUE)
        return made

    def documents(self, most: int = 5) -> list[dict[str, Any]]:
        return [self.document(self.key()) for _ in range(self.g.pick(range(1, most + 1)))]

    def filter(self) -> dict[str, Any]:
        """Without `$expr`, which may fail or not by the order of evaluation."""
        while True:
            made = self.g.filter(1)
            if "$expr" not in repr(made):
                return made

    def at_key(self) -> dict[str, Any]:
        """A filter that at most one document matches; now and then with more to it."""
        key = self.key()
        made: dict[str, Any] = {"_id": {"$eq": key} if self.g.chance(0.1) else key}
        return {**made, **self.filter()} if self.g.chance(0.3) else made

    def update(self) -> Any:
        if self.g.chance(0.12):
            return self.g.update_pipeline()
        made = self.g.update()
        if self.unique and self.g.chance(0.2) and "u" not in made.get("$set", {}):
            made = {**made, "$set": {**made.get("$set", {}), "u": self.g.pick(UNIQUE)}}
        return made

    def updating(self) -> tuple[Any, dict[str, Any]]:
        update = self.update()
        filters = self.g.array_filters(update) if isinstance(update, dict) else []
        return update, {"array_filters": filters} if filters else {}

    def replacement(self) -> dict[str, Any]:
        made = self.document(None)
        del made["_id"]
        return made

    def sort(self) -> list[tuple[str, int]]:
        return self.g.sort()

    # --- calls

    def call(self) -> Call:
        name = self.g.pick(list(self._calls))
        made: Call = self._calls[name](self)
        return made

    def insert_one(self) -> Call:
        return Call("insert_one", (self.document(self.key()),))

    def insert_many(self) -> Call:
        return Call("insert_many", (self.documents(),), {"ordered": self.g.chance(0.5)})

    def find_one(self) -> Call:
        if self.g.chance(0.2):
            return Call("find_one", (self.g.pick([key for key in KEYS if key is not None and key != {"a": 1}]),))
        if self.g.chance(0.25):
            return Call("find_one", (self.at_key(), self.g.projection()))
        return Call("find_one", (self.filter(), self.g.projection()), {"sort": self.sort()})

    def find(self) -> Call:
        filter = self.g.filter(1) if self.g.chance(0.8) else {}
        projection = self.g.projection() if self.g.chance(0.5) else None
        if self.g.chance(0.3):
            return Call("find", (filter, projection), loose=True)
        window = {"skip": self.g.pick([0, 0, 1, 3]), "limit": self.g.pick([0, 0, 1, 2, 5])}
        return Call("find", (filter, projection), {"sort": self.sort(), **window})

    def count(self) -> Call:
        window = {name: value for name in ("skip", "limit") if (value := self.g.pick([0, 0, 1, 3]))}
        return Call("count_documents", (self.g.filter(1),), window)

    def distinct(self) -> Call:
        return Call("distinct", (self.g.path(), self.filter()), loose=True)

    def aggregate(self) -> Call:
        return Call("aggregate", (self.g.pipeline(),))

    def update_one(self) -> Call:
        update, options = self.updating()
        if self.g.chance(0.3):
            return Call("update_one", (self.filter(), update), options, one=True)
        return Call("update_one", (self.at_key(), update), {**options, "upsert": self.g.chance(0.4)})

    def upsert_elsewhere(self) -> Call:
        """An upsert whose key is in the update, or in the replacement."""
        filter = {"x": self.g.pick(["no", 1])}
        if self.g.chance(0.5):
            update = {self.g.pick(["$setOnInsert", "$set"]): {"_id": self.key(), "y": 1}}
            return Call("update_one", (filter, update), {"upsert": True}, one=True)
        return Call("replace_one", (filter, {"_id": self.key(), "y": 1}), {"upsert": True}, one=True)

    def update_many(self) -> Call:
        update, options = self.updating()
        if self.g.chance(0.2):
            return Call("update_many", (self.at_key(), update), {**options, "upsert": True})
        return Call("update_many", (self.filter(), update), options, torn=True)

    def replace_one(self) -> Call:
        return Call("replace_one", (self.at_key(), self.replacement()), {"upsert": self.g.chance(0.4)})

    def delete_one(self) -> Call:
        return Call("delete_one", (self.at_key(),))

    def delete_many(self) -> Call:
        return Call("delete_many", ({**self.filter(), **self.filter()},))

    def find_one_and_update(self) -> Call:
        update, options = self.updating()
        return self._modify("find_one_and_update", (update,), options)

    def find_one_and_replace(self) -> Call:
        return self._modify("find_one_and_replace", (self.replacement(),), {})

    def _modify(self, verb: str, change: tuple[Any, ...], options: dict[str, Any]) -> Call:
        after = {"return_document": self.g.pick([pymongo.ReturnDocument.BEFORE, pymongo.ReturnDocument.AFTER])}
        shown = {"projection": self.g.projection()} if self.g.chance(0.4) else {}
        if self.g.chance(0.4):
            return Call(verb, (self.filter(), *change), {**options, **after, **shown, "sort": self.sort()})
        return Call(verb, (self.at_key(), *change), {**options, **after, **shown, "upsert": self.g.chance(0.4)})

    def find_one_and_delete(self) -> Call:
        shown = {"projection": self.g.projection()} if self.g.chance(0.4) else {}
        if self.g.chance(0.3):
            return Call("find_one_and_delete", (self.filter(),), {**shown, "sort": self.sort()})
        return Call("find_one_and_delete", (self.at_key(),), shown)

    def bulk_write(self) -> Call:
        requests = [self._request() for _ in range(self.g.pick([1, 2, 3, 5, 8]))]
        return Call("bulk_write", (requests,), {"ordered": self.g.chance(0.5)})

    def _request(self) -> Any:
        kind = self.g.random.random()
        if kind < 0.3:
            return pymongo.InsertOne(self.document(self.key()))
        if kind < 0.6:
            update, options = self.updating()
            return pymongo.UpdateOne(self.at_key(), update, upsert=self.g.chance(0.3), **options)
        if kind < 0.7:
            return pymongo.UpdateMany(self.filter(), {"$set": {"z": self.g.scalar()}})
        if kind < 0.85:
            return pymongo.ReplaceOne(self.at_key(), self.replacement(), upsert=self.g.chance(0.3))
        return pymongo.DeleteOne(self.at_key()) if kind < 0.95 else pymongo.DeleteMany(self.filter())

    _calls: Final[dict[str, Callable[[Caller], Call]]] = {
        each.__name__: each
        for each in (
            insert_one,
            insert_many,
            find_one,
            find,
            count,
            distinct,
            aggregate,
            update_one,
            upsert_elsewhere,
            update_many,
            replace_one,
            delete_one,
            find_one_and_update,
            find_one_and_replace,
            find_one_and_delete,
            bulk_write,
        )
    }
