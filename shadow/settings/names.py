"""Names that DynamoDB or MongoDB refuse, or that shadow reserves.

MongoDB's rules are from its manual ("MongoDB Limits and Thresholds", naming restrictions) and from PyMongo.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

__all__ = ["collection_name", "database_name", "endpoint", "field_path", "table_prefix", "top_level_field"]

_NOT_IN_DATABASE: Final = ' ."$*<>:|?/\\\0'
_LONGEST_DATABASE: Final = 63
_LONGEST_NAMESPACE: Final = 255
"""In bytes of UTF-8: the name of a database, and `database.collection`."""
_OF_SERVER: Final = ("config", "local")
_OURS: Final = ("shadow_witness", "shadow_control", "shadow_rehearsal", "shadow_journal")
_PREFIX: Final = re.compile(r"[a-zA-Z0-9_.-]{0,200}")


def database_name(name: str) -> str:
    """Raises ValueError if this cannot be the name of an application's database."""
    odd = sorted({each for each in name if each in _NOT_IN_DATABASE})
    if odd:
        shown = " ".join("a space" if each == " " else each for each in odd)
        raise ValueError(f"must be a name that MongoDB accepts for a database: without {shown}")
    if len(name.encode()) > _LONGEST_DATABASE:
        raise ValueError(f"must be at most {_LONGEST_DATABASE} bytes long: MongoDB's limit for a database name")
    if name in _OF_SERVER:
        raise ValueError(f"must be the application's database: {name} is MongoDB's own")
    return name


def collection_name(name: str, database: str = "") -> str:
    """Raises ValueError for names that MongoDB refuses, and for those of shadow's own records."""
    if "$" in name or "\0" in name:
        raise ValueError("a collection's name must not contain `$`: MongoDB refuses it")
    if name.startswith("system."):
        raise ValueError("names that begin with system. are MongoDB's own")
    if name.startswith(".") or name.endswith(".") or ".." in name:
        raise ValueError("a collection's name must not have an empty part: no `.` at its ends, no two in a row")
    if any(name == each or name.startswith(f"{each}.") for each in _OURS):
        raise ValueError("shadow uses this name for its own records: rename the collection")
    if len(f"{database}.{name}".encode()) > _LONGEST_NAMESPACE:
        raise ValueError(f"database and collection together must have at most {_LONGEST_NAMESPACE} bytes (MongoDB)")
    return name


def field_path(path: str) -> str:
    """A field, or a dotted path. Raises ValueError for anything else."""
    parts = path.split(".")
    if not all(parts):
        raise ValueError("must be a field or a dotted path, without an empty part")
    if any(each.startswith("$") for each in parts) or "\0" in path:
        raise ValueError("must be the path of a field: no part may begin with `$`")
    return path


def top_level_field(name: str) -> str:
    """A field without a path. Raises ValueError for anything else."""
    if "." in name:
        raise ValueError("must be a top-level field: DynamoDB cannot index a path")
    return field_path(name)


def table_prefix(prefix: str) -> str:
    """A prefix for table names. Raises ValueError for anything else."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("must be at most 200 of a-z, A-Z, 0-9, `_`, `-` and `.`, DynamoDB's rule for names of tables")
    return prefix


def endpoint(url: str | None) -> str | None:
    """The address of a DynamoDB endpoint. Raises ValueError for anything else."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise ValueError("must be http://HOST:PORT or https://HOST (omit it for AWS itself)")
    return url
