"""What to do about a document that the secondary refuses to hold, in words for whoever has to do it."""

from __future__ import annotations

from typing import Final

__all__ = ["advice"]

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
