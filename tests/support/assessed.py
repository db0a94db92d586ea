"""A database to assess: the real documents, with indexes, validators, odd values, large documents, and the profiler on
for a while."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any, Final

import pymongo
from bson import Code, Decimal128, Int64, MinKey, ObjectId, Timestamp

__all__ = ["SECRET", "SECRET_KEY", "fill", "record"]

SECRET: Final = "hunter2"
SECRET_KEY: Final = ObjectId(SECRET.encode().hex().ljust(24, "0"))

Documents = dict[str, list[dict[str, Any]]]


def fill(url: str, database: str, real: Documents) -> None:
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        db = client[database]
        for name, documents in real.items():
            db[name].insert_many(documents)
        db["users"].create_index("email", unique=True)
        db["customers"].create_index([("username", 1)], name="by_user")
        db["customers"].create_index([("active", 1)])
        db["customers"].create_index([("address", "text")])
        db["customers"].create_index([("birthdate", 1)], expireAfterSeconds=10**9)
        db["accounts"].create_index([("products", 1)])
        db["accounts"].create_index([("limit", 1), ("account_id", -1)])
        db["accounts"].create_index([("account_id", 1)], unique=True, partialFilterExpression={"limit": {"$gt": 10**9}})
        db["theaters"].create_index([("location.geo", "2dsphere")])
        db["theaters"].create_index([("location.address.zipcode", 1)])
        db["books"].create_index([("isbn", 1)], sparse=True)
        db["books"].create_index([("title", 1)], collation={"locale": "en", "strength": 2})
        db["odd"].insert_many(odd())
        db["odd"].create_index([("code", 1), ("at", 1)])
        db["strict"].insert_many([{"name": f"{SECRET}{i}"} for i in range(10)])
        db.command("collMod", "strict", validator=closed())
        db["counted"].insert_many([{"a": 1, "b": 2} for _ in range(5)])
        db.command("collMod", "counted", validator={"$expr": {"$eq": [{"$size": {"$objectToArray": "$$ROOT"}}, 3]}})
        db["own"].insert_many([{"_shadow": f"{SECRET}{i}", "a": i} for i in range(3)])
        db.create_collection("seen", viewOn="users", pipeline=[{"$match": {"name": SECRET}}])
        db["x"].insert_one({"a": 1})


def closed() -> dict[str, Any]:
    """A validator that refuses every other field."""
    properties = {"_id": {}, "name": {"bsonType": "string", "pattern": f"{SECRET}|other"}}
    return {"$jsonSchema": {"bsonType": "object", "properties": properties, "additionalProperties": False}}


def odd() -> list[dict[str, Any]]:
    """Keys and values of every kind, documents near, over and far over 400 KB, deep ones, maps by e-mail address."""
    noise = random.Random(7).randbytes(700_000)
    deep: Any = SECRET
    for _ in range(40):
        deep = {"in": deep}
    return [
        {"_id": SECRET, "code": "a" * 3000, "at": dt.datetime(2020, 1, 1)},
        {"_id": SECRET_KEY, "code": "", "at": None},
        {"_id": 5.5, "code": Decimal128("1.50"), "at": Int64(7)},
        {"_id": {"a": SECRET}, "code": ["b", SECRET]},
        {"_id": Int64(2**40), "code": None, "big": "x" * 500_000},
        {"_id": Decimal128("7"), "code": SECRET, "noise": noise},
        {"_id": "near", "code": SECRET, "text": "y" * 380_000},
        {"_id": "deep", "code": SECRET, "deep": deep, "inf": float("inf"), "js": Code("f()"), "ts": Timestamp(1, 2)},
        {"_id": "map", "code": SECRET, "by": {f"{SECRET}@example.org": {"n": MinKey()}}, "": SECRET},
        *({"_id": f"hot{i}", "code": SECRET, "at": dt.datetime(2021, 1, 1)} for i in range(200)),
    ]


def record(url: str, database: str) -> None:
    """Queries, under the profiler."""
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        db = client[database]
        db.command("profile", 2)
        for i in range(30):
            db["users"].find_one({"_id": SECRET_KEY})
            db["customers"].find_one({"username": f"{SECRET}{i}"})
            list(db["customers"].find({"email": f"{SECRET}{i}"}, sort=[("birthdate", -1)], limit=5))
        list(db["theaters"].find({"location.address.city": SECRET}))
        list(db["theaters"].find({"location.geo": {"$near": {"$geometry": {"type": "Point", "coordinates": [1, 2]}}}}))
        doubled = {"$function": {"body": "function(n) { return n * 2 }", "args": ["$n"], "lang": "js"}}
        list(db["books"].aggregate([{"$match": {"status": SECRET}}, {"$addFields": {"n": doubled}}]))
        db["accounts"].update_one({"account_id": 5}, {"$set": {"limit": 7}})
        db["accounts"].count_documents({"limit": {"$gt": 10**9}})
        db["accounts"].delete_many({"limit": -1})
        db["accounts"].distinct("limit", {"products": SECRET})
        db.command("profile", 0)
