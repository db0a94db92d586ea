"""The form of a call without its values, for `db.query.text`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["statement"]

_VALUE: Final = "?"
_LONGEST: Final = 2000
"""The maximum number of characters of one text."""
_NAMES: Final = ("filter", "pipeline", "update", "replacement", "key", "sort")
_WHOLE: Final = frozenset({"insert_one", "insert_many", "bulk_write"})
"""Verbs whose arguments are documents: nothing of them is shown."""


def statement(verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> str:
    """The verb and the form of its filter, pipeline, update or replacement: names of fields and operators, and a `?` in
    place of each value."""
    if verb in _WHOLE:
        return verb
    parts = [*arguments[:2], *(options[name] for name in _NAMES if name in options)]
    texts = [json.dumps(_form(each)) for each in parts if isinstance(each, Mapping | list | tuple)]
    return " ".join([verb, *texts])[:_LONGEST]


def _form(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _form(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        forms = [_form(each) for each in value]
        return forms if any(each != _VALUE for each in forms) else [_VALUE]
    return _VALUE
