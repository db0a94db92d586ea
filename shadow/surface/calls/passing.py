"""The arguments of a call that only MongoDB can answer, as they are passed on to it.

They are made canonical like all others and may not name the version; whether they are valid, the server decides.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo.collation import Collation

from shadow.errors import UnsupportedOperation
from shadow.model.operation import MongoOnly, Sort
from shadow.model.stored import exact_value
from shadow.model.values import normalise
from shadow.model.version import Document
from shadow.mongoql.portability import name_of
from shadow.stores.mongo.schema_filters import without_version
from shadow.surface.calls.arguments import HARMLESS, Arguments, check_harmless, clocked, pairs_of
from shadow.surface.calls.verb_options import check_options

__all__ = ["PassingArguments", "reason_of"]

_NEVER: Final = frozenset({"session"})
"""Options that are refused in every case."""


def reason_of(refusal: UnsupportedOperation) -> MongoOnly:
    """Why the call is for MongoDB alone: what the strict arguments have refused."""
    return MongoOnly(name_of(refusal), refusal)


class PassingArguments(Arguments):
    """Those of one call, which the strict arguments have refused. `mongo_only` collects its options."""

    mongo_only: MongoOnly
    otherwise: Arguments | None = None
    """Those by which another store could answer, for as long as they refuse nothing."""

    def __init__(self, strict: Arguments, refusal: UnsupportedOperation) -> None:
        super().__init__(strict.reserved, strict.options, strict.knows)
        self.mongo_only = reason_of(refusal)

    def filter(self, filter: Any) -> Document:
        if filter is None:
            return {}
        return self._taken("filter", filter if isinstance(filter, Mapping) else {"_id": filter})

    def update(
        self, update: Any, array_filters: Sequence[Mapping[str, Any]] | None
    ) -> tuple[Document | list[Document], tuple[Document, ...]]:
        """With the clock of `$currentDate` fixed, as for every store."""
        mapping = self.check_update(update, array_filters)
        given: Sequence[Any] = array_filters or ()
        filters = tuple(normalise(each, self.options) for each in given if each is not None)
        wanted = exact_value(update, self.options)
        self.unreserved("update", wanted)
        if mapping and isinstance(wanted.get("$rename"), dict):
            self.unreserved("update", {str(target): 1 for target in wanted["$rename"].values()})
        if mapping and isinstance(wanted.get("$currentDate"), dict):
            now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
            wanted = clocked(wanted, now.replace(microsecond=now.microsecond // 1000 * 1000))
        return wanted, filters

    def projection(self, projection: Any) -> Document | None:
        if projection is None:
            return None
        if not isinstance(projection, Mapping):
            return super().projection(projection)
        return self._taken("projection", projection) or None

    def sort(self, key: Any, direction: int | None = None) -> Sort:
        pairs = () if key is None else pairs_of(key, direction)
        for path, _ in pairs:
            self.unreserved("sort", {path: 1})
        return pairs

    def path(self, what: str, path: str) -> str:
        self.unreserved(what, {path: 1})
        return path

    def pipeline(self, pipeline: Any) -> list[Document]:
        if not isinstance(pipeline, Sequence) or isinstance(pipeline, str | bytes):
            raise TypeError("pipeline must be a list")
        wanted: list[Document] = normalise({"": list(pipeline)}, self.options)[""]
        self.unreserved("pipeline", wanted)
        if wanted and isinstance(wanted[0].get("$match"), dict):  # it comes before the version is removed
            wanted[0] = {**wanted[0], "$match": without_version(wanted[0]["$match"], self.reserved)}
        return wanted

    def refuse(self, verb: str, options: Mapping[str, Any]) -> None:
        """Collects the options that are not harmless. Raises what the strict arguments raise for options that the
        driver or the command does not have, and for harmless ones of another type."""
        check_options(verb, options)
        for name, value in options.items():
            check_harmless(name, value, verb)
            if name in _NEVER and value is not None:
                raise self.mongo_only.refusal
            if value is not None and name not in HARMLESS:
                self.take_option(name, value)

    def hint(self, name: str, hint: Any) -> None:
        self.take_option("hint", hint)

    def take_option(self, name: str, value: Any) -> None:
        """Passes one of the driver's options on. Raises TypeError, as the drivers do at once, for one of another type:
        not every call comes to send it."""
        if name == "let" and not isinstance(value, Mapping):
            raise TypeError(f"let must be an instance of a mapping, not {type(value)}")
        if name == "collation" and not isinstance(value, Mapping | Collation):
            raise TypeError("collation must be a dict or an instance of collation.Collation")
        given = {**self.mongo_only.options, name: value}
        self.mongo_only = dataclasses.replace(self.mongo_only, options=given)

    def _taken(self, what: str, given: Mapping[str, Any]) -> Document:
        wanted: Document = normalise(given, self.options)
        self.unreserved(what, wanted)
        return wanted
