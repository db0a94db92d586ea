"""Every option of a connection to MongoDB, of a client and of a database object, and what becomes of it. Pure data.

Sources: the MongoDB specification "URI Options"; the manual, "Connection Strings"; PyMongo's `common.VALIDATORS` and
the documentation of its `MongoClient` and `get_database`, whose options Motor takes as they are. A test holds the table
against the installed PyMongo: an option that is new there has to get its row here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["OPTIONS", "Fate", "Option", "Where", "find", "of_url"]


class Where(enum.StrEnum):
    URL = "url"
    """In a connection string, and as a keyword of a client that is passed in."""
    CLIENT = "client"
    """Only of a client that is passed in."""
    DATABASE = "database"
    """Of a database object that is passed in; a client has it for all of its databases."""


class Fate(enum.StrEnum):
    HONOURED = "honoured"
    REFUSED = "refused"
    """With a fault that names it, before anything is asked."""
    HARMLESS = "harmless"
    """It means nothing for what is read and written."""


@dataclass(frozen=True, slots=True)
class Option:
    """`means`: what it is. `how`: by whom it is honoured and how; why it is refused, and what to say in its place; why
    it is harmless."""

    name: str
    where: Where
    means: str
    fate: Fate
    how: str


_DRIVER: Final = "by the driver, on every connection"
_NOT_IN_PYMONGO: Final = "PyMongo has no such option and would ignore it"
_OWN: Final = "shadow's own reads and copies end by shadow's limits"
_CODEC: Final = (
    "documents, keys and values are given out by it, whichever store answers; shadow itself reads the bytes that are "
    "stored"
)


_URL, _CLIENT, _DATABASE = Where.URL, Where.CLIENT, Where.DATABASE
_HONOURED, _REFUSED, _HARMLESS = Fate.HONOURED, Fate.REFUSED, Fate.HARMLESS

_SERVERS: Final = (
    Option("replicaSet", _URL, "the name of the set", _HONOURED, "by the driver, which finds the members"),
    Option("directConnection", _URL, "one host alone", _HONOURED, "by the driver; writes need it to be the primary"),
    Option(
        "loadBalanced",
        _URL,
        "the host is a load balancer",
        _HONOURED,
        "by the driver; such a deployment counts as one of several members, so writes go with a majority",
    ),
    Option("srvServiceName", _URL, "service of a `mongodb+srv` name", _HONOURED, "by the driver's look-up"),
    Option("srvMaxHosts", _URL, "most hosts of a `mongodb+srv` name", _HONOURED, "by the driver's look-up"),
    Option(
        "srvAllowedHostsSuffix", _URL, "where the hosts of a `mongodb+srv` name may lie", _HONOURED, "by the driver"
    ),
    Option("heartbeatFrequencyMS", _URL, "between two checks of a server", _HONOURED, "by the driver's monitor"),
    Option("serverMonitoringMode", _URL, "how a server is watched", _HONOURED, "by the driver's monitor"),
    Option(
        "localThresholdMS",
        _URL,
        "how much slower a member may be",
        _HONOURED,
        "by the driver, where `readPreference` leaves a choice",
    ),
)
"""Where the servers are, and how they are watched."""

_TIME_LIMITS: Final = (
    Option(
        "timeoutMS",
        _URL,
        "for one operation in all",
        _HONOURED,
        "for the application's reads and the request of a write; a write that it cuts off is of unknown outcome and "
        f"stays in the journal. {_OWN}: what was acknowledged is replicated however short this is",
    ),
    Option(
        "socketTimeoutMS",
        _URL,
        "for one answer",
        _HONOURED,
        "by the driver for reads; a write ends by twice that (once with `retryWrites=false`), as with the one retry of "
        f"the driver. {_OWN}",
    ),
    Option(
        "connectTimeoutMS",
        _URL,
        "for a new connection",
        _HONOURED,
        "by the driver for reads; a write, and what shadow asks by itself, ends by `limits.operation` instead",
    ),
    Option(
        "serverSelectionTimeoutMS",
        _URL,
        "to wait for a server",
        _HONOURED,
        "by the driver, before each read and write; never beyond shadow's limits",
    ),
    Option(
        "waitQueueTimeoutMS",
        _URL,
        "to wait for a free connection",
        _HONOURED,
        "by the driver for reads; a write, and what shadow asks by itself, ends by `limits.operation` instead",
    ),
    Option("maxIdleTimeMS", _URL, "life of an idle connection", _HONOURED, _DRIVER),
)

_POOLS: Final = (
    Option(
        "maxPoolSize",
        _URL,
        "most connections to a server",
        _HONOURED,
        "by the driver; shadow's own calls share them, and none waits for another while it holds one",
    ),
    Option("minPoolSize", _URL, "connections that are kept", _HONOURED, "by the driver"),
    Option("maxConnecting", _URL, "connections that are made at a time", _HONOURED, "by the driver"),
    Option("waitQueueMultiple", _URL, "of old", _HARMLESS, "PyMongo takes it and does nothing with it"),
)

_WRITES: Final = (
    Option(
        "w",
        _URL,
        "who acknowledges a write",
        _HONOURED,
        "never less than a majority where there are several members: `mongo.weak_writes` raises or refuses less, `w=0` "
        "everywhere; more than a majority is asked for as it is",
    ),
    Option("journal", _URL, "acknowledged when on disk", _HONOURED, "`true` is sent with the application's writes"),
    Option("fsync", _URL, "as `journal`, of old", _HONOURED, "as `journal`"),
    Option(
        "wTimeoutMS",
        _URL,
        "to wait for `w`",
        _HONOURED,
        "sent with the application's writes; a write that it ends is of unknown outcome and stays in the journal",
    ),
    Option(
        "retryWrites",
        _URL,
        "once more after a lost connection",
        _HONOURED,
        "by the driver; without it a lost connection leaves the outcome unknown, and the journal finds out",
    ),
)

_READS: Final = (
    Option(
        "readPreference",
        _URL,
        "which member answers",
        _HONOURED,
        "for the application's reads. What a write looks up, and every read that confirms, repairs or copies, asks the "
        "primary member",
    ),
    Option("readPreferenceTags", _URL, "which members, by tags", _HONOURED, "as `readPreference`"),
    Option("maxStalenessSeconds", _URL, "how far a member may be behind", _HONOURED, "as `readPreference`"),
    Option(
        "readConcernLevel",
        _URL,
        "what is read of a set",
        _HONOURED,
        "for the application's reads. What a write looks up is read as the primary has it (`local`), what confirms, "
        "repairs or copies `linearizable`",
    ),
    Option("retryReads", _URL, "once more after a lost connection", _HONOURED, "by the driver"),
)

_WIRE: Final = (
    Option(
        "compressors", _URL, "compression on the wire", _HONOURED, "by the driver; `snappy` and `zstd` need a package"
    ),
    Option("zlibCompressionLevel", _URL, "of `zlib`", _HONOURED, "by the driver"),
    Option(
        "appName",
        _URL,
        "name in the server's log",
        _HONOURED,
        "by the driver; journal and control store have their own",
    ),
    Option("maxAdaptiveRetries", _URL, "retries of an overloaded server", _HONOURED, "by the driver"),
    Option("enableOverloadRetargeting", _URL, "other members when one is overloaded", _HONOURED, "by the driver"),
)

_IDENTITY: Final = (
    Option("authSource", _URL, "database of the user", _HONOURED, _DRIVER),
    Option(
        "authMechanism",
        _URL,
        "how to prove who is there",
        _HONOURED,
        f"{_DRIVER}; `GSSAPI` and `MONGODB-AWS` need a package of their own",
    ),
    Option("authMechanismProperties", _URL, "of the mechanism", _HONOURED, _DRIVER),
    Option("tls", _URL, "an encrypted connection", _HONOURED, _DRIVER),
    Option("ssl", _URL, "as `tls`, of old", _HONOURED, "as `tls`"),
    Option("tlsCAFile", _URL, "who may sign for a server", _HONOURED, _DRIVER),
    Option("tlsCertificateKeyFile", _URL, "the client's certificate and key", _HONOURED, _DRIVER),
    Option("tlsCertificateKeyFilePassword", _URL, "of that key", _HONOURED, f"{_DRIVER}; never shown"),
    Option("tlsCRLFile", _URL, "certificates that were withdrawn", _HONOURED, _DRIVER),
    Option("tlsInsecure", _URL, "no checks of the server", _HONOURED, _DRIVER),
    Option("tlsAllowInvalidCertificates", _URL, "no check of the certificate", _HONOURED, _DRIVER),
    Option("tlsAllowInvalidHostnames", _URL, "no check of the name", _HONOURED, _DRIVER),
    Option("tlsDisableOCSPEndpointCheck", _URL, "no question to the signer", _HONOURED, _DRIVER),
)

_VALUES: Final = (
    Option("uuidRepresentation", _URL, "how UUIDs are stored", _HONOURED, _CODEC),
    Option("tz_aware", _URL, "dates with a time zone", _HONOURED, _CODEC),
    Option("unicode_decode_error_handler", _URL, "text that is no UTF-8", _HONOURED, _CODEC),
    Option("datetime_conversion", _URL, "dates that Python lacks", _HONOURED, _CODEC),
)

_UNKNOWN_TO_PYMONGO: Final = (
    *(
        Option(name, _URL, "a SOCKS5 proxy", _REFUSED, f"{_NOT_IN_PYMONGO}, and bypass the proxy; remove it")
        for name in ("proxyHost", "proxyPort", "proxyUsername", "proxyPassword")
    ),
    Option(
        "serverSelectionTryOnce",
        _URL,
        "for drivers with one thread",
        _REFUSED,
        f"{_NOT_IN_PYMONGO}; say serverSelectionTimeoutMS",
    ),
    Option(
        "tlsDisableCertificateRevocationCheck",
        _URL,
        "no look at withdrawn certificates",
        _REFUSED,
        f"{_NOT_IN_PYMONGO}; say tlsDisableOCSPEndpointCheck",
    ),
    Option(
        "gssapiServiceName",
        _URL,
        "of old",
        _REFUSED,
        f"{_NOT_IN_PYMONGO}; say authMechanismProperties=SERVICE_NAME:name",
    ),
    Option("j", _URL, "of old", _REFUSED, f"{_NOT_IN_PYMONGO}; say journal"),
    Option("wtimeout", _URL, "of old", _REFUSED, f"{_NOT_IN_PYMONGO}; say wTimeoutMS"),
    Option("slaveOk", _URL, "of old", _REFUSED, f"{_NOT_IN_PYMONGO}; say readPreference=secondaryPreferred"),
    Option("safe", _URL, "of old", _REFUSED, f"{_NOT_IN_PYMONGO}; say w=majority"),
)
"""What the specification has and PyMongo has not, and what has another name by now."""

_OF_A_CLIENT: Final = (
    Option("document_class", _CLIENT, "the class of documents", _HONOURED, _CODEC),
    Option("type_registry", _CLIENT, "values of types of one's own", _HONOURED, _CODEC),
    Option("tzinfo", _CLIENT, "the zone of dates", _HONOURED, _CODEC),
    Option("read_preference", _CLIENT, "as `readPreference`", _HONOURED, "as `readPreference`"),
    Option(
        "server_api",
        _CLIENT,
        "the Stable API",
        _HONOURED,
        "by the driver; refused with `strict=True`, which forbids the bounds by which jobs walk a "
        "collection (and `distinct`): hand in a client without it",
    ),
    Option(
        "auto_encryption_opts",
        _CLIENT,
        "fields that the client encrypts",
        _REFUSED,
        "where both stores are written, for DynamoDB would hold in the clear what MongoDB holds encrypted; encrypt "
        "explicitly (`ClientEncryption`), or keep the collections in phase off",
    ),
    Option(
        "event_listeners",
        _CLIENT,
        "a listener for every command",
        _HONOURED,
        "by the driver; they see shadow's own too",
    ),
    Option("driver", _CLIENT, "a name in the server's log", _HARMLESS, "the server's log shows it"),
    Option("connect", _CLIENT, "connect at once", _HARMLESS, "the first call connects"),
    Option("username", _CLIENT, "as in the url", _HONOURED, _DRIVER),
    Option("password", _CLIENT, "as in the url", _HONOURED, _DRIVER),
    Option(
        "server_selector",
        _CLIENT,
        "which servers may be asked",
        _HONOURED,
        "by the driver, for shadow's own calls too: it must leave the primary member",
    ),
    Option("srv_host_validator", _CLIENT, "hosts of a `mongodb+srv` name", _HONOURED, "by the driver"),
    Option("authOIDCAllowedHosts", _CLIENT, "whom tokens may be sent to", _HONOURED, "by the driver"),
    Option("max_adaptive_retries", _CLIENT, "as in the url", _HONOURED, "by the driver"),
    Option("enable_overload_retargeting", _CLIENT, "as in the url", _HONOURED, "by the driver"),
)

_OF_A_DATABASE: Final = (
    Option("codec_options", _DATABASE, "how values are given out", _HONOURED, _CODEC),
    Option("read_preference", _DATABASE, "as `readPreference`", _HONOURED, "as `readPreference`, before the client's"),
    Option("write_concern", _DATABASE, "as `w`, `journal`, `wTimeoutMS`", _HONOURED, "as those, before the client's"),
    Option("read_concern", _DATABASE, "as `readConcernLevel`", _HONOURED, "as that, before the client's"),
)

OPTIONS: Final[tuple[Option, ...]] = (
    *_SERVERS,
    *_TIME_LIMITS,
    *_POOLS,
    *_WRITES,
    *_READS,
    *_WIRE,
    *_IDENTITY,
    *_VALUES,
    *_UNKNOWN_TO_PYMONGO,
    *_OF_A_CLIENT,
    *_OF_A_DATABASE,
)

_BY_NAME: Final[Mapping[tuple[Where, str], Option]] = {(each.where, each.name.lower()): each for each in OPTIONS}


def find(name: str, where: Where) -> Option | None:
    """The row of an option; names are the same in large and small letters, as they are in a connection string."""
    return _BY_NAME.get((where, name.lower()))


def of_url() -> list[str]:
    """The names that a connection string may have, without those that are refused."""
    return [each.name for each in OPTIONS if each.where is Where.URL and each.fate is not Fate.REFUSED]
