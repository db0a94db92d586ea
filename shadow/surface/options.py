"""The options that `with_options` may set for reads and writes while a collection has two stores.

On DynamoDB a read of the table is consistent and an acknowledged write is durable; on MongoDB the client that
`mongo.url` describes (or that was passed in) decides. So an option that the client has anyway makes no difference and
is accepted; a stronger or different one is rejected by name: set in `mongo.url`, it applies to every collection, on
both stores.
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

__all__ = ["OPTIONS", "ClientDefaults", "RequestedConcerns", "kept_by_client", "kept_by_url"]

OPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "codec_options": ("any", "-"),
    "read_preference": ("primary, primaryPreferred", "secondary, secondaryPreferred, nearest, tags, staleness"),
    "read_concern": ("local, available", "majority, linearizable, snapshot"),
    "write_concern": ("w=0, w=1, w=majority (unless the client has another w), j=False", "other w, j, fsync, wtimeout"),
}
"""By option: what is accepted, and what is refused unless the client has it anyway. For the manual."""

_HINT: Final = "set it in `mongo.url`, for all collections"
_KEPT: Final = frozenset(
    {
        *("w", "journal", "fsync", "wtimeoutms"),
        *("readpreference", "readpreferencetags", "maxstalenessseconds", "readconcernlevel"),
        *("tz_aware", "uuidrepresentation", "unicode_decode_error_handler", "datetime_conversion"),
    }
)
"""The relevant options of a connection string, in lower case."""
_WEAK_LEVELS: Final = (None, "local", "available")


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


@dataclass(frozen=True, slots=True)
class ClientDefaults:
    """The preference and concerns of the MongoDB client for every read and write."""

    read_preference: Any
    write_concern: WriteConcern
    read_concern: ReadConcern
    codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS

    def check(self, wanted: RequestedConcerns) -> None:
        """Raises UnsupportedOperation for options that the client does not have."""
        preference, read, write = wanted.read_preference, wanted.read_concern, wanted.write_concern
        if preference is not None and not self._reads_by(preference):
            raise _refusal("read_preference", "reads go where the client sends them, and on DynamoDB to the table")
        if read is not None and read.level not in _WEAK_LEVELS and read != self.read_concern:
            raise _refusal("read_concern", "the client reads with less than that on MongoDB")
        if write is not None and not self._writes_by(write.document):
            raise _refusal("write_concern", "the client does not write with that on MongoDB")

    def _reads_by(self, wanted: Any) -> bool:
        """primaryPreferred accepts the primary."""
        if wanted == self.read_preference:
            return True
        names = (wanted.name, self.read_preference.name)
        return set(names) <= {"Primary", "PrimaryPreferred"} and names[1] == "Primary" and _is_bare(wanted)

    def _writes_by(self, wanted: Mapping[str, Any]) -> bool:
        ours = self.write_concern.document
        # Without a concern, a replica set gets `majority`, and a single server has no other member.
        # The library needs an answer, whether or not the caller asks for one (`surface.unacknowledged`).
        enough = (0, 1, ours.get("w", "majority"))
        return all(
            (name == "w" and value in enough) or value == ours.get(name) or (name in ("j", "fsync") and not value)
            for name, value in wanted.items()
        )


def _is_bare(preference: Any) -> bool:
    return set(preference.document) == {"mode"}


def _refusal(name: str, reason: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"with_options({name}=...)", reason, hint=_HINT)


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
