"""The shape of a read: its verb, fields and operators, without a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shadow.model.reads import Aggregate, Count, Distinct, Find, FindOne, Read

__all__ = ["shape_of"]

_LONGEST: Final = 200
"""The maximum number of characters of one shape."""
_JOINING: Final = ("$and", "$or", "$nor")


def shape_of(read: Read) -> str:
    """For example `find {status: $eq} sort -created limit`, in the form of the shapes of `shadow status --indexes`."""
    match read:
        case FindOne(query) | Find(query):
            text = f"{read.verb} {_filter(query.filter)}"
            if query.sort:
                text += " sort " + ", ".join(path if direction > 0 else f"-{path}" for path, direction in query.sort)
            text += " limit" * bool(query.limit and isinstance(read, Find)) + " skip" * bool(query.skip)
        case Count(estimated=True):
            text = "estimated_document_count"
        case Count():
            text = f"{read.verb} {_filter(read.filter)}"
        case Distinct():
            text = f"{read.verb} {read.path} {_filter(read.filter)}"
        case Aggregate():
            text = f"{read.verb} {_pipeline(read.pipeline)}"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _filter(filter: Mapping[str, Any]) -> str:
    return "{" + ", ".join(_clause(name, operand) for name, operand in sorted(filter.items())) + "}"


def _clause(name: str, operand: Any) -> str:
    if name in _JOINING and isinstance(operand, Sequence):
        return f"{name}: [{', '.join(sorted({_filter(part) for part in operand}))}]"
    if name.startswith("$"):
        return name
    operators = list(operand) if isinstance(operand, Mapping) else []
    named = operators and all(str(each).startswith("$") for each in operators)
    return f"{name}: {' '.join(sorted(operators) if named else ['$eq'])}"


def _pipeline(pipeline: Sequence[Mapping[str, Any]]) -> str:
    stages = [
        f"$match {_filter(stage['$match'])}" if isinstance(stage.get("$match"), Mapping) else " ".join(stage)
        for stage in pipeline
    ]
    return f"[{', '.join(stages)}]"
