"""What comes in through the Motor surface: checked, copied, and made canonical, before any store is touched."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

from bson import ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.matching import cached_filter, compile_pipeline, compile_projection, compile_update
from shadow.model.matching.caching import cached_update
from shadow.model.operation import ANY, Sort
from shadow.model.stored import exact_value, taken_in, with_time
from shadow.model.values import normalise
from shadow.model.version import Document, Key

__all__ = ["Arguments", "key_in", "sort_pairs"]

_HARMLESS: Final = frozenset(
    {"comment", "bypass_document_validation", "maxTimeMS", "max_time_ms", "allow_disk_use", "allowDiskUse", "batchSize",
     "max_await_time_ms", "no_cursor_timeout", "cursor"}
)  # fmt: skip
"""Arguments that change no answer. Asking to bypass validation changes none either: the secondary has none, and the
primary refuses what it refuses."""


class Arguments:
    """The arguments of one collection's verbs. `options` are the application's codec options."""

    def __init__(
        self, reserved: str, options: CodecOptions[Any] | None, knows: Callable[[Any], bool] = lambda hint: False
    ) -> None:
        """`knows`: whether a hint names an index that is there."""
        self._knows = knows
        self._reserved = reserved
        self._options = options

    def document(self, document: Any, what: str = "document") -> Document:
        """A whole document to insert or to put in another's place, its empty timestamps filled in. Raises TypeError,
        `bson.errors.InvalidDocument`, or that it holds the reserved field."""
        if not isinstance(document, Mapping):
            raise TypeError(f"{what} must be an instance of a mapping, not {type(document).__name__}")
        whole = taken_in(document, self._options)
        if self._reserved in whole:
            self._refuse_reserved(what)
        return with_time(whole)

    def filter(self, filter: Any) -> Document:
        """A filter that compiles. One that is no mapping is taken for an `_id`, as the drivers do."""
        if filter is None:
            return {}
        if _names_plain_key(filter):
            return {"_id": filter["_id"]}
        if not isinstance(filter, Mapping):
            filter = {"_id": filter}
        wanted = normalise(filter, self._options)
        self.unreserved("filter", wanted)
        cached_filter(wanted)
        return wanted

    def update(
        self, update: Any, array_filters: Sequence[Mapping[str, Any]] | None
    ) -> tuple[Document | list[Document], tuple[Document, ...]]:
        """An update that compiles, with the clock of `$currentDate` fixed, and its array filters."""
        mapping = isinstance(update, (dict, Mapping))  # `dict` by itself is told at once, without the abstract class
        if not mapping and not isinstance(update, list):
            raise TypeError("update must be an instance of dict, bson.son.SON, or a list (pipeline)")
        if not update:
            raise ValueError("update cannot be empty")
        if mapping and not next(iter(update)).startswith("$"):
            raise ValueError("update only works with $ operators")
        filters = tuple(normalise(each, self._options) for each in array_filters or ())
        wanted = exact_value(update, self._options)
        self.unreserved("update", wanted)
        if isinstance(wanted, dict) and isinstance(wanted.get("$rename"), dict):
            for target in wanted["$rename"].values():
                self.path("update", str(target))
        if isinstance(wanted, dict) and "$currentDate" in wanted:
            now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
            now = now.replace(microsecond=now.microsecond // 1000 * 1000)
            compile_update(wanted, filters, now=now)
            return _clocked(wanted, now), filters
        # Remembered: the stores that compute the image after it need the same again.
        cached_update(wanted, filters)
        return wanted, filters

    def replacement(self, replacement: Any) -> Document:
        if isinstance(replacement, Mapping) and replacement and str(next(iter(replacement))).startswith("$"):
            raise ValueError("replacement can not include $ operators")
        return self.document(replacement, "replacement")

    def projection(self, projection: Any) -> Document | None:
        """A projection that compiles, as a mapping; None for all fields."""
        if projection is None:
            return None
        if not isinstance(projection, Mapping):
            projection = {str(name): 1 for name in projection}
        wanted = normalise(projection, self._options)
        self.unreserved("projection", wanted)
        compile_projection(wanted)
        return wanted or None

    def sort(self, key: Any, direction: int | None = None) -> Sort:
        """A sort order as pairs; none for None."""
        pairs = () if key is None else sort_pairs(key, direction)
        for path, _ in pairs:
            self.path("sort", path)
        return pairs

    def path(self, what: str, path: str) -> str:
        """A dotted path that is not that of the version."""
        if path.split(".")[0] == self._reserved:
            self._refuse_reserved(what)
        return path

    def pipeline(self, pipeline: Any) -> list[Document]:
        """An aggregation pipeline that compiles."""
        if not isinstance(pipeline, Sequence) or isinstance(pipeline, str | bytes):
            raise TypeError("pipeline must be a list")
        wanted: list[Document] = normalise({"": list(pipeline)}, self._options)[""]
        self.unreserved("pipeline", wanted)
        compile_pipeline(wanted)
        return wanted

    def refuse(self, verb: str, options: Mapping[str, Any]) -> None:
        """Refuses every option that is given and would change an answer."""
        for name, value in options.items():
            if name == "hint" and value is not None:
                self.hint(f"{verb}(hint=...)", value)
            elif value is not None and name not in _HARMLESS:
                raise UnsupportedOperation(f"{verb}({name}=...)", "it has no meaning that both stores share")

    def hint(self, name: str, hint: Any) -> None:
        """Accepts a hint that names an index which is there, for it changes no answer."""
        if not self._knows(hint):
            raise UnsupportedOperation(name, "it names no index that the configuration declares")

    def unreserved(self, what: str, value: Any) -> None:
        """Refuses a filter, an update, a projection or a pipeline that names the version; checks nothing else."""
        for name in _names(value):
            if str(name).lstrip("$").split(".")[0] == self._reserved:
                self._refuse_reserved(what)

    def unstamped(self, what: str, document: Mapping[str, Any]) -> None:
        """Refuses a whole document that holds the version's field; checks nothing else."""
        if self._reserved in document:
            self._refuse_reserved(what)

    def _refuse_reserved(self, what: str) -> NoReturn:
        raise UnsupportedOperation(
            f"the field {self._reserved!r} in a {what}",
            "it holds the version of the document",
            hint="the collection's setting `reserved` chooses another name",
        )


