"""The table of options against the installed PyMongo, and what a connection string, or a client that is handed in, is
told before anything is asked."""

from __future__ import annotations

import re
from typing import Any

import pytest
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient, ReadPreference, WriteConcern, common
from pymongo.read_concern import ReadConcern
from pymongo.server_api import ServerApi

from shadow import Shadow
from shadow.config import Settings, parse
from shadow.errors import ConfigurationError
from shadow.stores.mongo.checks import database_of_url, handed_in, url_faults
from shadow.stores.mongo.options import OPTIONS, Fate, Where, find
from tests.support import manual
from tests.support.cases import each_of


def named(text: str) -> list[str]:
    return text.split()


# The headings of the specification "URI Options" and of the manual's "Connection Strings".
SPECIFIED = named(
    """appName authMechanism authMechanismProperties authSource compressors connectTimeoutMS directConnection
    enableOverloadRetargeting gssapiServiceName heartbeatFrequencyMS journal loadBalanced localThresholdMS
    maxAdaptiveRetries maxConnecting maxIdleTimeMS maxPoolSize maxStalenessSeconds minPoolSize proxyHost proxyPassword
    proxyPort proxyUsername readConcernLevel readPreference readPreferenceTags replicaSet retryReads retryWrites
    serverMonitoringMode serverSelectionTimeoutMS serverSelectionTryOnce socketTimeoutMS srvMaxHosts srvServiceName ssl
    timeoutMS tls tlsAllowInvalidCertificates tlsAllowInvalidHostnames tlsCAFile tlsCertificateKeyFile
    tlsCertificateKeyFilePassword tlsDisableCertificateRevocationCheck tlsDisableOCSPEndpointCheck tlsInsecure
    uuidRepresentation w waitQueueMultiple waitQueueTimeoutMS wTimeoutMS zlibCompressionLevel"""
)
OF_A_CLIENT_ALONE = {"connect", "driver", "server_api"}
"""PyMongo lists them among those of a connection string, whose text none of them can be made of."""
CLIENTS = pytest.mark.parametrize("make", [AsyncIOMotorClient, AsyncMongoClient], ids=["motor", "pymongo"])


# --- the table --------------------------------------------------------------------------------------------------


@each_of("name", sorted(common.URI_OPTIONS_VALIDATOR_MAP))
def test_every_option_of_a_url_that_pymongo_knows_has_a_row(name: str) -> None:
    row = find(name, Where.CLIENT if name in OF_A_CLIENT_ALONE else Where.URL)
    assert row is not None, f"PyMongo has an option {name} that shadow/stores/mongo/options.py says nothing of"


@each_of("name", sorted(common.KW_VALIDATORS))
def test_every_option_of_a_client_that_pymongo_knows_has_a_row(name: str) -> None:
    assert find(name, Where.CLIENT) is not None


@each_of("name", SPECIFIED)
def test_every_option_of_the_specification_has_a_row(name: str) -> None:
    row = find(name, Where.URL)
    assert row is not None
    assert row.name == name


@each_of("option", [each for each in OPTIONS if each.where is Where.URL], ids=lambda each: each.name)
def test_what_pymongo_does_not_know_is_refused_and_nothing_else(option: Any) -> None:
    assert (option.fate is Fate.REFUSED) == (option.name.lower() not in common.URI_OPTIONS_VALIDATOR_MAP)


def test_an_option_has_one_row_in_each_place() -> None:
    places = [(each.where, each.name.lower()) for each in OPTIONS]
    assert len(places) == len(set(places))


def test_the_manual_has_a_line_for_each() -> None:
    for option in OPTIONS:
        assert f"`{option.name}`" in manual.options()


# --- a connection string ----------------------------------------------------------------------------------------

GOOD = [
    "",
    "replicaSet=rs0&w=majority&journal=true&wTimeoutMS=500",
    "readPreference=secondary&readPreferenceTags=dc:ny,rack:1&readPreferenceTags=&maxStalenessSeconds=120",
    "READPREFERENCE=nearest;localThresholdMS=20",
    "loadBalanced=true",
    "compressors=snappy,zlib&zlibCompressionLevel=9",
    "tls=true&tlsInsecure=true",
    "timeoutMS=500&serverSelectionTimeoutMS=100&connectTimeoutMS=100&socketTimeoutMS=100&waitQueueTimeoutMS=10",
    "maxPoolSize=1&minPoolSize=1&maxConnecting=1&maxIdleTimeMS=100&waitQueueMultiple=2",
    "retryWrites=false&retryReads=false&readConcernLevel=majority",
    "heartbeatFrequencyMS=1000&serverMonitoringMode=poll&directConnection=true&appName=app",
    "uuidRepresentation=standard&tz_aware=true&unicode_decode_error_handler=replace&datetime_conversion=DATETIME_AUTO",
    "authSource=admin&fsync=true&ssl=false&tlsDisableOCSPEndpointCheck=true",
    "maxAdaptiveRetries=2&enableOverloadRetargeting=true",
]

