"""The arguments of the Motor surface: checked, copied, and made canonical, before any store is accessed."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import bson
from bson import Decimal128, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions
from pymongo.cursor_shared import CursorType
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.operation import ANY, MongoOnly, Sort
from shadow.model.outcome import details_of
from shadow.model.stored import exact_value, taken_in, with_time
from shadow.model.values import normalise
from shadow.model.version import Document, Key
from shadow.mongoql import compile_update
from shadow.mongoql.caching import remember_filter, remember_pipeline, remember_projection, remember_update
from shadow.mongoql.values.collation import COLLATED, is_collated
from shadow.mongoql.values.fieldpaths import checked_path
from shadow.surface.calls.fixing import (
    Values,
    bound,
    clock,
    fixed_expression,
    fixed_filter,
    fixed_pipeline,
    reads_clock,
)
from shadow.surface.calls.hints import check_form, no_such_index
from shadow.surface.calls.verb_options import check_options

__all__ = ["HARMLESS", "Arguments", "check_harmless", "clocked", "key_in", "pairs_of", "sort_pairs"]

HARMLESS: Final = frozenset(
    {"comment", "commitQuorum", "bypass_document_validation", "bypassDocumentValidation", "maxTimeMS", "max_time_ms",
     "allow_disk_use", "allowDiskUse", "batchSize", "batch_size", "maxAwaitTimeMS", "no_cursor_timeout", "cursor"}
)  # fmt: skip
"""Arguments that change no result. Neither does bypassing validation: the secondary has none, and the primary rejects
what it rejects."""


NAMELESS_HINT: Final = frozenset(
    {"update_one", "update_many", "replace_one", "delete_one", "delete_many", "find_one_and_update",
     "find_one_and_replace", "find_one_and_delete"}
)  # fmt: skip
"""Verbs whose empty hint the drivers send. In a read they take it for none."""

_DEFAULTS: Final[Mapping[str, Any]] = {
    "allow_partial_results": False, "cursor_type": 0, "oplog_replay": False, "return_key": False,
    "show_record_id": False, "snapshot": False,
}  # fmt: skip
"""What an argument of `find` may be besides None: the driver's default."""
_OTHER: Final = object()


