"""Which collations DynamoDB can have too: `simple`, and English at strength 1 or 2, for equality alone. Pure.

Which texts they take for equal is in `shadow.mongoql.collation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pymongo.collation import Collation

from shadow.model.schema import CollationSpec

__all__ = ["LOCALES", "as_options", "is_simple", "of_index", "strength_of"]

LOCALES: Final = ("en", "en_US")
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


def strength_of(collation: Any) -> int:
    """1 or 2 for a collation that is supported, 0 for any other."""
    given = _document(collation)
    strength = given.get("strength")
    others = {name: value for name, value in given.items() if name not in ("locale", "strength")}
    plain = all(name in _DEFAULTS and _DEFAULTS[name] == value for name, value in others.items())
    supported = given.get("locale") in LOCALES and strength in (1, 2) and not isinstance(strength, bool)
    return int(strength) if plain and supported and strength is not None else 0


def of_index(collation: Any) -> CollationSpec | None:
    """That of an index, as an application gives it or as `listIndexes` shows it; None for one that is not supported."""
    given = {name: value for name, value in _document(collation).items() if name != "version"}
    strength = strength_of(given)
    return CollationSpec(str(given["locale"]), strength) if strength else None


def as_options(collation: CollationSpec | None) -> dict[str, Any]:
    """The option `collation` of an index as `listIndexes` shows it, apart from the version; {} for None."""
    if collation is None:
        return {}
    first, *rest = _DEFAULTS.items()
    case, *others = rest
    shown = {"locale": collation.locale, **dict([first, case]), "strength": collation.strength, **dict(others)}
    return {"collation": shown}
