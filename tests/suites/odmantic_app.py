"""An application on ODMantic that uses each feature of its manual: models, references, queries, sessions.

`FEATURES["name"](database, note)` plays one. `begin(database)` comes first.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import re
from typing import Any, Final

from bson import Binary, Decimal128, Int64
from odmantic import AIOEngine, EmbeddedModel, Field, Index, Model, ObjectId, Reference, query
from pydantic import field_validator

from tests.suites.plays import Feature, Note

__all__ = ["COLLECTIONS", "FEATURES", "begin"]

FEATURES: Final[dict[str, Feature]] = {}


def feature(function: Feature) -> Feature:
    FEATURES[function.__name__] = function
    return function


class Kind(enum.StrEnum):
    small = "small"
    large = "large"


class Place(EmbeddedModel):
    street: str
    city: str = "Paris"


class Author(Model):
    name: str = Field(unique=True)
    age: int = 30
    kind: Kind = Kind.small
    tags: list[str] = []  # noqa: RUF012
    place: Place = Place(street="nowhere")
    places: list[Place] = []  # noqa: RUF012


class Publisher(Model):
    name: str
    founded: int = Field(ge=1440, default=1900)

    model_config = {"collection": "publishers"}  # noqa: RUF012


class Book(Model):
    title: str
    pages: int = 100
    author: Author = Reference()
    publisher: Publisher = Reference(key_name="published_by")


class Player(Model):
    nick: str = Field(primary_field=True)
    score: int = Field(default=0, key_name="points")

    @field_validator("score")
    @classmethod
    def not_negative(cls, value: int) -> int:
        if value < 0:
            raise ValueError("below nothing")
        return value


class Event(Model):
    name: str
    day: dt.datetime
    rank: int = Field(index=True, default=0)

    model_config = {  # noqa: RUF012
        "indexes": lambda: [Index(Event.name, query.desc(Event.day), name="name-day", unique=True)]
    }


class Typed(Model):
    price: decimal.Decimal
    raw: bytes
    long: Int64
    exact: Decimal128
    other: ObjectId
    binary: Binary
    maybe: int | None = None


MODELS: Final = [Author, Publisher, Book, Player, Event, Typed]
COLLECTIONS: Final = ("author", "publishers", "book", "player", "event", "typed")


async def begin(database: Any) -> None:
    """What an application on ODMantic does at its start."""
    await _engine(database).configure_database(MODELS)


def _engine(database: Any) -> AIOEngine:
    return AIOEngine(client=database.client, database=database.name)


async def _authors(engine: AIOEngine) -> list[Author]:
    """Five, in place of all that were there."""
    await engine.remove(Author)
    made = [
        Author(
            name=name,
            age=10 * number,
            kind=Kind.large if number % 2 else Kind.small,
            tags=["a", "b", "c"][: number % 4],
            place=Place(street=f"{number} High Street"),
            places=[Place(street=f"{each}") for each in range(number)],
        )
        for number, name in enumerate(("Ada", "Bob", "Cyd", "Dan", "Eve"), 1)
    ]
    return list(await engine.save_all(made))


@feature
async def models(database: Any, note: Note) -> None:
    engine = _engine(database)
    await engine.remove(Author)
    ada = await engine.save(Author(name="Ada", place=Place(street="1 High Street")))
    note("save", ada)
    note("find_one", await engine.find_one(Author, Author.id == ada.id))
    ada.age, ada.tags = 36, ["countess"]
    await engine.save(ada)
    note("save again", await engine.find_one(Author, Author.name == "Ada"))
    ada.model_update({"age": 37, "name": "Ada L."})
    await engine.save(ada)
    note("model_update", await engine.find_one(Author))
    await note.refused("unique", engine.save(Author(name="Ada L.")))
    await engine.delete(ada)
    await note.refused("delete of a deleted one", engine.delete(ada))
    note("count", await engine.count(Author))


@feature
async def keys(database: Any, note: Note) -> None:
    engine = _engine(database)
    await engine.remove(Player)
    await engine.save_all([Player(nick="x", score=1), Player(nick="y", score=2)])
    await engine.save(Player(nick="x", score=5))
    note("found", await engine.find(Player, sort=Player.nick))
    note("stored", await engine.get_collection(Player).find({}).sort("_id").to_list(None))
    await engine.get_collection(Player).insert_one({"_id": "bad", "points": -1})
    await note.refused("validator", engine.find_one(Player, Player.nick == "bad"))


@feature
async def queries(database: Any, note: Note) -> None:
    engine = _engine(database)
    await _authors(engine)
    name = query.asc(Author.name)
    note("all", await engine.find(Author, sort=name))
    note("unsorted", sorted([each.name for each in await engine.find(Author)]))
    note("iterated", [each.name async for each in engine.find(Author, Author.age > 20, sort=name)])
    note("two", await engine.find(Author, Author.age >= 20, Author.kind == Kind.small, sort=query.desc(Author.age)))
    note("sorted by two", [each.name for each in await engine.find(Author, sort=(query.desc(Author.kind), Author.age))])
    note("skip and limit", [each.name for each in await engine.find(Author, sort=name, skip=1, limit=2)])
    note("in_", await engine.count(Author, query.in_(Author.name, ["Ada", "Eve", "Nobody"])))
    note("not_in", await engine.count(Author, Author.name.not_in(["Ada"])))
    note("or_", await engine.count(Author, query.or_(Author.age == 10, Author.age == 50)))
    note("and_", await engine.count(Author, (Author.age > 10) & (Author.age < 50)))
    note("nor_", await engine.count(Author, query.nor_(Author.age == 10, Author.age == 50)))
    note("match", await engine.count(Author, query.match(Author.name, re.compile("^[AB]"))))
    note("ne", await engine.count(Author, Author.age != 10))
    note("embedded", await engine.find_one(Author, Author.place.street == "3 High Street"))
    note("raw", await engine.count(Author, {"tags": {"$size": 3}}))
    note("embedded list", await engine.count(Author, {"places.street": "4"}))
    note("find_one of none", await engine.find_one(Author, Author.name == "Nobody"))
    note("find_one sorted", (await engine.find_one(Author, sort=query.desc(Author.age))).name)


@feature
async def references(database: Any, note: Note) -> None:
    engine = _engine(database)
    for model in (Book, Publisher):
        await engine.remove(model)
    authors = await _authors(engine)
    house = Publisher(name="House")
    first = await engine.save(Book(title="First", author=authors[0], publisher=house))
    await engine.save_all([Book(title=f"Of {each.name}", author=each, publisher=house) for each in authors[1:3]])
    note("find_one", await engine.find_one(Book, Book.id == first.id))
    note("find", await engine.find(Book, sort=Book.title))
    note("by reference", [each.title for each in await engine.find(Book, Book.author == authors[1].id)])
    note("stored", await engine.get_collection(Book).find_one({"title": "First"}))
    first.author.age = 77
    await engine.save(first)
    note("saved with it", (await engine.find_one(Author, Author.name == "Ada")).age)
    await engine.delete(authors[2])
    await note.refused("a reference to nothing", engine.find_one(Book, Book.title == "Of Cyd"))


@feature
async def removals(database: Any, note: Note) -> None:
    engine = _engine(database)
    await _authors(engine)
    note("remove", await engine.remove(Author, Author.age > 30))
    note("just_one", await engine.remove(Author, Author.name == "Bob", just_one=True))
    note("left", await engine.count(Author))
    note("of none", await engine.remove(Author, Author.name == "Nobody"))


@feature
async def indexes(database: Any, note: Note) -> None:
    engine = _engine(database)
    await engine.remove(Event)
    for model in (Author, Event):
        info = await engine.get_collection(model).index_information()
        note(model.__name__, {name: (list(each["key"]), each.get("unique")) for name, each in info.items()})
    await engine.save(Event(name="x", day=dt.datetime(2020, 1, 1, 5, 6, 7, 8000)))
    await note.refused("unique over two", engine.save(Event(name="x", day=dt.datetime(2020, 1, 1, 5, 6, 7, 8000))))
    note("kept", await engine.find(Event, Event.day > dt.datetime(2019, 1, 1)))
    await engine.configure_database(MODELS)
    await engine.configure_database([Event], update_existing_indexes=True)
    note("again", sorted(await engine.get_collection(Event).index_information()))


@feature
async def types(database: Any, note: Note) -> None:
    engine = _engine(database)
    await engine.remove(Typed)
    made = Typed(
        price=decimal.Decimal("1.50"),
        raw=b"\x00\xff",
        long=Int64(2**40),
        exact=Decimal128("1.500"),
        other=ObjectId(),
        binary=Binary(b"x"),
    )
    await engine.save(made)
    note("read", await engine.find_one(Typed, Typed.id == made.id))
    stored = await engine.get_collection(Typed).find_one({"_id": made.id})
    note("stored", {name: (type(value).__name__, value) for name, value in stored.items()})


@feature
async def aggregations(database: Any, note: Note) -> None:
    engine = _engine(database)
    await _authors(engine)
    collection = engine.get_collection(Author)
    group = [{"$group": {"_id": f"${+Author.kind}", "n": {"$sum": 1}, "mean": {"$avg": "$age"}}}, {"$sort": {"_id": 1}}]
    note("group", await collection.aggregate(group).to_list(length=None))
    note(
        "match",
        [each async for each in collection.aggregate([{"$match": {+Author.age: {"$gt": 30}}}, {"$count": "n"}])],
    )
    note("distinct", sorted(await collection.distinct(+Author.kind)))
    note("updated", (await collection.update_many({}, {"$inc": {+Author.age: 1}})).modified_count)


@feature
async def sessions(database: Any, note: Note) -> None:
    engine = _engine(database)
    await engine.remove(Author)
    async with engine.session() as session:
        await session.save(Author(name="Ida"))
        note("found", await session.find(Author, Author.name == "Ida"))
        one = await session.find_one(Author, Author.name == "Ida")
        one.age = 5
        await session.save_all([one, Author(name="Jan")])
        note("count", await session.count(Author))
        await session.delete(one)
        note("remove", await session.remove(Author))


@feature
async def transactions(database: Any, note: Note) -> None:
    engine = _engine(database)
    await _authors(engine)
    async with engine.transaction() as transaction:
        await transaction.save(Author(name="Kay"))
        note("outside", await engine.find_one(Author, Author.name == "Kay"))
        note("inside", (await transaction.find_one(Author, Author.name == "Kay")).name)
        await transaction.commit()
    note("committed", (await engine.find_one(Author, Author.name == "Kay")).name)
    async with engine.transaction() as transaction:
        await transaction.remove(Author, Author.name == "Kay")
        await transaction.abort()
    note("aborted", (await engine.find_one(Author, Author.name == "Kay")).name)
    async with engine.session() as session, session.transaction() as transaction:
        bob = await transaction.find_one(Author, Author.name == "Bob")
        bob.age += 1
        await transaction.save(bob)
    note("in the end", await engine.find(Author, sort=Author.name))