class Arguments:
    """The arguments of one collection's verbs. `options` are the application's codec options."""

    mongo_only: MongoOnly | None = None
    """Why only MongoDB can answer the call: None, for these arguments are those that every store understands."""

    def __init__(
        self, reserved: str, options: CodecOptions[Any] | None, knows: Callable[[Any], bool] = lambda hint: False
    ) -> None:
        """`knows`: whether a hint names an existing index."""
        self.knows = knows
        self.reserved = reserved
        self.options = options
        self.let: Document | None = None
        """The option `let` of the call, as it was given."""
        self._bound: Values = {}

    def binding(self, let: Any) -> Arguments | None:
        """The arguments of a call with this option `let`; None if its values only the server can decide on."""
        values = bound(normalise(let, self.options)) if isinstance(let, Mapping) else None
        if values is None:
            return None
        self.unreserved("let", normalise(let, self.options))
        made = copy.copy(self)
        made.let, made._bound = dict(let), values
        return made

    def _values(self) -> Values:
        """The variables whose values are put in."""
        return {**clock(), **self._bound}

    def document(self, document: Any, what: str = "document") -> Document:
        """A whole document to insert or to use as a replacement, with its empty timestamps filled in. Raises TypeError,
        `bson.errors.InvalidDocument`, or `UnsupportedOperation` if it contains the reserved field."""
        if not isinstance(document, Mapping):
            raise TypeError(f"{what} must be an instance of a mapping, not {type(document).__name__}")
        whole = taken_in(document, self.options)
        if self.reserved in whole:
            self._refuse_reserved(what)
        return with_time(whole)

    def filter(self, filter: Any) -> Document:
        """A filter that compiles. If it is not a mapping, it is treated as an `_id`, as in the drivers."""
        if filter is None:
            return {}
        if _names_plain_key(filter):
            return {"_id": filter["_id"]}
        if not isinstance(filter, Mapping):
            filter = {"_id": filter}
        wanted = normalise(filter, self.options)
        self.unreserved("filter", wanted)
        if is_collated(wanted):  # shadow's own operator, which the server does not have
            raise _refusal(2, f"unknown operator: {COLLATED}")
        fixed = fixed_filter(wanted, self._values())
        remember_filter(fixed, once=fixed is not wanted and reads_clock(wanted))
        return fixed

    def update(
        self, update: Any, array_filters: Sequence[Mapping[str, Any]] | None
    ) -> tuple[Document | list[Document], tuple[Document, ...]]:
        """An update that compiles, with the clock of `$currentDate` fixed, and its array filters."""
        self.check_update(update, array_filters)
        # The server ignores a null among them. Tried on MongoDB 6.0.5.
        given: Sequence[Any] = array_filters or ()
        filters = tuple(self._array_filter(each) for each in given if each is not None)
        wanted = exact_value(update, self.options)
        self.unreserved("update", wanted)
        if isinstance(wanted, list):
            fixed = fixed_pipeline(wanted, self._values())
            remember_update(fixed, filters, once=reads_clock(wanted))
            return fixed, filters
        if isinstance(wanted, dict) and isinstance(wanted.get("$rename"), dict):
            self.unreserved("update", [{str(target): 1} for target in wanted["$rename"].values()])
        if isinstance(wanted, dict) and "$currentDate" in wanted:
            now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
            now = now.replace(microsecond=now.microsecond // 1000 * 1000)
            compile_update(wanted, filters, now=now)
            made = clocked(wanted, now)
            remember_update(made, filters, once=made is not wanted)
            return made, filters
        remember_update(wanted, filters)
        return wanted, filters

    def check_update(self, update: Any, array_filters: Any) -> bool:
        """Checks types, as the drivers do. Returns whether the update is a mapping and not a pipeline. Raises TypeError
        and ValueError."""
        mapping = isinstance(update, (dict, Mapping))  # a plain `dict` is recognised fast, without the abstract class
        if not mapping and not isinstance(update, list):
            raise TypeError("update must be an instance of dict, bson.son.SON, or a list (pipeline)")
        if not update:
            raise ValueError("update cannot be empty")
        if mapping and not next(iter(update)).startswith("$"):
            raise ValueError("update only works with $ operators")
        if array_filters is not None and not isinstance(array_filters, list):
            raise TypeError(f"array_filters must be a list, not {type(array_filters).__name__}")
        return mapping

    def _array_filter(self, given: Any) -> Document:
        if not isinstance(given, Mapping):
            raise _refusal(14, "BSON field 'update.updates.arrayFilters' holds what is no object")
        return normalise(given, self.options)

    def upsert(self, upsert: Any) -> bool:
        """Raises TypeError, as the drivers do, unless it is True or False."""
        return _flag("upsert", upsert)

    def counted(self, name: str, value: Any, code: int = 51024) -> int:
        """A `skip` or a `limit`. Raises TypeError and OverflowError as the drivers do, OperationFailure with the
        server's code for a boolean (14) and for a negative number."""
        if isinstance(value, bool):
            raise _refusal(14, f"BSON field '{name}' is the wrong type 'bool'")
        if not isinstance(value, int):
            raise TypeError(f"{name} must be an instance of int, not {type(value).__name__}")
        if value >= 1 << 63:
            raise OverflowError("MongoDB can only handle up to 8-byte ints")
        if value < 0:
            raise _refusal(code, f"BSON field '{name}' value must be >= 0")
        return value

    def replacement(self, replacement: Any) -> Document:
        if isinstance(replacement, Mapping) and replacement and str(next(iter(replacement))).startswith("$"):
            raise ValueError("replacement can not include $ operators")
        return self.document(replacement, "replacement")

    def projection(self, projection: Any) -> Document | None:
        """A projection that compiles, as a mapping; None for all fields."""
        if projection is None:
            return None
        if not isinstance(projection, Mapping):
            if not all(isinstance(name, str) for name in projection):
                raise TypeError("projection must be a list of names or a mapping")
            projection = dict.fromkeys(projection, 1)
        wanted = normalise(projection, self.options)
        self.unreserved("projection", wanted)
        once = False
        if not all(type(value) is int or type(value) is bool for value in wanted.values()):
            values = self._values()
            once = reads_clock(wanted)
            wanted = {name: fixed_expression(value, values) for name, value in wanted.items()}
        remember_projection(wanted, once=once)
        return wanted or None

    def sort(self, key: Any, direction: int | None = None) -> Sort:
        """A sort order as pairs; empty for None. Raises UnsupportedOperation for `$natural`, because documents have no
        such order in DynamoDB, and the server's errors for an invalid path or direction."""
        pairs = () if key is None else sort_pairs(key, direction)
        for path, _ in pairs:
            if path == "$natural":
                raise UnsupportedOperation("sort by $natural", "DynamoDB keeps no order of insertion or of storage")
            self.path("sort", path)
        return pairs

    def path(self, what: str, path: str) -> str:
        """A dotted path other than the version's. Raises OperationFailure with the server's codes for one that names no
        field."""
        plain = _plain(path)
        checked_path(plain)
        if plain.split(".")[0] == self.reserved:
            self._refuse_reserved(what)
        return plain

    def pipeline(self, pipeline: Any) -> list[Document]:
        """An aggregation pipeline that compiles."""
        if not isinstance(pipeline, list):
            raise TypeError("pipeline must be a list")
        if pipeline and not isinstance(pipeline[-1], Container):
            raise TypeError(f"argument of type {type(pipeline[-1]).__name__!r} is not iterable")  # as in the drivers
        if not all(isinstance(each, Mapping) for each in pipeline):
            raise _refusal(14, "Each element of the 'pipeline' array must be an object")
        wanted: list[Document] = normalise({"": list(pipeline)}, self.options)[""]
        self.unreserved("pipeline", wanted)
        fixed = fixed_pipeline(wanted, self._values())
        remember_pipeline(fixed, once=reads_clock(wanted))
        return fixed

    def refuse(self, verb: str, options: Mapping[str, Any]) -> None:
        """Rejects options that would change a result, and options that the verb does not have."""
        if options:
            check_options(verb, options)
        for name, value in options.items():
            check_harmless(name, value, verb)
            if name == "hint" and value is not None:
                self._hint_of(verb, value)
            elif name == "cursor_type" and value == CursorType.EXHAUST:
                continue  # it says how documents are sent
            elif value is not None and name not in HARMLESS and _DEFAULTS.get(name, _OTHER) is not value:
                raise UnsupportedOperation(f"{verb}({name}=...)", "it has no meaning that both stores share")

    def _hint_of(self, verb: str, hint: Any) -> None:
        if hint == "" and verb in NAMELESS_HINT:
            raise no_such_index(verb)
        check_form(verb, hint)
        self.hint(f"{verb}(hint=...)", hint)

    def hint(self, name: str, hint: Any) -> None:
        """Accepts a hint that names an existing index, because it changes no result."""
        if not self.knows(hint):
            raise UnsupportedOperation(name, "it names no index that the configuration declares")

    def unreserved(self, what: str, value: Any) -> None:
        """Rejects a filter, an update, a projection or a pipeline that names the version; checks nothing else."""
        for name in _names(value):
            if str(name).lstrip("$").split(".")[0] == self.reserved:
                self._refuse_reserved(what)

    def unstamped(self, what: str, document: Mapping[str, Any]) -> None:
        """Rejects a whole document that contains the version's field; checks nothing else."""
        if self.reserved in document:
            self._refuse_reserved(what)

    def _refuse_reserved(self, what: str) -> NoReturn:
        raise UnsupportedOperation(
            f"the field {self.reserved!r} in a {what}",
            "it holds the version of the document",
            hint="the collection's setting `reserved` chooses another name",
        )


_MOST: Final = 2**31 - 1


def _refusal(code: int, text: str) -> OperationFailure:
    return OperationFailure(text, code, details_of(code, text))


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, was: {name}={value!r}")
    return value


def check_harmless(name: str, value: Any, verb: str = "") -> None:
    """A limit of time must have the right type and size. Raises OperationFailure with the codes that the server has for
    the command of `verb`."""
    if name not in ("maxTimeMS", "max_time_ms") or (value is None and name == "max_time_ms"):
        return
    bson.encode({"": value})
    text = f"{name} must be a whole number of milliseconds from 0 to {_MOST}"
    if verb in ("aggregate", "count_documents") and value is not None:  # parsed as fields of a typed command
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal128):
            raise _refusal(14, text)
        if isinstance(value, int) and value < 0:
            raise _refusal(51024, text)
    if isinstance(value, Decimal128) and not value.to_decimal().is_nan():
        value = value.to_decimal()
        value = int(value) if value == value.to_integral_value() else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise _refusal(2, text)