BAD = [
    ("foo=1", "the option foo is unknown to PyMongo"),
    ("readPreferense=secondary", "did you mean readPreference?"),
    ("document_class=dict", "the option document_class is unknown to PyMongo"),
    ("server_api=1", "the option server_api"),
    ("readPreference=secondry", "the option readPreference: secondry is not a valid read preference"),
    ("readConcernLevel=strong", "the option readConcernLevel: 'strong' is not one of local, available"),
    ("w=1&W=majority", "the option w is set twice"),
    ("timeoutMS=soon", "the option timeoutMS"),
    ("maxPoolSize=-1", "the option maxPoolSize"),
    ("retryWrites=maybe", "the option retryWrites"),
    ("tlsCAFile=/no/such/file", "the option tlsCAFile: this file cannot be read"),
    ("datetime_conversion=late", "the option datetime_conversion: 'late' is not a valid value"),
    ("uuidRepresentation=own", "the option uuidRepresentation"),
    ("authMechanism=MAGIC", "the option authMechanism"),
    ("authMechanism=MONGODB-AWS", r"MONGODB-AWS needs a package that is not installed: pip install 'pymongo\[aws\]'"),
    ("authMechanism=GSSAPI", r"GSSAPI needs a package that is not installed: pip install 'pymongo\[gssapi\]'"),
    ("loadBalanced=true&directConnection=true", "directConnection=true with loadBalanced=true"),
    ("loadBalanced=true&replicaSet=rs0", "replicaSet with loadBalanced=true"),
    ("readPreference=primary&readPreferenceTags=dc:ny", "primary cannot be combined with tags"),
    ("maxStalenessSeconds=120", "primary cannot be combined with maxStalenessSeconds"),
    ("w=0&journal=true", "Cannot set w to 0 and j to True"),
    ("tls=true&ssl=false", "conflicting values for URI options ssl and tls"),
    ("tlsInsecure=true&tlsAllowInvalidCertificates=true", "cannot be specified simultaneously"),
    ("srvServiceName=own", r"srvServiceName option is only allowed with 'mongodb\+srv://'"),
    ("w", "must be a connection string that PyMongo reads"),
    ("w=1&journal=true;appName=x", "must be a connection string that PyMongo reads"),
    *((f"{each.name}=1", re.escape(each.how)) for each in OPTIONS if (each.where, each.fate) == ("url", "refused")),
]


@each_of("query", GOOD)
def test_what_the_driver_takes_is_taken(query: str) -> None:
    assert url_faults(f"mongodb://user:p%40ss@host/db?{query}") == []
    assert parse(f"mongo: {{url: 'mongodb://host/db?{query}'}}", {}).mongo.database == "db"


@each_of(("query", "said"), BAD)
def test_what_the_driver_would_leave_aside_is_a_fault_with_the_option_s_name(query: str, said: str) -> None:
    for section in ("mongo",) if "journal=" in query else ("mongo", "journal", "control"):
        with pytest.raises(ConfigurationError, match=said) as refused:
            parse(f"{section}: {{url: 'mongodb://user:sesame@host/db?{query}'}}", {})
        assert [fault.field for fault in refused.value.faults] == [f"{section}.url"]
        assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("option", ["tlsCertificateKeyFilePassword", "authMechanismProperties"])
def test_the_value_of_a_secret_option_is_never_shown(option: str) -> None:
    faults = url_faults(f"mongodb://host/?authMechanism=MONGODB-OIDC&{option}=SESAME:sesame")
    assert "sesame" not in " ".join(faults).lower()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mongodb://host/?tls=true&tlsCertificateKeyFilePassword=sesame", "tlsCertificateKeyFile, which is not set"),
        (
            "mongodb://host/?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:sesame",
            "goes with user and password",
        ),
    ],
)
def test_a_part_of_credentials_without_the_rest_is_refused(url: str, said: str) -> None:
    faults = " ".join(url_faults(url))
    assert said in faults
    assert "sesame" not in faults


