"""One table of what each error says about a write, and nothing that the driver may raise is missing from it."""

from __future__ import annotations

import inspect
from typing import Any

import bson.errors
import pymongo.errors
import pytest
from pymongo import errors as pm

from shadow.errors import JournalError, UnsupportedOperation
from shadow.model.outcome import CLASSES, REFUSED_CODES, Outcome, classify, is_denied, marked
from tests.support.cases import each_of


def classes(module: Any) -> list[type[BaseException]]:
    found = [each for each in vars(module).values() if inspect.isclass(each) and issubclass(each, BaseException)]
    return [each for each in found if each.__module__ == module.__name__]


PUBLIC = [each for each in (*classes(pymongo.errors), *classes(bson.errors)) if not each.__name__.startswith("_")]


def made(kind: type[BaseException], code: int | None = None) -> BaseException:
    """Without a look at what its maker wants; the base's makes what all have."""
    if issubclass(kind, pm.BulkWriteError):
        return kind({"writeErrors": [], "writeConcernErrors": []})
    if issubclass(kind, pm.ClientBulkWriteException):
        return kind({}, True)
    if issubclass(kind, pm.OperationFailure) and not issubclass(kind, UnsupportedOperation):
        return kind("x", code)
    error = kind.__new__(kind)
    error.args = ("x",)
    return error