def key_in(filter: Document) -> Key:
    """The key that a filter names by equality on `_id`, or `ANY`."""
    if "_id" not in filter:
        return ANY
    wanted = filter["_id"]
    if isinstance(wanted, dict) and any(name.startswith("$") for name in wanted):
        wanted = wanted["$eq"] if set(wanted) == {"$eq"} else ANY
    return ANY if isinstance(wanted, list | Regex) else wanted


def _names_plain_key(filter: Any) -> bool:
    """Whether the filter is an equality on `_id` alone that is already canonical: the most common filter, and nothing
    in it can be rejected. ASCII only, because other text may not be encodable."""
    if type(filter) is not dict or len(filter) != 1:
        return False
    key = filter.get("_id")
    return type(key) is ObjectId or (type(key) is str and key.isascii())


def sort_pairs(key: str | Sequence[Any] | Mapping[str, int], direction: int | None = None) -> Sort:
    """PyMongo's ways of giving a sort order as pairs: a name, a list of names or pairs, a mapping."""
    return tuple((path, _direction(way)) for path, way in pairs_of(key, direction))


def pairs_of(key: str | Sequence[Any] | Mapping[str, Any], direction: Any = None) -> tuple[tuple[str, Any], ...]:
    """The same, with each direction as it was given."""
    if isinstance(key, str):
        return ((_plain(key), 1 if direction is None else direction),)
    if direction is not None:
        raise TypeError("a direction goes with a single field name")
    items = list(key.items()) if isinstance(key, Mapping) else list(key)
    pairs = [_pair(each) for each in items]
    if not pairs:
        raise ValueError("key_or_list must not be empty")
    return tuple(pairs)


