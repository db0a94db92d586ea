"""The `_id` under which an upsert inserts: that of its filter, update or replacement, or a new one."""

from __future__ import annotations

from collections.abc import Sequence

from bson import Regex

from shadow.model.operation import Replace, Update
from shadow.model.order import MISSING, equal
from shadow.model.stored import with_id
from shadow.model.values import snapshot
from shadow.model.version import Document, Key
from shadow.mongoql.caching import cached_filter, cached_update
from shadow.mongoql.match.filters import Filter
from shadow.mongoql.update.dollar_fields import check_replacement
from shadow.mongoql.values.failures import write_failure

__all__ = ["insert_key", "keeps_key", "named_key", "replaced", "replacement_key", "with_key"]


def with_key(document: Document, key: Key) -> Document:
    """`document` with `_id` first, as MongoDB stores it. Raises WriteError for a value that cannot be an `_id`."""
    if isinstance(key, list | Regex):
        kind = "array" if isinstance(key, list) else "regex"
        raise write_failure(53, f"The '_id' value cannot be of type {kind}")
    if isinstance(key, dict) and any(name.startswith("$") for name in key):
        raise write_failure(52, "_id fields may not contain '$'-prefixed fields")
    return with_id(document, key)


def replaced(replacement: Document, key: Key, before: Document | None) -> Document:
    """What a replacement leaves under `key`, where `before` was, or nothing (an upsert). Raises WriteError with the
    server's codes, in its order: 53 and 52 for a value that cannot be an `_id`, 52 and 55 for a top-level name with a
    dollar, 66 for another `_id`; of an upsert, 54 for an array."""
    own = replacement.get("_id", key)
    if before is None:
        check_no_array(replacement)
        made = replacement
    else:
        made = with_key(replacement, own)
        check_replacement(made, before)
    if not equal(own, key):
        raise write_failure(66, "After applying the update, the (immutable) field '_id' was found to have been altered")
    return made if before is not None else with_key(made, own)


def check_no_array(replacement: Document) -> None:
    """Raises WriteError for an upsert's replacement whose `_id` is an array."""
    if isinstance(replacement.get("_id"), list):
        raise write_failure(54, "After applying the update to the document, the '_id' field is an array")


def replacement_key(filter: Filter, replacement: Document) -> Key:
    """The `_id` in an upsert's filter or replacement, or `MISSING`."""
    check_no_array(replacement)
    named = filter.equalities()
    if any(path.startswith("_id.") for path in named):
        raise write_failure(111, "field at '_id' must be exactly specified, field at a sub-path found")
    return named.get("_id", replacement.get("_id", MISSING))


def named_key(change: Update | Replace) -> Key:
    """The `_id` in an upsert, or `MISSING`. Raises WriteError where the server would on insertion."""
    filter = cached_filter(change.filter)
    if isinstance(change, Replace):
        return replacement_key(filter, change.replacement)
    return cached_update(change.update, change.array_filters).upsert_key(filter)


def insert_key(change: Update | Replace) -> Key:
    """The key under which an upsert by filter inserts. Raises WriteError for one that cannot be an `_id`."""
    key = named_key(change)
    if key is MISSING:
        return change.new
    with_key({}, key)
    return snapshot(key)


def keeps_key(stages: Sequence[Document]) -> bool:
    """Whether an update pipeline leaves every document's `_id` unchanged and in place."""
    return all(_leaves_key(stage) for stage in stages)


def _leaves_key(stage: Document) -> bool:
    ((name, body),) = stage.items()
    if name in ("$set", "$addFields"):
        return not any(path.partition(".")[0] == "_id" for path in body)
    removed = [body] if isinstance(body, str) else body
    return name == "$unset" and not any(path.partition(".")[0] == "_id" for path in removed)
