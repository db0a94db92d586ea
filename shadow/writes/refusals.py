"""Documents that the secondary refuses to hold: when that is reported, and what to do about it, in words for whoever
has to do it."""

from __future__ import annotations

from typing import Final

from shadow.errors import UnreadableDocument
from shadow.journal.base import Due
from shadow.model.events import MismatchConfirmed, Reporter
from shadow.model.operation import Verb
from shadow.model.outcome import Outcome, classify, refusal_of
from shadow.model.verdict import ERROR_PATH, Difference, Kind, Mismatch
from shadow.writes.heal import HealContended

__all__ = ["advice", "report_refused"]

_REFUSALS: Final = 6
"""Times that the secondary has to refuse a copy of one document before that is a mismatch: a refusal because the write
of another key is still to come (a unique value that changes hands) is over by then."""

_AGAIN: Final = "it is tried again at its next write, and else once an hour"
_ADVICE: Final = {
    "121": "the validator of the collection on MongoDB refuses it, and the user may not pass by that: grant the action "
    "bypassDocumentValidation on the collection, or make the document valid in the primary",
    "11000": "two documents of the primary hold a value that the secondary must hold once: change one of them, or give "
    "both stores the same unique indexes",
    "15": "it is nested deeper than the secondary takes (MongoDB: 180 levels): make it flatter in the primary",
    "52": "a name in it begins with $, which the secondary does not take there: rename the field in the primary",
    "55": "a name in it is that of a reference ($ref, $id, $db) without being one: rename the field in the primary",
    "17419": "it is larger than the secondary takes (MongoDB: 16 MB with its version): make it smaller in the primary",
    "10334": "it is larger than the secondary takes (MongoDB: 16 MB with its version): make it smaller in the primary",
    "DocumentTooLarge": "it is larger than the secondary takes (16 MB): make it smaller in the primary",
}
_OTHERWISE: Final = "change the document in the primary to what both stores can hold, or delete it"


def advice(refused: str) -> str:
    """For the text of `Pending.refused`: the class of the error and, mostly, its code."""
    name, _, code = refused.partition(" ")
    return f"{_ADVICE.get(code) or _ADVICE.get(name) or _OTHERWISE}; {_AGAIN}"


def report_refused(reporter: Reporter, due: Due, error: Exception) -> None:
    """Reports, once for each deferral, that the secondary keeps refusing to hold what the primary holds; and that
    nobody can read what the primary holds, which no other write will fix."""
    if isinstance(error, UnreadableDocument):
        if due.attempts == 0:
            _report_copy(reporter, due, Kind.UNREADABLE, error)
        return
    if (
        due.attempts_after(refusal_of(error)) == _REFUSALS
        and classify(error) is Outcome.REFUSED
        and not isinstance(error, HealContended)
    ):
        _report_copy(reporter, due, Kind.ERROR_SECONDARY_ONLY, error)


def _report_copy(reporter: Reporter, due: Due, kind: Kind, error: Exception) -> None:
    name = type(error).__name__
    found = Difference(kind, ERROR_PATH, *((name, "missing") if kind is Kind.UNREADABLE else ("missing", name)))
    reporter.publish(MismatchConfirmed(Mismatch(due.collection, Verb.REPLACE_ONE, kind, due.key, (found,))))