@each_of(
    ("url", "said"),
    [
        ("mongodb+srv://cluster.example.com/?srvServiceName=own&srvMaxHosts=2", None),
        ("mongodb+srv://user:pw@cluster.example.com/db?retryWrites=true&w=majority", None),
        ("mongodb+srv://a.example.com,b.example.com/", "one, and only one, hostname"),
        ("mongodb+srv://a.example.com:27017/", "must not include a port number"),
        ("mongodb+srv://a.example.com/?directConnection=true", "Cannot specify directConnection"),
        ("mongodb+srv://a.example.com/?srvMaxHosts=2&replicaSet=rs0", "srvMaxHosts"),
        ("mongodb+srv://a.example.com/?loadBalanced=true", None),
        ("mongodb://u@host/?authMechanism=MONGODB-X509&tls=true", None),
        ("mongodb://u:p@host/?authMechanism=PLAIN&authSource=$external", None),
        ("mongodb://host/?authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:azure,TOKEN_RESOURCE:x", None),
    ],
)
def test_a_name_that_is_to_be_looked_up_is_only_read(url: str, said: str | None) -> None:
    faults = url_faults(url)
    assert bool(faults) == (said is not None)
    assert (said or "") in " ".join(faults)


@each_of(
    ("given", "database"),
    [
        ("{url: 'mongodb://h/notes?w=1'}", "notes"),
        ("{url: 'mongodb://h/notes.users'}", "notes"),
        ("{url: 'mongodb+srv://h.example.com/my%2Dnotes'}", "my-notes"),
        ("{url: 'mongodb://h/notes', database: other}", "other"),
        ("{url: 'mongodb://u:p@h/admin', database: other}", "other"),
        ("{url: 'mongodb://h/'}", "notesllm"),
        ("{url: 'mongodb://h'}", "notesllm"),
    ],
)
def test_the_database_is_that_of_the_url_unless_the_settings_name_one(given: str, database: str) -> None:
    assert parse(f"mongo: {given}", {}).mongo.database == database


@pytest.mark.parametrize("name", ["admin", "local", "config"])
def test_a_database_of_the_server_s_own_is_no_place_for_documents(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"set mongo\.database"):
        parse(f"mongo: {{url: 'mongodb://u:p@h/{name}'}}", {})
    with pytest.raises(ValueError, match="authSource"):
        database_of_url(f"mongodb://h/{name}?w=1")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mongodb://h/d?journal=true", "journal=NAME names its collections"),
        ("mongodb:///d?w=1", "the option w: without a host, the options of mongo.url apply"),
    ],
)
def test_a_journal_s_url_says_what_it_means(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse(f"journal: {{url: '{url}'}}", {})


# --- what is handed in ------------------------------------------------------------------------------------------


def shadow_with(given: Any) -> Shadow:
    return Shadow.from_settings(Settings(mongo={"database": "notes"}), mongo_client=given)


@CLIENTS
async def test_what_a_client_cannot_have_is_refused_by_name_at_start(make: Any) -> None:
    strict = make("mongodb://host", server_api=ServerApi("1", strict=True))
    with pytest.raises(ConfigurationError, match=r"server_api[\s\S]*strict"):
        shadow_with(strict)
    plain = make("mongodb://host", server_api=ServerApi("1", deprecation_errors=True))
    assert shadow_with(plain)._engine.kept().write_concern == WriteConcern()


@pytest.mark.parametrize("given", [MongoClient("mongodb://host", connect=False), "mongodb://host", object()])
def test_a_client_of_another_kind_is_refused_by_its_class(given: Any) -> None:
    with pytest.raises(TypeError, match=type(given).__name__):
        shadow_with(given)


@CLIENTS
async def test_a_database_object_has_options_that_go_before_its_client_s(make: Any) -> None:
    client = make("mongodb://host/?w=1&readPreference=nearest&uuidRepresentation=standard")
    options = {
        "codec_options": CodecOptions(tz_aware=True),
        "read_preference": ReadPreference.SECONDARY,
        "write_concern": WriteConcern(w=3),
        "read_concern": ReadConcern("majority"),
    }
    database = client.get_database("notes", **options)
    assert handed_in(database).options == options
    kept = shadow_with(database)._engine.kept()
    assert {name: getattr(kept, name) for name in options} == options
    with pytest.raises(ConfigurationError, match=r"mongo\.database: other"):
        shadow_with(client.get_database("other"))
