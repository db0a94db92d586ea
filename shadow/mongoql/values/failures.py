"""Errors as PyMongo's exceptions with the server's codes, and never with a value of a document."""

from __future__ import annotations

from typing import Any

from bson import Decimal128
from pymongo.errors import OperationFailure, WriteError

from shadow.model.outcome import details_of
from shadow.model.values import type_name

__all__ = ["UnknownOperator", "described", "failure", "unknown_operator", "write_failure"]


class UnknownOperator(OperationFailure):
    """The server's error for an operator that MongoDB 6.0 does not have; a newer server may have it."""

    operator = ""

    def as_of_the_driver(self) -> OperationFailure:
        """The same as an error of the driver's own class, for whoever asks for just that."""
        return OperationFailure(str((self.details or {})["errmsg"]), self.code, self.details)


def unknown_operator(code: int, message: str, name: str) -> UnknownOperator:
    """`name`: of the operator."""
    made = UnknownOperator(message, code, details_of(code, message))
    made.operator = name
    return made


def failure(code: int, message: str) -> OperationFailure:
    """What the driver raises when the server refuses a command."""
    return OperationFailure(message, code, details_of(code, message))


def write_failure(code: int, message: str) -> WriteError:
    """What the driver raises when the server refuses one write."""
    return WriteError(message, code, {"index": 0, "code": code, "errmsg": message})


def described(value: Any) -> str:
    """The type of a value, for messages."""
    return "decimal" if type(value) is Decimal128 else type_name(value)