@each_of("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_class_of_the_driver_has_a_row(kind: type[BaseException]) -> None:
    """Fails when PyMongo gains one: somebody has to say what it says about a write."""
    assert kind in CLASSES


REFUSING = {
    "DuplicateKeyError",
    "CollectionInvalid",
    "DocumentTooLarge",
    "InvalidDocument",
    "InvalidId",
    "InvalidName",
    "InvalidStringData",
}


@each_of("kind", [*PUBLIC, pm._OperationCancelled], ids=lambda kind: kind.__name__)
def test_a_class_without_a_code_is_refused_only_if_nothing_can_have_been_done(kind: type[BaseException]) -> None:
    """Whatever a second attempt of the driver's may raise too is unknown."""
    expected = Outcome.REFUSED if kind.__name__ in REFUSING else Outcome.UNKNOWN
    assert classify(made(kind)) is expected


@pytest.mark.parametrize("kind", [pm.OperationFailure, pm.WriteError])
def test_a_code_that_refuses_the_statement(kind: type[pm.OperationFailure]) -> None:
    """For the class of a command's error and that of a write's."""
    assert len(REFUSED_CODES) > 50
    assert [code for code in sorted(REFUSED_CODES) if classify(kind("x", code)) is not Outcome.REFUSED] == []


UNKNOWN_CODES = [
    *(6, 7, 11, 18, 24, 43, 50, 63, 64, 65, 75, 79, 82, 89, 91, 95, 96, 100, 125, 133, 134, 136, 149, 150, 175, 189),
    *(202, 203, 225, 237, 244, 246, 250, 251, 262, 263, 267, 279, 290, 314, 317, 358, 384, 391, 402, 462),
    *(8000, 9001, 10003, 10058, 10107, 11600, 11601, 11602, 12586, 13388, 13435, 13436, 14031, 46841),
    *(0, -1, 1, 3, 8, 999, 4242, 99_999, 123_456, 999_999, 99_999_999, None, "11000"),
]


@pytest.mark.parametrize("kind", [pm.OperationFailure, pm.WriteError, pm.WriteConcernError, pm.WTimeoutError])
def test_any_other_code_is_unknown(kind: type[pm.OperationFailure]) -> None:
    """Of the network, of a change of primary, of write concerns and time limits, and whatever nobody has heard of."""
    assert [code for code in UNKNOWN_CODES if classify(kind("x", code)) is not Outcome.UNKNOWN] == []


@each_of("kind", [pm.WriteConcernError, pm.WTimeoutError, pm.ExecutionTimeout, pm.CursorNotFound])
@each_of("code", [2, 11000, 121])
def test_a_class_that_knows_better_than_its_code(code: int, kind: type[pm.OperationFailure]) -> None:
    """A write concern error is one, whatever the number in it."""
    assert classify(kind("x", code)) is Outcome.UNKNOWN


def test_what_the_server_would_have_tried_again_is_unknown() -> None:
    """Its label says so, with any code."""
    error = pm.OperationFailure("x", 2, {"errorLabels": ["RetryableWriteError"]})
    assert classify(error) is Outcome.UNKNOWN


@each_of(
    ("details", "outcome"),
    [
        ({"writeErrors": [], "writeConcernErrors": []}, Outcome.UNKNOWN),
        ({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}, Outcome.UNKNOWN),
        ({"writeErrors": [], "writeConcernErrors": [{"code": 91}], "nInserted": 3}, Outcome.UNKNOWN),
        ({"writeErrors": [{"code": 11000}], "writeConcernErrors": [{"code": 11600}]}, Outcome.UNKNOWN),
        ({"writeErrors": [{"code": 11000}], "writeConcernErrors": [], "nInserted": 1}, Outcome.UNKNOWN),
        ({"writeErrors": [{"code": 11000}, {"code": 91}], "writeConcernErrors": []}, Outcome.UNKNOWN),
        ({"writeErrors": [{"code": 11000}, {"code": 121}], "writeConcernErrors": []}, Outcome.REFUSED),
        ({}, Outcome.UNKNOWN),
    ],
)
def test_an_error_of_many_writes_is_refused_only_if_all_of_them_are(details: Any, outcome: Outcome) -> None:
    """Its own code, 65, says nothing."""
    assert classify(pm.BulkWriteError(details)) is outcome


@each_of(
    ("error", "outcome"),
    [
        (UnsupportedOperation("x", "y"), Outcome.REFUSED),
        (JournalError("x"), Outcome.REFUSED),
        (TypeError("x"), Outcome.REFUSED),
        (OverflowError("x"), Outcome.REFUSED),
        (ValueError("x"), Outcome.REFUSED),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x"), Outcome.REFUSED),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), Outcome.UNKNOWN),
        (RuntimeError("x"), Outcome.UNKNOWN),
        (AssertionError("x"), Outcome.UNKNOWN),
        (OSError("x"), Outcome.UNKNOWN),
        (TimeoutError("x"), Outcome.UNKNOWN),
        (Exception("x"), Outcome.UNKNOWN),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_is_not_the_drivers(error: Exception, outcome: Outcome) -> None:
    """Values that cannot be sent are refused; everything else is unknown."""
    assert classify(error) is outcome


def test_a_class_that_a_newer_driver_has_is_unknown_whatever_it_is_made_of() -> None:
    """No row for a base of it speaks for it."""
    newer = type("NewerError", (pm.DuplicateKeyError,), {"__module__": "pymongo.errors"})
    assert classify(newer("x", 11000)) is Outcome.UNKNOWN


def test_a_class_of_the_applications_own_counts_as_the_drivers_that_it_is_made_of() -> None:
    """A subclass from anywhere else."""
    assert classify(type("Own", (pm.DuplicateKeyError,), {})("x", 11000)) is Outcome.REFUSED


def test_whoever_raises_it_may_know_better() -> None:
    """A mark goes before the table, in both directions."""
    assert classify(marked(pm.DuplicateKeyError("x", 11000), Outcome.UNKNOWN)) is Outcome.UNKNOWN
    assert classify(marked(pm.OperationFailure("x", 18), Outcome.REFUSED)) is Outcome.REFUSED


def test_what_the_store_lacks_is_told_from_what_the_statement_deserves() -> None:
    lacking = [pm.OperationFailure("x", code) for code in (13, 26, 59, 115, 224, 238)]
    for error in (*lacking, UnsupportedOperation("$where", "x")):
        assert is_denied(error), error
    codes = (2, 9, 14, 66, 112, 121, 11000, 262, 18)
    others = [pm.DuplicateKeyError("x", 11000), *(pm.OperationFailure("x", code) for code in codes)]
    for error in (*others, pm.AutoReconnect("x"), JournalError("x"), ValueError("x")):
        assert not is_denied(error), error
    assert not is_denied(marked(pm.OperationFailure("x", 26), Outcome.UNKNOWN)), "it may have been done"
