"""Every option of a connection to MongoDB, of a client and of a database object, and how it is treated. Pure data.

Sources: the MongoDB specification "URI Options"; the manual, "Connection Strings"; PyMongo's `common.VALIDATORS` and
the documentation of its `MongoClient` and `get_database`, whose options Motor accepts unchanged. A test compares the
table with the installed PyMongo: a new option there needs a row here.
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
    """Rejected with a fault that names it, before any request."""
    HARMLESS = "harmless"
    """It has no effect on reads and writes."""


@dataclass(frozen=True, slots=True)
class Option:
    """`means`: what it is. `how`: how it is honoured and by which component; or why it is refused, and what to use
    instead; or why it is harmless."""

    name: str
    where: Where
    means: str
    fate: Fate
    how: str


_DRIVER: Final = "by the driver, on every connection"
_NOT_IN_PYMONGO: Final = "PyMongo has no such option and would ignore it"
_OWN: Final = "shadow's own reads and copies have shadow's limits"
_CODEC: Final = (
    "applies to returned documents, keys and values, whichever store answers; shadow itself reads the bytes that are "
    "stored"
)


_URL, _CLIENT, _DATABASE = Where.URL, Where.CLIENT, Where.DATABASE
_HONOURED, _REFUSED, _HARMLESS = Fate.HONOURED, Fate.REFUSED, Fate.HARMLESS

_SERVERS: Final = (
    Option("replicaSet", _URL, "name of the replica set", _HONOURED, "by the driver, which finds the members"),
    Option(
        "directConnection", _URL, "connect to one host only", _HONOURED, "by the driver; writes need the primary there"
    ),
    Option(
        "loadBalanced",
        _URL,
        "whether the host is a load balancer",
        _HONOURED,
        "by the driver; such a deployment counts as several members, so writes use `w: majority`",
    ),
    Option("srvServiceName", _URL, "service name of a `mongodb+srv` URL", _HONOURED, "by the driver's DNS lookup"),
    Option(
        "srvMaxHosts", _URL, "maximum number of hosts of a `mongodb+srv` URL", _HONOURED, "by the driver's DNS lookup"
    ),
    Option(
        "srvAllowedHostsSuffix", _URL, "domain of the hosts from a `mongodb+srv` lookup", _HONOURED, "by the driver"
    ),
    Option("heartbeatFrequencyMS", _URL, "interval of server checks", _HONOURED, "by the driver's monitor"),
    Option("serverMonitoringMode", _URL, "how a server is monitored", _HONOURED, "by the driver's monitor"),
    Option(
        "localThresholdMS",
        _URL,
        "latency window for choosing a member",
        _HONOURED,
        "by the driver, where `readPreference` leaves a choice",
    ),
)
"""The servers, and how they are monitored."""

_TIME_LIMITS: Final = (
    Option(
        "timeoutMS",
        _URL,
        "limit for one whole operation",
        _HONOURED,
        "for the application's reads and the request of a write; a write that it interrupts has an unknown outcome and "
        f"stays in the journal. {_OWN}: an acknowledged write is replicated however short it is",
    ),
    Option(
        "socketTimeoutMS",
        _URL,
        "limit for one response",
        _HONOURED,
        "by the driver for reads; a write has twice that (once with `retryWrites=false`), because of the one retry of "
        f"the driver. {_OWN}",
    ),
    Option(
        "connectTimeoutMS",
        _URL,
        "limit for a new connection",
        _HONOURED,
        "by the driver for reads; writes and shadow's own requests are limited by `limits.operation` instead",
    ),
    Option(
        "serverSelectionTimeoutMS",
        _URL,
        "limit for finding a server",
        _HONOURED,
        "by the driver, before each read and write; never longer than shadow's limits",
    ),
    Option(
        "waitQueueTimeoutMS",
        _URL,
        "limit for a free connection",
        _HONOURED,
        "by the driver for reads; writes and shadow's own requests are limited by `limits.operation` instead",
    ),
    Option("maxIdleTimeMS", _URL, "lifetime of an idle connection", _HONOURED, _DRIVER),
)

_POOLS: Final = (
    Option(
        "maxPoolSize",
        _URL,
        "maximum number of connections to a server",
        _HONOURED,
        "by the driver; shadow's own calls share them, and none waits for another while it holds one",
    ),
    Option("minPoolSize", _URL, "minimum number of connections", _HONOURED, "by the driver"),
    Option("maxConnecting", _URL, "maximum number of connections being opened at once", _HONOURED, "by the driver"),
    Option("waitQueueMultiple", _URL, "obsolete", _HARMLESS, "PyMongo accepts and ignores it"),
)

_WRITES: Final = (
    Option(
        "w",
        _URL,
        "the write concern",
        _HONOURED,
        "never less than a majority where there are several members: `mongo.weak_writes` raises or refuses less, `w=0` "
        "everywhere; more than a majority is kept",
    ),
    Option("journal", _URL, "acknowledge only when on disk", _HONOURED, "`true` is sent with the application's writes"),
    Option("fsync", _URL, "old name of `journal`", _HONOURED, "as `journal`"),
    Option(
        "wTimeoutMS",
        _URL,
        "limit for waiting for `w`",
        _HONOURED,
        "sent with the application's writes; an interrupted write has an unknown outcome and stays in the journal",
    ),
    Option(
        "retryWrites",
        _URL,
        "retry once after a lost connection",
        _HONOURED,
        "by the driver; without it a lost connection leaves the outcome unknown, and the journal resolves it",
    ),
)

_READS: Final = (
    Option(
        "readPreference",
        _URL,
        "which member serves reads",
        _HONOURED,
        "for the application's reads. The lookups of a write, and all reads that confirm, repair or copy, go to the "
        "primary member",
    ),
    Option("readPreferenceTags", _URL, "which members, by tags", _HONOURED, "as `readPreference`"),
    Option("maxStalenessSeconds", _URL, "maximum lag of a secondary", _HONOURED, "as `readPreference`"),
    Option(
        "readConcernLevel",
        _URL,
        "the read concern",
        _HONOURED,
        "for the application's reads. The lookups of a write use `local` on the primary, reads that confirm, "
        "repair or copy use `linearizable`",
    ),
    Option("retryReads", _URL, "retry once after a lost connection", _HONOURED, "by the driver"),
)

_WIRE: Final = (
    Option(
        "compressors", _URL, "compression on the wire", _HONOURED, "by the driver; `snappy` and `zstd` need a package"
    ),
    Option("zlibCompressionLevel", _URL, "level of `zlib` compression", _HONOURED, "by the driver"),
    Option(
        "appName",
        _URL,
        "name in the server's log",
        _HONOURED,
        "by the driver; journal and control store have their own",
    ),
    Option("maxAdaptiveRetries", _URL, "retries on an overloaded server", _HONOURED, "by the driver"),
    Option("enableOverloadRetargeting", _URL, "use other members when one is overloaded", _HONOURED, "by the driver"),
)

_IDENTITY: Final = (
    Option("authSource", _URL, "the user's database", _HONOURED, _DRIVER),
    Option(
        "authMechanism",
        _URL,
        "authentication mechanism",
        _HONOURED,
        f"{_DRIVER}; `GSSAPI` and `MONGODB-AWS` need a package of their own",
    ),
    Option("authMechanismProperties", _URL, "properties of the mechanism", _HONOURED, _DRIVER),
    Option("tls", _URL, "encrypt connections", _HONOURED, _DRIVER),
    Option("ssl", _URL, "old name of `tls`", _HONOURED, "as `tls`"),
    Option("tlsCAFile", _URL, "CA certificates for the server", _HONOURED, _DRIVER),
    Option("tlsCertificateKeyFile", _URL, "the client's certificate and key", _HONOURED, _DRIVER),
    Option("tlsCertificateKeyFilePassword", _URL, "password of that key", _HONOURED, f"{_DRIVER}; never shown"),
    Option("tlsCRLFile", _URL, "revoked certificates", _HONOURED, _DRIVER),
    Option("tlsInsecure", _URL, "skip all checks of the server's certificate", _HONOURED, _DRIVER),
    Option("tlsAllowInvalidCertificates", _URL, "skip the check of the certificate", _HONOURED, _DRIVER),
    Option("tlsAllowInvalidHostnames", _URL, "skip the check of the host name", _HONOURED, _DRIVER),
    Option("tlsDisableOCSPEndpointCheck", _URL, "do not contact OCSP responders", _HONOURED, _DRIVER),
)

_VALUES: Final = (
    Option("uuidRepresentation", _URL, "how UUIDs are stored", _HONOURED, _CODEC),
    Option("tz_aware", _URL, "dates with a time zone", _HONOURED, _CODEC),
    Option("unicode_decode_error_handler", _URL, "text that is not UTF-8", _HONOURED, _CODEC),
    Option("datetime_conversion", _URL, "dates outside Python's range", _HONOURED, _CODEC),
)

_UNKNOWN_TO_PYMONGO: Final = (
    *(
        Option(name, _URL, "a SOCKS5 proxy", _REFUSED, f"{_NOT_IN_PYMONGO}, and bypass the proxy; remove it")
        for name in ("proxyHost", "proxyPort", "proxyUsername", "proxyPassword")
    ),
    Option(
        "serverSelectionTryOnce",
        _URL,
        "only for single-threaded drivers",
        _REFUSED,
        f"{_NOT_IN_PYMONGO}; use serverSelectionTimeoutMS",
    ),
    Option(
        "tlsDisableCertificateRevocationCheck",
        _URL,
        "skip the check for revoked certificates",
        _REFUSED,
        f"{_NOT_IN_PYMONGO}; use tlsDisableOCSPEndpointCheck",
    ),
    Option(
        "gssapiServiceName",
        _URL,
        "obsolete",
        _REFUSED,
        f"{_NOT_IN_PYMONGO}; use authMechanismProperties=SERVICE_NAME:name",
    ),
    Option("j", _URL, "obsolete", _REFUSED, f"{_NOT_IN_PYMONGO}; use journal"),
    Option("wtimeout", _URL, "obsolete", _REFUSED, f"{_NOT_IN_PYMONGO}; use wTimeoutMS"),
    Option("slaveOk", _URL, "obsolete", _REFUSED, f"{_NOT_IN_PYMONGO}; use readPreference=secondaryPreferred"),
    Option("safe", _URL, "obsolete", _REFUSED, f"{_NOT_IN_PYMONGO}; use w=majority"),
)
"""Options of the specification that PyMongo does not have, and renamed ones."""

_OF_A_CLIENT: Final = (
    Option("document_class", _CLIENT, "the class of documents", _HONOURED, _CODEC),
    Option("type_registry", _CLIENT, "values of custom types", _HONOURED, _CODEC),
    Option("tzinfo", _CLIENT, "the time zone of dates", _HONOURED, _CODEC),
    Option("read_preference", _CLIENT, "as `readPreference`", _HONOURED, "as `readPreference`"),
    Option(
        "server_api",
        _CLIENT,
        "the Stable API",
        _HONOURED,
        "by the driver; refused with `strict=True`, which forbids the index bounds that jobs use to scan a "
        "collection (and `distinct`): pass in a client without it",
    ),
    Option(
        "auto_encryption_opts",
        _CLIENT,
        "automatic encryption of fields",
        _REFUSED,
        "where both stores are written, because DynamoDB would store in plain text what MongoDB encrypts; encrypt "
        "explicitly (`ClientEncryption`), or keep the collections in phase off",
    ),
    Option(
        "event_listeners",
        _CLIENT,
        "listeners for every command",
        _HONOURED,
        "by the driver; they also see shadow's own commands",
    ),
    Option("driver", _CLIENT, "a name in the server's log", _HARMLESS, "it only appears in the server's log"),
    Option("connect", _CLIENT, "connect at once", _HARMLESS, "the first call connects"),
    Option("username", _CLIENT, "as in the url", _HONOURED, _DRIVER),
    Option("password", _CLIENT, "as in the url", _HONOURED, _DRIVER),
    Option(
        "server_selector",
        _CLIENT,
        "which servers may be used",
        _HONOURED,
        "by the driver, for shadow's own calls too: it must allow the primary member",
    ),
    Option("srv_host_validator", _CLIENT, "hosts of a `mongodb+srv` name", _HONOURED, "by the driver"),
    Option("authOIDCAllowedHosts", _CLIENT, "hosts that tokens may be sent to", _HONOURED, "by the driver"),
    Option("max_adaptive_retries", _CLIENT, "as in the url", _HONOURED, "by the driver"),
    Option("enable_overload_retargeting", _CLIENT, "as in the url", _HONOURED, "by the driver"),
)

_OF_A_DATABASE: Final = (
    Option("codec_options", _DATABASE, "how values are decoded", _HONOURED, _CODEC),
    Option("read_preference", _DATABASE, "read preference", _HONOURED, "like `readPreference`; overrides the client's"),
    Option(
        "write_concern", _DATABASE, "as `w`, `journal`, `wTimeoutMS`", _HONOURED, "like those; overrides the client's"
    ),
    Option("read_concern", _DATABASE, "as `readConcernLevel`", _HONOURED, "like that; overrides the client's"),
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
    """The row of an option; names are case-insensitive, as in a connection string."""
    return _BY_NAME.get((where, name.lower()))


def of_url() -> list[str]:
    """The names that a connection string may have, without the refused ones."""
    return [each.name for each in OPTIONS if each.where is Where.URL and each.fate is not Fate.REFUSED]
