"""Which collations DynamoDB can have too, for equality alone. Pure.

They are `simple`, and those of locales whose texts are equal, and in order, as in English, at strength 1 to 3. A unique
index has English at strength 1 or 2. Which texts they take for equal is in `shadow.mongoql.values.collation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pymongo.collation import Collation

from shadow.model.schema import CollationSpec

__all__ = ["AS_ENGLISH", "LOCALES", "as_options", "is_simple", "of_index", "of_query"]

LOCALES: Final = ("en", "en_US")
AS_ENGLISH: Final = (*LOCALES, "de", "fr", "ga", "id", "it", "ms", "nl", "pt", "sw", "zu")
"""Locales without rules of their own: the tests compare them with a real server."""
_DEFAULTS: Final[Mapping[str, Any]] = {
    "caseLevel": False, "caseFirst": "off", "numericOrdering": False, "alternate": "non-ignorable",
    "maxVariable": "punct", "normalization": False, "backwards": False,
}  # fmt: skip


def _document(collation: Any) -> Mapping[str, Any]:
    found = collation.document if isinstance(collation, Collation) else collation
    return found if isinstance(found, Mapping) else {}


def is_simple(collation: Any) -> bool:
    """Whether it is the comparison by bytes, which every store has."""
    return dict(_document(collation)) == {"locale": "simple"}


def of_query(collation: Any) -> CollationSpec | None:
    """That of a call, if it is supported; None for any other."""
    given = _document(collation)
    strength = given.get("strength", 3)
    others = {name: value for name, value in given.items() if name not in ("locale", "strength")}
    plain = all(name in _DEFAULTS and _DEFAULTS[name] == value for name, value in others.items())
    supported = given.get("locale") in AS_ENGLISH and strength in (1, 2, 3) and not isinstance(strength, bool)
    return CollationSpec(str(given["locale"]), int(strength)) if plain and supported else None


def of_index(collation: Any) -> CollationSpec | None:
    """That of an index, as an application gives it or as `listIndexes` shows it; None for one that is not supported."""
    found = of_query({name: value for name, value in _document(collation).items() if name != "version"})
    return found if found is not None and found.locale in LOCALES and found.strength < 3 else None


def as_options(collation: CollationSpec | None) -> dict[str, Any]:
    """The option `collation` of an index as `listIndexes` shows it, apart from the version; {} for None."""
    if collation is None:
        return {}
    first, *rest = _DEFAULTS.items()
    case, *others = rest
    shown = {"locale": collation.locale, **dict([first, case]), "strength": collation.strength, **dict(others)}
    return {"collation": shown}
