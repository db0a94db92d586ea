"""An application on Beanie that uses each feature of its manual: documents, queries, links, actions, transactions.

`features["name"](database, note)` plays one. `begin(database)` comes first.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any, Final

from beanie import (
    BulkWriter,
    DeleteRules,
    Link,
    MergeStrategy,
    UpdateResponse,
    WriteRules,
    init_beanie,
    iterative_migration,
)
from beanie.operators import (
    AddToSet,
    All,
    CurrentDate,
    ElemMatch,
    Exists,
    In,
    Inc,
    Or,
    Pull,
    Push,
    RegEx,
    Set,
    Size,
    Unset,
)

from shadow import Shadow
from tests.suites.beanie_models import (
    MODELS,
    Address,
    Adults,
    AgeOf,
    Bus,
    ById,
    Car,
    Counted,
    Cup,
    Door,
    Draft,
    House,
    Lazy,
    Name,
    NewNote,
    OldNote,
    Owner,
    Person,
    Pet,
    Plate,
    Remembered,
    Revised,
    Role,
    Thing,
    Typed,
    Vehicle,
    Window,
)
from tests.suites.plays import Feature, Note

__all__ = ["FEATURES", "begin"]

FEATURES: Final[dict[str, Feature]] = {}


def feature(function: Feature) -> Feature:
    FEATURES[function.__name__] = function
    return function


async def begin(database: Any) -> None:
    """The one call that an application on Beanie makes of its database object."""
    await init_beanie(database=database, document_models=MODELS, recreate_views=True)


async def _people() -> list[Person]:
    """Five, in place of all that were there."""
    await Person.delete_all()
    names = ("Ada", "Bob", "Cyd", "Dan", "Eve")
    made = [
        Person(
            name=name,
            age=10 * number,
            role=Role.author if number % 2 else Role.reader,
            tags=["a", "b", "c"][: number % 4],
            address=Address(street=f"{number} High Street"),
            scores={"x": number / 2},
        )
        for number, name in enumerate(names, 1)
    ]
    await Person.insert_many(made)
    return await Person.find_all().sort("name").to_list()


@feature
async def documents(database: Any, note: Note) -> None:
    await Person.delete_all()
    ada = await Person(name="Ada", address=Address(street="1 High Street")).insert()
    note("insert", ada)
    note("get", await Person.get(ada.id))
    note("get nothing", await Person.get(Window(x=1).id or ada.id.__class__()))
    ada.age = 36
    await ada.save()
    note("save", await Person.get(ada.id))
    ada.tags.append("countess")
    await ada.replace()
    note("replace", await Person.get(ada.id))
    note("save as upsert", (await Person(name="New").save()).name)
    await note.refused("unique", Person(name="Ada").insert())
    result = await Person.insert_many([Person(name="X"), Person(name="Y")])
    note("insert_many", result.inserted_ids)
    await note.refused("insert_many, one twice", Person.insert_many([Person(name="Z"), Person(name="Z")]))
    note("count", await Person.count())
    note("delete", (await ada.delete()).deleted_count)
    await note.refused("replace of a deleted one", ada.replace())
    note("delete_all", (await Person.delete_all()).deleted_count)


@feature
async def own_keys(database: Any, note: Note) -> None:
    await ById.delete_all()
    await ById(id="one", n=1).insert()
    await note.refused("the same key", ById(id="one", n=2).insert())
    note("get", await ById.get("one"))
    await ById.find_one(ById.id == "one").upsert(Inc({ById.n: 5}), on_insert=ById(id="one", n=0))
    await ById.find_one(ById.id == "two").upsert(Inc({ById.n: 5}), on_insert=ById(id="two", n=0))
    note("upserted", await ById.find_all().sort("_id").to_list())


@feature
async def queries(database: Any, note: Note) -> None:
    await _people()
    note("find", await Person.find(Person.age > 20, Person.role == Role.author).sort(-Person.age).to_list())
    note("unsorted", sorted(each.name for each in await Person.find().to_list()))
    note("skip and limit", await Person.find_all(skip=1, limit=2, sort="name").to_list())
    note("sorted by two", [each.name async for each in Person.find().sort([("role", 1), ("age", -1)])])
    note("projection", await Person.find(Person.age < 30).sort("name").project(Name).to_list())
    note("first", await Person.find(Person.name == "Bob").first_or_none())
    note("first of none", await Person.find(Person.name == "Nobody").first_or_none())
    note("find_one", await Person.find_one({"address.street": "3 High Street"}))
    note("find_one of none", await Person.find_one(Person.name == "Nobody"))
    note("embedded", await Person.find(Person.address.street == "2 High Street").count())
    note("exists", [await Person.find(Person.age == age).exists() for age in (10, 11)])
    note("distinct", sorted(await Person.distinct("role")))
    note("Or", [each.name for each in await Person.find(Or(Person.age == 10, Person.age == 50)).sort("age").to_list()])
    note("In", await Person.find(In(Person.name, ["Ada", "Eve"])).sort("name").project(Name).to_list())
    note("RegEx", await Person.find(RegEx(Person.name, "^[ab]", "i")).sort("name").project(Name).to_list())
    note("All", await Person.find(All(Person.tags, ["a", "b"])).count())
    note("Size", await Person.find(Size(Person.tags, 3)).count())
    note("Exists", await Person.find(Exists("address.city", True)).count())
    note("ElemMatch", await Person.find(ElemMatch(Person.tags, {"$eq": "c"})).count())
    note("raw", await Person.get_pymongo_collection().count_documents({"scores.x": {"$gte": 1.5}}))


@feature
async def updates(database: Any, note: Note) -> None:
    people = await _people()
    await people[0].set({Person.age: 11, "scores.y": 2.5})
    note("set", people[0])
    await people[0].inc({Person.age: 4})
    note("inc", people[0].age)
    await people[1].update(Push({Person.tags: "new"}), Unset({"scores": ""}))
    note("update", await Person.get(people[1].id))
    note("find_one.update", (await Person.find_one(Person.name == "Cyd").update(Set({Person.age: 99}))).modified_count)
    result = await Person.find(Person.age >= 40).update(Inc({Person.age: 1}))
    note("find.update", (result.matched_count, result.modified_count))
    note("update_all", (await Person.update_all(AddToSet({Person.tags: "all"}))).modified_count)
    note("Pull", (await Person.find().update(Pull({Person.tags: "a"}))).modified_count)
    after = UpdateResponse.NEW_DOCUMENT
    note("new document", await Person.find_one(Person.name == "Dan").update(Inc({"age": 1}), response_type=after))
    before = UpdateResponse.OLD_DOCUMENT
    note("old document", await Person.find_one(Person.name == "Dan").update(Inc({"age": 1}), response_type=before))
    new = Person(name="Zoe", age=1)
    await Person.find_one(Person.name == "Zoe").upsert(Inc({Person.age: 1}), on_insert=new)
    note("upsert", await Person.find_one(Person.name == "Zoe"))
    await Person.find_one(Person.name == "Zoe").replace_one(Person(name="Zoe", age=77))
    note("all", await Person.find_all().sort("name").to_list())
    people[2].age = 1
    await Person.replace_many(people[2:4])
    note("replace_many", await Person.find_all().sort("name").project(Name).to_list())
    note("CurrentDate", (await Person.find().update(CurrentDate({"born": True}))).matched_count)


@feature
async def deletes(database: Any, note: Note) -> None:
    await _people()
    note("find_one.delete", (await Person.find_one(Person.name == "Ada").delete()).deleted_count)
    note("find.delete", (await Person.find(Person.age > 30).delete()).deleted_count)
    note("left", await Person.find().sort("name").project(Name).to_list())
    note("find_one.delete of none", (await Person.find_one(Person.name == "Nobody").delete()).deleted_count)


@feature
async def aggregations(database: Any, note: Note) -> None:
    await _people()
    note("avg", await Person.find(Person.age > 10).avg(Person.age))
    note("sum", await Person.sum(Person.age))
    note("max and min", (await Person.max("age"), await Person.min("age")))
    group = [
        {"$group": {"_id": "$role", "mean": {"$avg": "$age"}, "count": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
    ]
    note("aggregate", await Person.find(Person.age > 10).aggregate(group, projection_model=AgeOf).to_list())
    note("raw", await Person.aggregate([{"$match": {"age": {"$gt": 30}}}, {"$count": "n"}]).to_list())
    cursor = await Person.get_pymongo_collection().aggregate(
        [{"$unwind": "$tags"}, {"$sortByCount": "$tags"}, {"$sort": {"_id": 1}}]
    )
    note("of the collection", [each async for each in cursor])


@feature
async def views(database: Any, note: Note) -> None:
    await _people()
    if isinstance(database, Shadow):
        await database.settled(60)  # the view is MongoDB's: with DynamoDB as primary it shows what is replicated
    note("view", await Adults.find(Adults.age < 50).sort("age").to_list())
    note("count", await Adults.find_all().count())


@feature
async def indexes(database: Any, note: Note) -> None:
    info = await Person.get_pymongo_collection().index_information()
    note("index_information", {name: (each["key"], each.get("unique")) for name, each in info.items()})
    note("inspection", (await Person.inspect_collection()).status)
    note("names", sorted(info))


@feature
async def links(database: Any, note: Note) -> None:
    for model in (House, Door, Window):
        await model.delete_all()
    one, two = await Window(x=1).insert(), await Window(x=2).insert()
    door = await Door(window=one).insert()
    house = await House(name="white", door=door, windows=[one, two]).insert()
    found = await House.find_one(House.name == "white")
    note("as stored", (type(found.door).__name__, found.door.ref, [each.ref for each in found.windows]))
    await found.fetch_link(House.door)
    note("fetch_link", found.door)
    await found.fetch_all_links()
    note("fetch_all_links", found)
    note("fetch_links", await House.find(House.name == "white", fetch_links=True).to_list())
    note("nested", await House.find(House.door.height == 2, fetch_links=True).count())
    note("nesting_depth", await House.find_one(House.name == "white", fetch_links=True, nesting_depth=1))
    note("by the link's id", await House.find(House.door.id == door.id).count())
    note("get with links", await House.get(house.id, fetch_links=True))
    cascaded = House(name="blue", door=Door(height=5), windows=[Window(x=7)])
    await cascaded.insert(link_rule=WriteRules.WRITE)
    note("cascaded insert", await House.find_one(House.name == "blue", fetch_links=True))
    cascaded.windows[0].y = 99
    await cascaded.save(link_rule=WriteRules.WRITE)
    note("cascaded save", await Window.find_one(Window.x == 7))
    await cascaded.delete(link_rule=DeleteRules.DELETE_LINKS)
    note("cascaded delete", (await Window.find(Window.x == 7).count(), await Door.find(Door.height == 5).count()))
    raw = await House.get_pymongo_collection().find_one({"name": "white"})
    note("raw", raw)
    linked = House.link_from_id(house.id)
    note("fetch of a link", (await linked.fetch()).name if isinstance(linked, Link) else None)
    await two.delete()
    note("a link to nothing", [type(each).__name__ for each in (await House.get(house.id, fetch_links=True)).windows])


@feature
async def back_links(database: Any, note: Note) -> None:
    await Owner.delete_all()
    await Pet.delete_all()
    pets = [await Pet.get((await Pet.get_pymongo_collection().insert_one({"name": name})).inserted_id) for name in "xy"]
    await Owner(name="Ada", pets=pets).insert()
    found = await Pet.find(fetch_links=True).sort("name").to_list()
    note(
        "fetched",
        [(each.name, each.owner[0].name if isinstance(each.owner, list) else each.owner.name) for each in found],
    )


@feature
async def inheritance(database: Any, note: Note) -> None:
    await Vehicle.delete_all(with_children=True)
    await Vehicle.find_all(with_children=True).delete()
    await Vehicle(color="red").insert()
    await Car(color="blue").insert()
    await Bus(color="green", seats=9).insert()
    note("with children", await Vehicle.find_all(with_children=True).sort("color").to_list())
    note("alone", await Vehicle.find().to_list())
    note("cars", await Car.find(Car.doors == 4, with_children=True).sort("color").to_list())
    note("class ids", sorted(await Vehicle.get_pymongo_collection().distinct("_class_id")))
    note("updated", (await Bus.find().update({"$set": {"seats": 10}})).modified_count)


@feature
async def unions(database: Any, note: Note) -> None:
    for model in (Cup, Plate):
        await model.delete_all()
    await Cup(volume=3).insert()
    await Plate(size=4).insert()
    note("all", sorted(type(each).__name__ for each in await Thing.all().to_list()))
    note("plates", await Plate.all().to_list())
    note("count", await Thing.count())
    async with BulkWriter(object_class=Thing) as bulk:
        await Cup(volume=9).insert_one(Cup(volume=9), bulk_writer=bulk)
        await Plate.find_one(Plate.size == 4).update(Set({Plate.size: 5}), bulk_writer=bulk)
    note("after bulk", (await Cup.count(), await Plate.find_one(Plate.size == 5)))


@feature
async def soft_deletes(database: Any, note: Note) -> None:
    await Draft.find_many_in_all().delete()
    one, two = await Draft(title="one").insert(), await Draft(title="two").insert()
    await one.delete()
    note("is_deleted", (one.is_deleted(), two.is_deleted()))
    note("find", await Draft.find().to_list())
    note("in all", await Draft.find_many_in_all().sort("title").to_list())
    note("find_one", await Draft.find_one(Draft.title == "one"))
    await one.hard_delete()
    note("after hard_delete", len(await Draft.find_many_in_all().to_list()))


@feature
async def actions(database: Any, note: Note) -> None:
    await Counted.get_pymongo_collection().delete_many({})
    one = await Counted(title="title").insert()
    note("insert", one)
    note("stored", await Counted.get(one.id))
    await note.refused("validator", Counted.find_one({"title": ""}))
    one.title = ""
    await note.refused("validate_on_save", one.save())
    one.title = "longer title"
    note("is_changed", (one.is_changed, one.get_changes()))
    await one.save_changes()
    note("save_changes", await Counted.get(one.id))
    note("previous", (one.has_changed, sorted(one.get_previous_changes())))
    one.title = "other"
    one.rollback()
    note("rollback", one.title)
    await one.delete()
    note("steps", one.steps)


@feature
async def revisions(database: Any, note: Note) -> None:
    await Revised.delete_all()
    one = await Revised(n=1).insert()
    other = await Revised.get(one.id)
    one.n = 2
    await one.save()
    other.n = 3
    await note.refused("a changed revision", other.save())
    await other.save(ignore_revision=True)
    note("in the end", (await Revised.get(one.id)).n)
    local = await Revised.get(one.id)
    await Revised.find_one(Revised.id == one.id).update({"$set": {"n": 50}})
    await local.sync(merge_strategy=MergeStrategy.remote)
    note("sync", local.n)


@feature
async def caching(database: Any, note: Note) -> None:
    await Remembered.get_pymongo_collection().delete_many({})
    await Remembered(n=1).insert()
    note("first", [each.n for each in await Remembered.find(Remembered.n == 1).to_list()])
    await Remembered.get_pymongo_collection().update_one({"n": 1}, {"$set": {"n": 2}})
    note("from the cache", [each.n for each in await Remembered.find(Remembered.n == 1).to_list()])
    note("past it", [each.n for each in await Remembered.find(Remembered.n == 1, ignore_cache=True).to_list()])
    note("aggregated", await Remembered.aggregate([{"$group": {"_id": None, "n": {"$sum": "$n"}}}]).to_list())


@feature
async def lazy_parsing(database: Any, note: Note) -> None:
    await Lazy.delete_all()
    await Lazy.insert_many([Lazy(n=n) for n in range(3)])
    note("lazy", [(each.n, each.text) for each in await Lazy.find(Lazy.n > 0, lazy_parse=True).sort("n").to_list()])


@feature
async def types(database: Any, note: Note) -> None:
    await Typed.delete_all()
    made = Typed(
        price=decimal.Decimal("12.340"),
        ident=uuid.UUID(int=5),
        span=dt.timedelta(hours=1, milliseconds=5),
        day=dt.date(2020, 2, 29),
        words={"b", "a"},
        raw=b"\x00\xff",
        anything={"nested": [1, 2.0, None, True, dt.datetime(2020, 1, 1)]},
    )
    await made.insert()
    note("read", await Typed.get(made.id))
    note("stored", await Typed.get_pymongo_collection().find_one({"_id": made.id}))
    note("by price", await Typed.find(Typed.price > decimal.Decimal(12)).count())
    note("by uuid", await Typed.find(Typed.ident == uuid.UUID(int=5)).count())


@feature
async def bulk(database: Any, note: Note) -> None:
    people = await _people()
    async with BulkWriter() as writer:
        await Person.insert_one(Person(name="Fay"), bulk_writer=writer)
        await people[0].update(Set({Person.age: 1}), bulk_writer=writer)
        await Person.find(Person.age >= 30).update(Inc({Person.age: 1}), bulk_writer=writer)
        await Person.find_one(Person.name == "Bob").delete(bulk_writer=writer)
        await Person.find_one(Person.name == "Eve").replace_one(Person(name="Eva"), bulk_writer=writer)
    note("after", await Person.find_all().sort("name").to_list())

    async def twice() -> None:
        async with Person.bulk_writer(ordered=False) as writer:
            for name in ("Gus", "Gus", "Hal"):
                await Person.insert_one(Person(name=name), bulk_writer=writer)

    await note.refused("one twice", twice())
    note("what went in", await Person.find(In(Person.name, ["Gus", "Hal"])).count())


@feature
async def sessions(database: Any, note: Note) -> None:
    await _people()
    async with database.client.start_session() as session:
        made = await Person(name="Ida").insert(session=session)
        note("read", await Person.find_one(Person.name == "Ida", session=session))
        await made.set({Person.age: 5}, session=session)
        note("found", await Person.find(Person.age == 5, session=session).to_list())
        await made.delete(session=session)
        note("count", await Person.find(session=session).count())


@feature
async def transactions(database: Any, note: Note) -> None:
    await _people()
    async with database.client.start_session() as session:
        async with await session.start_transaction():
            await Person(name="Kay").insert(session=session)
            await Person.find_one(Person.name == "Ada", session=session).update(Inc({Person.age: 1}), session=session)
            note("outside", await Person.find_one(Person.name == "Kay"))
            note("inside", (await Person.find_one(Person.name == "Kay", session=session)).name)
        note("committed", (await Person.find_one(Person.name == "Kay")).name)
        try:
            async with await session.start_transaction():
                await Person.find_one(Person.name == "Kay", session=session).delete(session=session)
                raise LookupError
        except LookupError:
            note("aborted", (await Person.find_one(Person.name == "Kay")).name)

        async def work(session: Any) -> int:
            await Person.find_one(Person.name == "Bob", session=session).update(Inc({"age": 1}), session=session)
            return 7

        note("with_transaction", await session.with_transaction(work))
    note("in the end", await Person.find_all().sort("name").to_list())


@feature
async def migrations(database: Any, note: Note) -> None:
    async def change(input_document: Any, output_document: Any) -> None:
        output_document.title = input_document.name

    # Annotations of this module are texts, and Beanie wants the classes.
    change.__annotations__ = {"input_document": OldNote, "output_document": NewNote}
    name_to_title = iterative_migration()(change)
    await OldNote.get_pymongo_collection().delete_many({})
    await OldNote.insert_many([OldNote(name=name) for name in "abc"])
    await name_to_title.run(None)
    note("migrated", await NewNote.find_all().sort("title").to_list())
    async with database.client.start_session() as session, await session.start_transaction():
        await name_to_title.run(session)
    note("in a transaction", [each.title for each in await NewNote.find_all().sort("title").to_list()])
