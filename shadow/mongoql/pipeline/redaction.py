"""`$redact`: what a document shows, decided for each document inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from shadow.model.order import MISSING, as_document
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import Expression, compile_expression
from shadow.mongoql.values.failures import failure
from shadow.mongoql.values.stages import Lookup, Stage, Variables

__all__ = ["compile_redact"]

_CHOICES: Final = {"DESCEND": "descend", "PRUNE": "prune", "KEEP": "keep"}
"""The variables of the stage with their values, which are texts on the server, too."""


def compile_redact(spec: Any, given: Variables) -> Stage:
    names = {**given, **_CHOICES}
    evaluate = compile_expression(spec, frozenset({*names, "ROOT"}))

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        made = [_redacted(each, _decision(evaluate, {**given, **_CHOICES, "ROOT": each})) for each in documents]
        return [each for each in made if each is not MISSING]

    return stage


def _decision(evaluate: Expression, variables: Variables) -> Callable[[Document], Any]:
    return lambda current: evaluate(current, variables)


def _redacted(document: Document, decide: Callable[[Document], Any]) -> Any:
    match decide(document):
        case "keep":
            return document
        case "prune":
            return MISSING
        case "descend":
            made = {name: _value(value, decide) for name, value in document.items()}
            return {name: value for name, value in made.items() if value is not MISSING}
    raise failure(17053, "$redact's expression should not return anything aside from the variables of the stage")


def _value(value: Any, decide: Callable[[Document], Any]) -> Any:
    value = as_document(value)
    if type(value) is dict:
        return _redacted(value, decide)
    if type(value) is list:
        return [made for each in value if (made := _value(each, decide)) is not MISSING]
    return value
