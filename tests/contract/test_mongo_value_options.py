"""How values are given out: a collection of shadow's answers what the driver's own does with the same options,
whichever store is primary."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from bson import SON, Binary, Decimal128, Int64
from bson.codec_options import CodecOptions, DatetimeConversion, TypeCodec, TypeRegistry
from bson.datetime_ms import DatetimeMS
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, ReturnDocument

from shadow import Shadow
from shadow.model.phase import StoreName
from tests.support.shims import assert_level, settings_for

NAME: Final = "things"
MAKERS: Final = {"motor": AsyncIOMotorClient, "pymongo": AsyncMongoClient}
BOTH = pytest.mark.parametrize(
    ("driver", "primary", "of"), [("motor", StoreName.MONGO, "client"), ("pymongo", StoreName.DYNAMO, "database")]
)
MOMENT: Final = dt.datetime(2024, 2, 3, 4, 5, 6, 789000)
PLAIN: Final = {"_id": 1, "n": Int64(5), "t": MOMENT, "in": {"a": [1, {"b": "c"}]}}
WITH_ID: Final = {**PLAIN, "u": uuid.UUID(int=0x0102030405060708090A0B0C0D0E0F10)}


class Money(TypeCodec):
    """Python's own Decimal, stored as MongoDB's."""

    python_type = Decimal  # type: ignore[assignment]
    bson_type = Decimal128  # type: ignore[assignment]

    def transform_python(self, value: Any) -> Any:
        return Decimal128(value)

    def transform_bson(self, value: Any) -> Any:
        return value.to_decimal()


URLS: Final = {
    "uuidRepresentation=standard": WITH_ID,
    "uuidRepresentation=pythonLegacy": WITH_ID,
    "uuidRepresentation=javaLegacy": WITH_ID,
    "uuidRepresentation=csharpLegacy": WITH_ID,
    "uuidRepresentation=unspecified": {**PLAIN, "u": Binary(b"0123456789abcdef", 4)},
    "tz_aware=true": PLAIN,
    "tz_aware=false": PLAIN,
    "datetime_conversion=DATETIME_AUTO": {**PLAIN, "late": DatetimeMS(2**52)},
    "datetime_conversion=DATETIME_MS": {**PLAIN, "late": DatetimeMS(2**52)},
    "datetime_conversion=DATETIME_CLAMP": {**PLAIN, "late": DatetimeMS(2**52)},
    "unicode_decode_error_handler=replace": PLAIN,
}
CLIENTS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "document_class": ({"document_class": SON}, PLAIN),
    "document_class-ordered": ({"document_class": OrderedDict}, PLAIN),
    "type_registry": ({"type_registry": TypeRegistry([Money()])}, {**PLAIN, "price": Decimal("1.50")}),
    "tzinfo": ({"tz_aware": True, "tzinfo": dt.timezone(dt.timedelta(hours=5))}, PLAIN),
    "uuidRepresentation": ({"uuidRepresentation": "standard"}, WITH_ID),
}


async def answers(collection: Any, document: dict[str, Any]) -> list[Any]:
    """What each verb that answers values gives, with the types of what is in it."""
    await collection.insert_one(dict(document))
    cursor = collection.aggregate([{"$match": {"_id": 1}}, {"$addFields": {"m": "$t"}}])
    if hasattr(cursor, "__await__"):
        cursor = await cursor
    found = [
        await collection.find_one({"_id": 1}),
        await collection.find({"_id": 1}).to_list(None),
        await cursor.to_list(None),
        *[await collection.distinct(name) for name in document if name != "_id"],
        await collection.find_one_and_update({"_id": 1}, {"$set": {"z": 1}}),
        await collection.find_one_and_update({"_id": 1}, {"$inc": {"z": 1}}, return_document=ReturnDocument.AFTER),
        await collection.find_one_and_delete({"_id": 1}),
    ]
    return [shown(each) for each in found]


def shown(value: Any) -> Any:
    inner: Any = value
    if isinstance(value, dict):
        inner = [(name, shown(each)) for name, each in value.items()]
    elif isinstance(value, list):
        inner = [shown(each) for each in value]
    return type(value).__name__, inner, getattr(value, "tzinfo", None) and str(value.utcoffset())


async def closed(client: Any) -> None:
    ended = client.close()
    if ended is not None:
        await ended


@BOTH
@pytest.mark.parametrize("query", list(URLS))
async def test_a_url_decides_how_values_are_given_out(
    one_mongod_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str, primary: StoreName,
    of: str, query: str,
) -> None:  # fmt: skip
    url = f"{one_mongod_url}&{query}"
    bare = MAKERS[driver](url)
    wanted = await answers(bare[fresh_name]["bare"], URLS[query])
    made = settings_for(tmp_path, url, dynamodb_local_url, fresh_name, [NAME], primary=primary, driver=driver)
    async with Shadow.from_settings(made) as shadow:
        await shadow.prepare()
        assert await answers(shadow[NAME], URLS[query]) == wanted
        await assert_level(shadow)
    await bare.drop_database(fresh_name)
    await closed(bare)


@BOTH
@pytest.mark.parametrize("option", list(CLIENTS))
async def test_so_does_what_is_handed_in(
    one_mongod_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str, primary: StoreName,
    of: str, option: str,
) -> None:  # fmt: skip
    options, document = CLIENTS[option]
    given = handed(MAKERS[driver], one_mongod_url, fresh_name, options, of)
    client = given.client if of == "database" else given
    wanted = await answers(given["bare"] if of == "database" else client[fresh_name]["bare"], document)
    made = settings_for(tmp_path, one_mongod_url, dynamodb_local_url, fresh_name, [NAME], primary=primary)
    async with Shadow.from_settings(made, mongo_client=given) as shadow:
        await shadow.prepare()
        assert await answers(shadow[NAME], document) == wanted
        assert await answers(shadow["unconfigured"], document) == wanted
        await assert_level(shadow)
    await client.drop_database(fresh_name)
    await closed(client)


def handed(make: Callable[..., Any], url: str, name: str, options: dict[str, Any], of: str) -> Any:
    if of == "client":
        return make(url, **options)
    codec = {("uuid_representation" if each == "uuidRepresentation" else each): v for each, v in options.items()}
    if "uuid_representation" in codec:
        codec["uuid_representation"] = 4
    return make(url).get_database(name, codec_options=CodecOptions(**codec))


def test_every_option_of_values_is_here() -> None:
    named = {each.partition("=")[0] for each in URLS}
    assert named == {"uuidRepresentation", "tz_aware", "datetime_conversion", "unicode_decode_error_handler"}
    assert {DatetimeConversion.DATETIME_AUTO.name, "DATETIME_MS", "DATETIME_CLAMP"} <= {
        each.partition("=")[2] for each in URLS
    }
