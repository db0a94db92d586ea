"""Operators whose operand is an object of named expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from shadow.model.version import Document
from shadow.mongoql.values.failures import described, failure

__all__ = ["ABSENT", "Compile", "Evaluate", "Names", "checked", "named"]

Evaluate: TypeAlias = Callable[[Document, Mapping[str, Any]], Any]
"""An expression, over a document and variables."""
Compile: TypeAlias = Callable[[Any], Evaluate]

ABSENT: Final = object()
"""The value of an argument that is not given, unlike one whose expression gives `MISSING`."""


@dataclass(frozen=True, slots=True)
class Names:
    """The arguments of an operator: those that it needs, each with the server's code where it is missing, and those
    that it may have; the codes for an operand that is no object, and for an unknown argument."""

    needed: Mapping[str, int]
    other: tuple[str, ...]
    no_object: int
    unknown: int
    defaults: Mapping[str, Any] = field(default_factory=dict)


def named(
    name: str,
    names: Names,
    operand: Any,
    compile: Compile,
    call: Callable[[Document, Mapping[str, Any], Mapping[str, Any]], Any],
) -> Evaluate:
    """The operator as a function. `call` has the values of the arguments by name, and the document and variables that
    they were evaluated over; an argument that is not given has its default, which is `ABSENT` without one."""
    parts = {each: compile(value) for each, value in checked(name, names, operand).items()}
    absent = {each: names.defaults.get(each, ABSENT) for each in (*names.needed, *names.other) if each not in parts}

    def evaluate(document: Document, variables: Mapping[str, Any]) -> Any:
        values = {each: part(document, variables) for each, part in parts.items()}
        return call(document, variables, {**absent, **values})

    return evaluate


def checked(name: str, names: Names, operand: Any) -> dict[str, Any]:
    """The operand, which has all arguments that it needs, and no unknown one."""
    if type(operand) is not dict:
        raise failure(names.no_object, f"{name} only supports an object as its argument, found: {described(operand)}")
    for each in operand:
        if each not in names.needed and each not in names.other:
            raise failure(names.unknown, f"Unrecognized argument to {name}: {each}")
    for each, code in names.needed.items():
        if each not in operand:
            raise failure(code, f"Missing '{each}' parameter to {name}")
    return operand
