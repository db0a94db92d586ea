"""Every argument of the verbs of the drivers' collections, and what it does over two stores or on DynamoDB.

The manual's table is generated from this one. A test compares it with the signatures of the driver that is installed,
and makes a call with each argument.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.model.server_options import given_in, sending
from shadow.stores.mongo.drivers import call_signature
from shadow.surface.calls.verb_options import FIELDS

__all__ = ["ARGUMENTS", "VERBS", "Argument", "Fate", "arguments_of", "by_name", "fate_of", "names_of", "with_names"]


class Fate(enum.StrEnum):
    HONOURED = "honoured"
    """It has the driver's meaning on every store."""
    ON_MONGO = "MongoDB's"
    """It is passed on to MongoDB where that answers. On DynamoDB it has no effect, and changes no result on either."""
    NO_EFFECT = "accepted"
    """It changes no result. Its type is checked."""
    MONGO_ALONE = "MongoDB alone"
    """MongoDB answers the call alone while it is the primary (`unsupported`); otherwise refused by name."""
    REFUSED = "refused"
    """By name, before a store is asked."""


@dataclass(frozen=True, slots=True)
class Argument:
    """`how`: why that is right, for the manual. `other`: verbs for which the fate is another one."""

    fate: Fate
    how: str
    other: Mapping[str, Fate] = field(default_factory=dict)


_OWN: Final = "the verb's own"
_IS_OF_MONGO: Final = "only MongoDB has it"
_PAIRS: Final = "as MongoDB's, also where DynamoDB chooses"

ARGUMENTS: Final[Mapping[str, Argument]] = {
    "document": Argument(Fate.HONOURED, _OWN),
    "documents": Argument(Fate.HONOURED, _OWN),
    "filter": Argument(Fate.HONOURED, _OWN),
    "update": Argument(Fate.HONOURED, _OWN),
    "replacement": Argument(Fate.HONOURED, _OWN),
    "requests": Argument(Fate.HONOURED, _OWN),
    "pipeline": Argument(Fate.HONOURED, _OWN),
    "key": Argument(Fate.HONOURED, _OWN),
    "keys": Argument(Fate.HONOURED, "see [indexes](#indexes)"),
    "indexes": Argument(Fate.HONOURED, "see [indexes](#indexes)"),
    "index_or_name": Argument(Fate.HONOURED, "see [indexes](#indexes)"),
    "upsert": Argument(Fate.HONOURED, _OWN),
    "ordered": Argument(Fate.HONOURED, _OWN),
    "array_filters": Argument(Fate.HONOURED, _OWN),
    "projection": Argument(Fate.HONOURED, _OWN),
    "return_document": Argument(Fate.HONOURED, _OWN),
    "sort": Argument(Fate.HONOURED, _PAIRS),
    "skip": Argument(Fate.HONOURED, _PAIRS),
    "limit": Argument(
        Fate.HONOURED, "as MongoDB's; `find_one` has a limit of its own, as in the driver", {"find_one": Fate.NO_EFFECT}
    ),
    "batch_size": Argument(Fate.HONOURED, "the size of pages; answers are the same"),
    "batchSize": Argument(Fate.ON_MONGO, "the size of its batches; the answer is read as a whole"),
    "cursor": Argument(Fate.ON_MONGO, "the size of its batches; the answer is read as a whole"),
    "comment": Argument(
        Fate.ON_MONGO, "it marks the commands in the server's log and profile", {"options": Fate.NO_EFFECT}
    ),
    "hint": Argument(
        Fate.ON_MONGO,
        "DynamoDB chooses by itself, with the server's errors for what is no index. An index without every document "
        "(sparse, partial, text, ...) changes the result: it is MongoDB's alone, as is one that is not known",
    ),
    "bypass_document_validation": Argument(Fate.ON_MONGO, "DynamoDB has no validators"),
    "bypassDocumentValidation": Argument(
        Fate.ON_MONGO, "DynamoDB has no validators", {"find_one_and_delete": Fate.NO_EFFECT}
    ),
    "max_time_ms": Argument(Fate.ON_MONGO, "on DynamoDB `limits` hold in its place"),
    "maxTimeMS": Argument(
        Fate.ON_MONGO,
        "on DynamoDB `limits` hold in its place. A find-and-modify has a quarter of a second more, for the way to the "
        "server, and at most what `limits` give it",
    ),
    "maxAwaitTimeMS": Argument(Fate.NO_EFFECT, "it is about tailable cursors"),
    "readConcern": Argument(Fate.MONGO_ALONE, "a field of the command; `with_options` has it for every store"),
    "allow_disk_use": Argument(Fate.ON_MONGO, "memory of the server"),
    "allowDiskUse": Argument(Fate.ON_MONGO, "memory of the server"),
    "no_cursor_timeout": Argument(Fate.ON_MONGO, "DynamoDB has no cursors"),
    "commitQuorum": Argument(Fate.ON_MONGO, "how many members have built an index before it counts"),
    "encrypted_fields": Argument(Fate.NO_EFFECT, "a collection with encrypted fields is refused as a whole"),
    "collation": Argument(Fate.MONGO_ALONE, "DynamoDB compares bytes"),
    "let": Argument(Fate.HONOURED, "the values of its variables are put into the expressions"),
    "min": Argument(Fate.MONGO_ALONE, "a bound of an index of MongoDB"),
    "max": Argument(Fate.MONGO_ALONE, "a bound of an index of MongoDB"),
    "return_key": Argument(Fate.MONGO_ALONE, _IS_OF_MONGO),
    "show_record_id": Argument(Fate.MONGO_ALONE, _IS_OF_MONGO),
    "allow_partial_results": Argument(Fate.MONGO_ALONE, "some shards do not answer"),
    "oplog_replay": Argument(Fate.MONGO_ALONE, _IS_OF_MONGO),
    "max_scan": Argument(Fate.MONGO_ALONE, "servers from 4.2 on do not have it"),
    "snapshot": Argument(Fate.MONGO_ALONE, "servers from 4.0 on do not have it"),
    "cursor_type": Argument(
        Fate.MONGO_ALONE,
        "a tailable cursor belongs to a capped collection. `EXHAUST` is accepted: it says how MongoDB sends documents",
    ),
    "session": Argument(
        Fate.HONOURED,
        "see [sessions and transactions](#sessions-and-transactions)",
        {"estimated_document_count": Fate.REFUSED},
    ),
}

