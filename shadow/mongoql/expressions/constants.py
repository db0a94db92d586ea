"""The parts of a projection that depend on no document: the server computes them when it reads the command, before it
looks for a document or writes one, so that what fails there fails the whole call."""

from __future__ import annotations

from typing import Any, Final

from shadow.model.order import as_document
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import evaluator, is_constant
from shadow.mongoql.values.support import LITERALS

__all__ = ["check_constants"]

_NO_EXPRESSIONS: Final = frozenset({"$elemMatch", "$meta", "$slice"})
"""What a projection may have in the place of an expression."""


def check_constants(projection: Document) -> None:
    """Raises OperationFailure where a constant part of a projection that compiles fails, whichever part of the
    projection would need it."""
    for value in projection.values():
        value = as_document(value)
        if type(value) is not dict or not _NO_EXPRESSIONS.isdisjoint(value):
            continue
        if next(iter(value), "").startswith("$"):
            _check(value)
        else:
            check_constants(value)


def _check(expression: Any) -> None:
    """From the inside out, also in branches that no document would reach."""
    expression = as_document(expression)
    if type(expression) is list:
        for each in expression:
            _check(each)
    if type(expression) is not dict or not LITERALS.isdisjoint(expression):
        return
    for each in expression.values():
        _check(each)
    if next(iter(expression), "").startswith("$") and is_constant(expression):
        evaluator(expression)({})