def key_in(filter: Document) -> Key:
    """The key that a filter names by equality on `_id`, or `ANY`."""
    if "_id" not in filter:
        return ANY
    wanted = filter["_id"]
    if isinstance(wanted, dict) and any(name.startswith("$") for name in wanted):
        wanted = wanted["$eq"] if set(wanted) == {"$eq"} else ANY
    return ANY if isinstance(wanted, list | Regex) else wanted


def _names_plain_key(filter: Any) -> bool:
    """Whether the filter is an equality on `_id` alone that is canonical as it stands: the commonest filter of all,
    and nothing in it can be refused. ASCII, since other text may not be encodable."""
    if type(filter) is not dict or len(filter) != 1:
        return False
    key = filter.get("_id")
    return type(key) is ObjectId or (type(key) is str and key.isascii())


def sort_pairs(key: str | Sequence[Any] | Mapping[str, int], direction: int | None = None) -> Sort:
    """PyMongo's ways of giving a sort order as pairs: a name, a list of names or pairs, a mapping."""
    if isinstance(key, str):
        return ((key, 1 if direction is None else _direction(direction)),)
    if direction is not None:
        raise TypeError("a direction goes with a single field name")
    items = list(key.items()) if isinstance(key, Mapping) else list(key)
    pairs = [(each, 1) if isinstance(each, str) else (each[0], _direction(each[1])) for each in items]
    if not pairs:
        raise ValueError("key_or_list must not be empty")
    return tuple(pairs)


def _direction(value: Any) -> int:
    if isinstance(value, Mapping):
        raise UnsupportedOperation("sort by $meta", "text scores have no counterpart in DynamoDB")
    if value not in (1, -1):
        message = "$sort key ordering must be 1 (for ascending) or -1 (for descending)"
        raise OperationFailure(message, 15975, {"ok": 0.0, "errmsg": message, "code": 15975})
    return int(value)


def _clocked(update: Document, now: dt.datetime) -> Document:
    """`$currentDate` as a `$set` of the one moment, so that both stores have the same."""
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
    """Every field name in a filter, an update or a pipeline, and every text that a pipeline may take for one."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)
    elif isinstance(value, str) and value.startswith("$"):
        yield value
