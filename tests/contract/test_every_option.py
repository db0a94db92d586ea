"""Walks through the table of options, row by row: with each one, reads, look-ups inside writes, writes and shadow's own
second looks work on a replica set, everything that decides is asked of the primary member, and nothing is written with
less than a majority. What needs other servers is walked where those are, or named here with the reason."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Mapping
from typing import Any, Final

import pytest
from bson import SON
from bson.codec_options import CodecOptions, TypeRegistry
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.driver_info import DriverInfo
from pymongo.read_concern import ReadConcern
from pymongo.server_api import ServerApi

from shadow.model.operation import Insert
from shadow.model.schema import CollectionSpec
from shadow.model.version import fresh_id
from shadow.stores.mongo.checks import url_faults
from shadow.stores.mongo.options import OPTIONS, Fate, Option, Where
from shadow.stores.mongo.store import MongoContext, MongoStore
from tests.contract.test_mongo_options import NAME, look_up, own_reads, own_writes, read_all, write_all
from tests.contract.test_mongo_security_options import ACCEPTED
from tests.support.topologies import Members, admit
from tests.support.trail_of_commands import READS, WRITES, Commands

CLIENTS = pytest.mark.parametrize("make", [AsyncIOMotorClient, AsyncMongoClient], ids=["motor", "pymongo"])
EITHER = pytest.mark.drawn_over("make", reason="both read the options by the same code, PyMongo's")

URLS: Final[Mapping[str, str]] = {
    "replicaSet": "replicaSet=rs0",
    "directConnection": "directConnection=false",
    "heartbeatFrequencyMS": "heartbeatFrequencyMS=5000",
    "serverMonitoringMode": "serverMonitoringMode=poll",
    "localThresholdMS": "localThresholdMS=0&readPreference=nearest",
    "timeoutMS": "timeoutMS=20000",
    "socketTimeoutMS": "socketTimeoutMS=20000",
    "connectTimeoutMS": "connectTimeoutMS=20000",
    "serverSelectionTimeoutMS": "serverSelectionTimeoutMS=20000",
    "waitQueueTimeoutMS": "waitQueueTimeoutMS=20000",
    "maxIdleTimeMS": "maxIdleTimeMS=1",
    "maxPoolSize": "maxPoolSize=1",
    "minPoolSize": "minPoolSize=2",
    "maxConnecting": "maxConnecting=1",
    "waitQueueMultiple": "waitQueueMultiple=5",
    "w": "w=0",
    "journal": "journal=false&w=1",
    "fsync": "fsync=true",
    "wTimeoutMS": "wTimeoutMS=20000",
    "retryWrites": "retryWrites=false",
    "readPreference": "readPreference=secondary",
    "readPreferenceTags": "readPreference=nearest&readPreferenceTags=m9:yes&readPreferenceTags=",
    "maxStalenessSeconds": "readPreference=secondaryPreferred&maxStalenessSeconds=120",
    "readConcernLevel": "readConcernLevel=majority",
    "retryReads": "retryReads=false",
    "compressors": "compressors=zlib",
    "zlibCompressionLevel": "compressors=zlib&zlibCompressionLevel=9",
    "appName": "appName=a%20walk",
    "maxAdaptiveRetries": "maxAdaptiveRetries=1",
    "enableOverloadRetargeting": "enableOverloadRetargeting=true",
    "uuidRepresentation": "uuidRepresentation=javaLegacy",
    "tz_aware": "tz_aware=true",
    "unicode_decode_error_handler": "unicode_decode_error_handler=replace",
    "datetime_conversion": "datetime_conversion=DATETIME_MS",
}
"""Option of a connection string to what the walk says of it."""

KEYWORDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "document_class": {"document_class": SON},
    "type_registry": {"type_registry": TypeRegistry()},
    "tzinfo": {"tz_aware": True, "tzinfo": dt.timezone(dt.timedelta(hours=2))},
    "read_preference": {"read_preference": ReadPreference.SECONDARY},
    "server_api": {"server_api": ServerApi("1", deprecation_errors=True)},
    "event_listeners": {},
    "driver": {"driver": DriverInfo("walk", "1.0")},
    "connect": {"connect": False},
    "server_selector": {"server_selector": lambda servers: servers},
    "max_adaptive_retries": {"max_adaptive_retries": 1},
    "enable_overload_retargeting": {"enable_overload_retargeting": True},
}
"""Option of a client to its keywords. (The walk listens to every client.)"""

DATABASES: Final[Mapping[str, Any]] = {
    "codec_options": CodecOptions(document_class=SON),
    "read_preference": ReadPreference.SECONDARY,
    "write_concern": WriteConcern(w=1, j=False),
    "read_concern": ReadConcern("majority"),
}
"""Option of a database object to its value."""

ELSEWHERE: Final[Mapping[str, str]] = {
    "username": "test_users_are_named_by_keywords_too",
    "password": "test_users_are_named_by_keywords_too",
    "auto_encryption_opts": "test_collection_kinds: it takes a library that is not installed",
}
NO_SERVER: Final[Mapping[str, str]] = {
    "loadBalanced": "mongodb://host/?loadBalanced=true",
    "srvServiceName": "mongodb+srv://host.example.org/?srvServiceName=other",
    "srvMaxHosts": "mongodb+srv://host.example.org/?srvMaxHosts=2",
    "srvAllowedHostsSuffix": "mongodb+srv://host.example.org/?srvAllowedHostsSuffix=.example.org",
    "authMechanismProperties": "mongodb://u:p@host/?authMechanism=PLAIN&authMechanismProperties=SERVICE_NAME:mongo",
}
"""Option to a connection string of a deployment that no test has: it is accepted, and asks nobody."""
NO_SERVER_OF_CLIENTS: Final = frozenset({"srv_host_validator", "authOIDCAllowedHosts"})
"""Likewise, of a client: the driver's own parameters of look-ups and of a way to sign in."""


