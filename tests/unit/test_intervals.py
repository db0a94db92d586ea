"""Membership in the numbers of 32 and 64 bits takes no time, for every type of number."""

from __future__ import annotations

import decimal
import importlib
import pkgutil
from typing import Any

from bson import Int64
from pymongo.errors import OperationFailure

import shadow
from shadow.model.intervals import INT32, INT64
from shadow.model.outcome import Outcome, classify
from tests.support.cases import each_of

LONGEST = 100_000
"""The most numbers of a range of a module: each of them is tried for a number that is not `int` itself."""


@each_of("kind", [int, Int64, float, decimal.Decimal])
def test_every_type_of_number_is_compared_with_the_ends(kind: type[Any]) -> None:
    for value, in_32, in_64 in (
        (0, True, True),
        (2**31 - 1, True, True),
        (-(2**31), True, True),
        (2**31, False, True),
        (-(2**31) - 1, False, True),
        (2**62, False, True),
        (-(2**63), False, True),
        (2**63, False, False),
        (-(2**64), False, False),
    ):
        if kind is not Int64 or in_64:
            assert (kind(value) in INT32, kind(value) in INT64) == (in_32, in_64), value


@each_of("value", [float("nan"), float("inf"), -float("inf"), decimal.Decimal("Infinity")], ids=str)
def test_no_number_that_is_not_finite_is_among_them(value: Any) -> None:
    assert (value in INT32, value in INT64) == (False, False)


def test_a_long_code_of_an_error_is_looked_up_at_once() -> None:
    assert classify(OperationFailure("x", Int64(12_999_999))) is Outcome.REFUSED
    assert classify(OperationFailure("x", Int64(2**62))) is Outcome.UNKNOWN


def test_no_module_keeps_a_range_that_takes_long_to_look_through() -> None:
    long = []
    for module in pkgutil.walk_packages(shadow.__path__, "shadow."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            held = value if isinstance(value, list | tuple) else (value,)
            long += [
                f"{module.name}.{name}"
                for each in held
                if isinstance(each, range) and each[-1:] and each[-1] - each[0] > LONGEST
            ]
    assert long == []
