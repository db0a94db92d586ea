"""`distinct`: the different values at a path over many documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shadow.model.matching.paths import matcher
from shadow.model.order import MISSING, key_digest
from shadow.model.version import Document

__all__ = ["distinct_values"]


def distinct_values(path: str, documents: Iterable[Document]) -> list[Any]:
    """The different values (under MongoDB's equality) at the dotted `path`, in the order of their first sight. An
    array at the end of the path counts as its elements; an empty one, and a missing field, as nothing."""
    found: dict[str, Any] = {}

    def keep(value: Any) -> bool:
        for each in value if type(value) is list else (value,):
            if each is not MISSING:
                found.setdefault(key_digest(each), each)
        return False

    visit = matcher(path, keep, traverse=False)
    for document in documents:
        visit(document)
    return list(found.values())
