"""The options that `with_options` may set for reads and writes while a collection has two stores.

Those of reads go with each read (`model.read_options`): while MongoDB answers, to its driver. DynamoDB's reads of the
table are consistent, which satisfies every preference and every concern but two, which are MongoDB's alone.

A write is durable on DynamoDB when it is acknowledged; on MongoDB the client that `mongo.url` describes (or that was
passed in) decides. So a write concern that the client has anyway makes no difference and is accepted; a stronger or
different one is rejected by name: set in `mongo.url`, it applies to every collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from pymongo import WriteConcern
from pymongo.client_options import ClientOptions
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser_shared import split_options

from shadow.errors import UnsupportedOperation
from shadow.model.expiry import joined_collections
from shadow.model.order import MISSING
from shadow.model.read_options import ReadOptions
from shadow.model.reads import Read
from shadow.reads.stickiness import fixed_key

__all__ = ["OPTIONS", "ClientDefaults", "RequestedConcerns", "check_concern", "kept_by_client", "kept_by_url"]

OPTIONS: Final[Mapping[str, tuple[str, str, str]]] = {
    "codec_options": ("any", "-", "-"),
    "read_preference": ("any", "-", "-"),
    "read_concern": (
        "local, available, majority; linearizable for a read by `_id`",
        "snapshot; linearizable for any other read",
        "-",
    ),
    "write_concern": (
        "w=0, w=1, w=majority (unless the client has another w), j=False",
        "-",
        "other w, j, fsync, wtimeout",
    ),
}
"""By option: what is accepted, what is MongoDB's alone, and what is refused unless the client has it anyway. For the
manual."""

_HINT: Final = "set it in `mongo.url`, for all collections"
_KEPT: Final = frozenset(
    {
        *("w", "journal", "fsync", "wtimeoutms"),
        *("readpreference", "readpreferencetags", "maxstalenessseconds", "readconcernlevel"),
        *("tz_aware", "uuidrepresentation", "unicode_decode_error_handler", "datetime_conversion"),
    }
)
"""The relevant options of a connection string, in lower case."""


@dataclass(frozen=True, slots=True)
class RequestedConcerns:
    """The options that an application requests; None: the client's."""

    read_preference: Any = None
    write_concern: WriteConcern | None = None
    read_concern: ReadConcern | None = None

    def __post_init__(self) -> None:
        if self.read_preference is not None and not hasattr(self.read_preference, "mongos_mode"):
            raise TypeError(f"{type(self.read_preference).__name__} is not valid for read_preference")
        for name, kind in (("write_concern", WriteConcern), ("read_concern", ReadConcern)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} must be an instance of {kind.__name__}, not {type(value).__name__}")

    def of_reads(self) -> ReadOptions | None:
        """Those of reads; None: none is requested."""
        if self.read_preference is None and self.read_concern is None:
            return None
        return ReadOptions(self.read_preference, self.read_concern)


@dataclass(frozen=True, slots=True)
class ClientDefaults:
    """The preference and concerns of the MongoDB client for every read and write."""

    read_preference: Any
    write_concern: WriteConcern
    read_concern: ReadConcern
    codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS

    def check(self, wanted: RequestedConcerns) -> None:
        """Raises UnsupportedOperation for a write concern that the client does not have."""
        write = wanted.write_concern
        if write is not None and not self._writes_by(write.document):
            raise UnsupportedOperation(
                "with_options(write_concern=...)", "the client does not write with that on MongoDB", hint=_HINT
            )

    def _writes_by(self, wanted: Mapping[str, Any]) -> bool:
        ours = self.write_concern.document
        # Without a concern, a replica set gets `majority`, and a single server has no other member.
        # The library needs an answer, whether or not the caller asks for one (`surface.collections.unacknowledged`).
        enough = (0, 1, ours.get("w", "majority"))
        return all(
            (name == "w" and value in enough) or value == ours.get(name) or (name in ("j", "fsync") and not value)
            for name, value in wanted.items()
        )


def check_concern(read: Read) -> None:
    """Raises UnsupportedOperation for a read whose concern only MongoDB can honour."""
    level = None if read.read_options is None else read.read_options.level
    if level == "snapshot":
        raise UnsupportedOperation("read_concern snapshot", "reads of DynamoDB show the newest documents")
    if level == "linearizable" and (fixed_key(read.filter) is MISSING or joined_collections(read)):
        raise UnsupportedOperation("read_concern linearizable", "DynamoDB has it for a read by _id alone")


def kept_by_client(client: Any) -> ClientDefaults:
    """The defaults of a client that was passed in."""
    return ClientDefaults(client.read_preference, client.write_concern, client.read_concern, client.codec_options)


def kept_by_url(url: str) -> ClientDefaults:
    """The defaults of a client with this url. Only parses the text: it resolves no name and opens no connection."""
    query = url.partition("?")[2]
    # Without authentication and TLS options: they would need the users and files to exist.
    kept = {name: value for name, value in (split_options(query) if query else {}).items() if name.lower() in _KEPT}
    given = ClientOptions(None, None, None, kept)  # type: ignore[arg-type]
    return ClientDefaults(given.read_preference, given.write_concern, given.read_concern, given.codec_options)