SECURED: Final = "".join([*ACCEPTED.values(), "&tls=true&tlsCAFile="])
"""What `test_mongo_security_options` goes through a whole Shadow with; the last are in each of its addresses."""


def rows(where: Where) -> list[Option]:
    return [each for each in OPTIONS if each.where is where]


def test_the_walk_leaves_out_no_row() -> None:
    secured = {each.name for each in rows(Where.URL) if f"&{each.name}=" in SECURED or f"?{each.name}=" in SECURED}
    refused = {each.name for each in rows(Where.URL) if each.fate is Fate.REFUSED}
    assert {*URLS, *secured, *refused, *NO_SERVER} == {each.name for each in rows(Where.URL)}
    assert not {*URLS} & {*refused, *NO_SERVER}
    walked = {*KEYWORDS, *ELSEWHERE, *NO_SERVER_OF_CLIENTS}
    assert walked == {each.name for each in rows(Where.CLIENT)}
    assert {*DATABASES} == {each.name for each in rows(Where.DATABASE)}


@pytest.mark.parametrize("name", list(NO_SERVER))
def test_an_option_of_a_deployment_that_is_not_here_is_taken(name: str) -> None:
    assert list(url_faults(NO_SERVER[name])) == []


async def walk(
    make: Any,
    replica_set: Members,
    database: str,
    url: str,
    keywords: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    commands, primary = Commands(), {replica_set.primary.port}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the driver, for an option of old
        client = make(url, event_listeners=[commands], **keywords)
    store = MongoStore(client, database, {}, owned=True, context=MongoContext(options=options))
    try:
        await store.prepare([CollectionSpec(NAME)])
        # By all members: whoever is asked for it below has it.
        plain = MongoStore(make(f"{replica_set.url}&w=3"), database, {}, owned=True)
        await plain.apply(NAME, Insert("first", {"_id": "first", "n": 1}, fresh_id()), fresh_id())
        await plain.close()
        commands.take()
        await read_all(store)
        for calls in (look_up, write_all, own_reads, own_writes):
            commands.take()
            await calls(store)
            said = commands.take()
            assert {each.member[1] for each in said} == primary, calls
            for each in said:
                if each.name in WRITES:
                    assert each.write_concern["w"] == "majority", (calls, each.name)
                elif each.name in READS:
                    assert each.read_concern in ("local", "linearizable"), (calls, each.name)
    finally:
        await store.close()


@EITHER
@CLIENTS
@pytest.mark.parametrize("name", list(URLS))
async def test_an_option_of_the_url(make: Any, replica_set: Members, fresh_name: str, name: str) -> None:
    said = URLS[name]
    url = replica_set.url if said in replica_set.url else f"{replica_set.url}&{said}"
    await walk(make, replica_set, fresh_name, url, {}, {})


@EITHER
@CLIENTS
@pytest.mark.parametrize("name", list(KEYWORDS))
async def test_an_option_of_a_client(make: Any, replica_set: Members, fresh_name: str, name: str) -> None:
    if name == "driver":
        make = AsyncMongoClient  # Motor says its own name there
    await walk(make, replica_set, fresh_name, replica_set.url, KEYWORDS[name], {})


@EITHER
@CLIENTS
@pytest.mark.parametrize("name", list(DATABASES))
async def test_an_option_of_a_database_object(make: Any, replica_set: Members, fresh_name: str, name: str) -> None:
    await walk(make, replica_set, fresh_name, replica_set.url, {}, {name: DATABASES[name]})


@CLIENTS
async def test_users_are_named_by_keywords_too(make: Any, least_role_url: str, least_role_database: str) -> None:
    admit(least_role_url, least_role_database)
    scheme, _, rest = least_role_url.partition("://")
    user, _, place = rest.partition("@")
    name, _, password = user.partition(":")
    client = make(f"{scheme}://{place}", username=name, password=password)
    store = MongoStore(client, least_role_database, {}, owned=True)
    try:
        await store.prepare([CollectionSpec(NAME)])
        for calls in (write_all, read_all, look_up, own_reads, own_writes):
            await calls(store)
    finally:
        await store.close()
