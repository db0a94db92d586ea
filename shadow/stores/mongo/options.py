"""Every option of a connection to MongoDB, of a client and of a database object, and what becomes of it. Pure data.

Sources: the MongoDB specification "URI Options"; the manual, "Connection Strings"; PyMongo's `common.VALIDATORS` and
the documentation of its `MongoClient` and `get_database`, whose options Motor takes as they are. A test holds the table
against the installed PyMongo: an option that is new there has to get its row here.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["OPTIONS", "Fate", "Option", "Where", "find", "of_url"]


class Where(enum.StrEnum):
    URL = "url"
    """In a connection string, and as a keyword of a client that is handed in."""
    CLIENT = "client"
    """Only of a client that is handed in."""
    DATABASE = "database"
    """Of a database object that is handed in; a client has it for all of its databases."""


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


def _rows() -> Iterator[Option]:
    url, client, database = Where.URL, Where.CLIENT, Where.DATABASE
    honoured, refused, harmless = Fate.HONOURED, Fate.REFUSED, Fate.HARMLESS

    # --- where the servers are, and how they are watched ---
    yield Option("replicaSet", url, "the name of the set", honoured, "by the driver, which finds the members")
    yield Option("directConnection", url, "one host alone", honoured, "by the driver; writes need it to be the primary")
    yield Option(
        "loadBalanced",
        url,
        "the host is a load balancer",
        honoured,
        "by the driver; such a deployment counts as one of several members, so writes go with a majority",
    )
    yield Option("srvServiceName", url, "service of a `mongodb+srv` name", honoured, "by the driver's look-up")
    yield Option("srvMaxHosts", url, "most hosts of a `mongodb+srv` name", honoured, "by the driver's look-up")
    yield Option(
        "srvAllowedHostsSuffix", url, "where the hosts of a `mongodb+srv` name may lie", honoured, "by the driver"
    )
    yield Option("heartbeatFrequencyMS", url, "between two checks of a server", honoured, "by the driver's monitor")
    yield Option("serverMonitoringMode", url, "how a server is watched", honoured, "by the driver's monitor")
    yield Option(
        "localThresholdMS",
        url,
        "how much slower a member may be",
        honoured,
        "by the driver, where `readPreference` leaves a choice",
    )

    # --- time limits ---
    yield Option(
        "timeoutMS",
        url,
        "for one operation in all",
        honoured,
        "for the application's reads and the request of a write; a write that it cuts off is of unknown outcome and "
        f"stays in the journal. {_OWN}: what was acknowledged is replicated however short this is",
    )
    yield Option(
        "socketTimeoutMS",
        url,
        "for one answer",
        honoured,
        "by the driver for reads; a write ends by twice that (once with `retryWrites=false`), as with the one retry of "
        f"the driver. {_OWN}",
    )
    yield Option(
        "connectTimeoutMS",
        url,
        "for a new connection",
        honoured,
        "by the driver for reads; a write, and what shadow asks by itself, ends by `limits.operation` instead",
    )
    yield Option(
        "serverSelectionTimeoutMS",
        url,
        "to wait for a server",
        honoured,
        "by the driver, before each read and write; never beyond shadow's limits",
    )
    yield Option(
        "waitQueueTimeoutMS",
        url,
        "to wait for a free connection",
        honoured,
        "by the driver for reads; a write, and what shadow asks by itself, ends by `limits.operation` instead",
    )
    yield Option("maxIdleTimeMS", url, "life of an idle connection", honoured, _DRIVER)

    # --- pools ---
    yield Option(
        "maxPoolSize",
        url,
        "most connections to a server",
        honoured,
        "by the driver; shadow's own calls share them, and none waits for another while it holds one",
    )
    yield Option("minPoolSize", url, "connections that are kept", honoured, "by the driver")
    yield Option("maxConnecting", url, "connections that are made at a time", honoured, "by the driver")
    yield Option("waitQueueMultiple", url, "of old", harmless, "PyMongo takes it and does nothing with it")

    # --- writes ---
    yield Option(
        "w",
        url,
        "who acknowledges a write",
        honoured,
        "never less than a majority where there are several members: `mongo.weak_writes` raises or refuses less, `w=0` "
        "everywhere; more than a majority is asked for as it is",
    )
    yield Option("journal", url, "acknowledged when on disk", honoured, "`true` is sent with the application's writes")
    yield Option("fsync", url, "as `journal`, of old", honoured, "as `journal`")
    yield Option(
        "wTimeoutMS",
        url,
        "to wait for `w`",
        honoured,
        "sent with the application's writes; a write that it ends is of unknown outcome and stays in the journal",
    )
    yield Option(
        "retryWrites",
        url,
        "once more after a lost connection",
        honoured,
        "by the driver; without it a lost connection leaves the outcome unknown, and the journal finds out",
    )

    # --- reads ---
    yield Option(
        "readPreference",
        url,
        "which member answers",
        honoured,
        "for the application's reads. What a write looks up, and every read that confirms, repairs or copies, asks the "
        "primary member",
    )
    yield Option("readPreferenceTags", url, "which members, by tags", honoured, "as `readPreference`")
    yield Option("maxStalenessSeconds", url, "how far a member may be behind", honoured, "as `readPreference`")
    yield Option(
        "readConcernLevel",
        url,
        "what is read of a set",
        honoured,
        "for the application's reads. What a write looks up is read as the primary has it (`local`), what confirms, "
        "repairs or copies `linearizable`",
    )
    yield Option("retryReads", url, "once more after a lost connection", honoured, "by the driver")

    # --- the wire ---
    yield Option(
        "compressors", url, "compression on the wire", honoured, "by the driver; `snappy` and `zstd` need a package"
    )
    yield Option("zlibCompressionLevel", url, "of `zlib`", honoured, "by the driver")
    yield Option(
        "appName", url, "name in the server's log", honoured, "by the driver; journal and control store have their own"
    )
    yield Option("maxAdaptiveRetries", url, "retries of an overloaded server", honoured, "by the driver")
    yield Option("enableOverloadRetargeting", url, "other members when one is overloaded", honoured, "by the driver")

    # --- who is there ---
    yield Option("authSource", url, "database of the user", honoured, _DRIVER)
    yield Option(
        "authMechanism",
        url,
        "how to prove who is there",
        honoured,
        f"{_DRIVER}; `GSSAPI` and `MONGODB-AWS` need a package of their own",
    )
    yield Option("authMechanismProperties", url, "of the mechanism", honoured, _DRIVER)
    yield Option("tls", url, "an encrypted connection", honoured, _DRIVER)
    yield Option("ssl", url, "as `tls`, of old", honoured, "as `tls`")
    yield Option("tlsCAFile", url, "who may sign for a server", honoured, _DRIVER)
    yield Option("tlsCertificateKeyFile", url, "the client's certificate and key", honoured, _DRIVER)
    yield Option("tlsCertificateKeyFilePassword", url, "of that key", honoured, f"{_DRIVER}; never shown")
    yield Option("tlsCRLFile", url, "certificates that were withdrawn", honoured, _DRIVER)
    yield Option("tlsInsecure", url, "no checks of the server", honoured, _DRIVER)
    yield Option("tlsAllowInvalidCertificates", url, "no check of the certificate", honoured, _DRIVER)
    yield Option("tlsAllowInvalidHostnames", url, "no check of the name", honoured, _DRIVER)
    yield Option("tlsDisableOCSPEndpointCheck", url, "no question to the signer", honoured, _DRIVER)

    # --- values ---
    yield Option("uuidRepresentation", url, "how UUIDs are stored", honoured, _CODEC)
    yield Option("tz_aware", url, "dates with a time zone", honoured, _CODEC)
    yield Option("unicode_decode_error_handler", url, "text that is no UTF-8", honoured, _CODEC)
    yield Option("datetime_conversion", url, "dates that Python lacks", honoured, _CODEC)

    # --- what the specification has and PyMongo has not, and what has another name by now ---
    for name in ("proxyHost", "proxyPort", "proxyUsername", "proxyPassword"):
        yield Option(name, url, "a SOCKS5 proxy", refused, f"{_NOT_IN_PYMONGO}, and bypass the proxy; remove it")
    yield Option(
        "serverSelectionTryOnce",
        url,
        "for drivers with one thread",
        refused,
        f"{_NOT_IN_PYMONGO}; say serverSelectionTimeoutMS",
    )
    yield Option(
        "tlsDisableCertificateRevocationCheck",
        url,
        "no look at withdrawn certificates",
        refused,
        f"{_NOT_IN_PYMONGO}; say tlsDisableOCSPEndpointCheck",
    )
    yield Option(
        "gssapiServiceName",
        url,
        "of old",
        refused,
        f"{_NOT_IN_PYMONGO}; say authMechanismProperties=SERVICE_NAME:name",
    )
    yield Option("j", url, "of old", refused, f"{_NOT_IN_PYMONGO}; say journal")
    yield Option("wtimeout", url, "of old", refused, f"{_NOT_IN_PYMONGO}; say wTimeoutMS")
    yield Option("slaveOk", url, "of old", refused, f"{_NOT_IN_PYMONGO}; say readPreference=secondaryPreferred")
    yield Option("safe", url, "of old", refused, f"{_NOT_IN_PYMONGO}; say w=majority")

    # --- of a client alone ---
    yield Option("document_class", client, "the class of documents", honoured, _CODEC)
    yield Option("type_registry", client, "values of types of one's own", honoured, _CODEC)
    yield Option("tzinfo", client, "the zone of dates", honoured, _CODEC)
    yield Option("read_preference", client, "as `readPreference`", honoured, "as `readPreference`")
    yield Option(
        "server_api",
        client,
        "the Stable API",
        honoured,
        "by the driver; refused with `strict=True`, which forbids the bounds by which jobs walk a "
        "collection (and `distinct`): hand in a client without it",
    )
    yield Option(
        "auto_encryption_opts",
        client,
        "fields that the client encrypts",
        refused,
        "where both stores are written, for DynamoDB would hold in the clear what MongoDB holds encrypted; encrypt "
        "explicitly (`ClientEncryption`), or keep the collections in phase off",
    )
    yield Option(
        "event_listeners", client, "a listener for every command", honoured, "by the driver; they see shadow's own too"
    )
    yield Option("driver", client, "a name in the server's log", harmless, "the server's log shows it")
    yield Option("connect", client, "connect at once", harmless, "the first call connects")
    yield Option("username", client, "as in the url", honoured, _DRIVER)
    yield Option("password", client, "as in the url", honoured, _DRIVER)
    yield Option(
        "server_selector",
        client,
        "which servers may be asked",
        honoured,
        "by the driver, for shadow's own calls too: it must leave the primary member",
    )
    yield Option("srv_host_validator", client, "hosts of a `mongodb+srv` name", honoured, "by the driver")
    yield Option("authOIDCAllowedHosts", client, "whom tokens may be sent to", honoured, "by the driver")
    yield Option("max_adaptive_retries", client, "as in the url", honoured, "by the driver")
    yield Option("enable_overload_retargeting", client, "as in the url", honoured, "by the driver")

    # --- of a database object ---
    yield Option("codec_options", database, "how values are given out", honoured, _CODEC)
    yield Option(
        "read_preference", database, "as `readPreference`", honoured, "as `readPreference`, before the client's"
    )
    yield Option(
        "write_concern", database, "as `w`, `journal`, `wTimeoutMS`", honoured, "as those, before the client's"
    )
    yield Option("read_concern", database, "as `readConcernLevel`", honoured, "as that, before the client's")


OPTIONS: Final[tuple[Option, ...]] = tuple(_rows())

_BY_NAME: Final[Mapping[tuple[Where, str], Option]] = {(each.where, each.name.lower()): each for each in OPTIONS}


def find(name: str, where: Where) -> Option | None:
    """The row of an option; names are the same in large and small letters, as they are in a connection string."""
    return _BY_NAME.get((where, name.lower()))


def of_url() -> list[str]:
    """The names that a connection string may have, without those that are refused."""
    return [each.name for each in OPTIONS if each.where is Where.URL and each.fate is not Fate.REFUSED]