def _pair(each: Any) -> tuple[str, Any]:
    if isinstance(each, str):
        return _plain(each), 1
    path, direction = each  # raises TypeError or ValueError, as the drivers do, for anything but a pair
    if not isinstance(path, str):
        raise TypeError(f"first item in each key pair must be an instance of str, not {type(path).__name__}")
    return _plain(path), direction


def _plain(name: str) -> str:
    """ODMs name fields by classes of `str` of their own, some of which call each comparison true."""
    return str.__str__(name)


def _direction(value: Any) -> int:
    if isinstance(value, Mapping):
        raise UnsupportedOperation("sort by $meta", "text scores have no counterpart in DynamoDB")
    if not isinstance(value, str | int):
        raise TypeError(f"second item in each key pair must be 1 or -1, not {type(value).__name__}")
    if isinstance(value, str | bool):
        raise _refusal(15974, "Illegal key in $sort specification: a direction is a number")
    if value not in (1, -1):
        raise _refusal(15975, "$sort key ordering must be 1 (for ascending) or -1 (for descending)")
    return int(value)


def clocked(update: Document, now: dt.datetime) -> Document:
    """`$currentDate` as a `$set` of one fixed time, so that both stores have the same."""
    fields = update.get("$currentDate")
    if not fields:
        return update
    moments = {
        path: Timestamp(now.replace(tzinfo=dt.UTC), 1)
        if isinstance(wanted, dict) and wanted.get("$type") == "timestamp"
        else now
        for path, wanted in fields.items()
    }
    rest = {name: value for name, value in update.items() if name != "$currentDate"}
    return {**rest, "$set": {**rest.get("$set", {}), **moments}}


def _names(value: Any) -> Iterable[str]:
    """Every field name in a filter, an update or a pipeline, and every text that a pipeline may read as one."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)
    elif isinstance(value, str) and value.startswith("$"):
        yield value