VERBS: Final = (
    "aggregate", "bulk_write", "count_documents", "create_index", "create_indexes", "delete_many", "delete_one",
    "distinct", "drop", "drop_index", "drop_indexes", "estimated_document_count", "find", "find_one",
    "find_one_and_delete", "find_one_and_replace", "find_one_and_update", "index_information", "insert_many",
    "insert_one", "list_indexes", "options", "replace_one", "update_many", "update_one",
)  # fmt: skip
"""The verbs that two stores have. `rename` and `watch` are refused whatever their arguments."""
_NOT_ARGUMENTS: Final = frozenset({"self", "collection", "args", "kwargs"})


def _signature(verb: str) -> inspect.Signature:
    return call_signature("find" if verb == "find_one" else verb)


def names_of(verb: str) -> frozenset[str]:
    """The arguments of a verb: of the driver's signature, and the fields of its command that the driver documents."""
    return frozenset({*_signature(verb).parameters, *FIELDS.get(verb, ())} - _NOT_ARGUMENTS)


def fate_of(verb: str, name: str) -> Fate:
    """What an argument does. Raises KeyError for one that the table does not have."""
    found = ARGUMENTS[name]
    return found.other.get(verb, found.fate)


def arguments_of(fate: Fate) -> dict[str, list[str]]:
    """The arguments of a fate, and the verbs that have them so."""
    found: dict[str, list[str]] = {}
    for name in ARGUMENTS:
        verbs = [verb for verb in VERBS if name in names_of(verb) and fate_of(verb, name) is fate]
        if verbs:
            found[name] = verbs
    return found


def by_name(verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names of the driver's signature. Raises TypeError as the driver does."""
    signature = _signature(verb)
    skipped = [name for name in signature.parameters if name in ("self", "collection")]
    bound = dict(signature.bind(*([None] * len(skipped)), *arguments, **options).arguments)
    more = bound.pop("kwargs", {})
    return {name: value for name, value in {**bound, **more}.items() if name not in _NOT_ARGUMENTS}


def with_names(verb: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A verb that takes as many arguments by position as the driver's."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    most = sum(each.kind in kinds for each in inspect.signature(method).parameters.values()) - 1

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        if len(arguments) > most:
            arguments, options = (), by_name(verb, arguments, options)
        if not (sent := given_in(options)):
            return method(self, *arguments, **options)
        with sending(sent):  # a cursor keeps them, a coroutine begins later
            made = method(self, *arguments, **options)
        return _sending(self, verb, sent, made) if inspect.iscoroutine(made) else made

    return call


async def _sending(collection: Any, verb: str, sent: Mapping[str, Any], call: Coroutine[Any, Any, Any]) -> Any:
    with sending(sent), contextlib.closing(call):
        if "hint" in sent and "hint" in names_of(verb):
            await collection._check_hint(verb, sent["hint"])
        return await call
