"""An application plays its features over a database and notes each answer, so that two plays can be compared.

A feature is a function of the database that notes what each call has answered. What differs from play to play by
nature (ids that a driver draws, times of day) is noted by its type and by the order in which it was met first.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from bson import DBRef, ObjectId
from pydantic import BaseModel
from pymongo.errors import PyMongoError

__all__ = ["Answers", "Feature", "Note", "first_difference", "play"]

Answers = list[tuple[str, Any]]
"""What was called, and what it answered."""
Features = dict[str, "Feature"]

_SECONDS: Final = 60
_FIXED: Final = dt.datetime(2025, 1, 1)
"""Times after it are of the clock; all times of the applications' own are before."""


class Note:
    """Called with what was called and what it answered; `refused` awaits what should raise."""

    def __init__(self) -> None:
        self.answers: Answers = []
        self._ids: dict[Any, str] = {}

    def __call__(self, what: str, answer: Any) -> None:
        self.answers.append((what, self._plain(answer)))

    async def refused(self, what: str, call: Awaitable[Any]) -> None:
        """Notes the error by its class, and by its code if it is the server's."""
        try:
            answer = await call
        except Exception as error:
            code = getattr(error, "code", None) if isinstance(error, PyMongoError) else None
            self.answers.append((what, ("raised", _class_of(error), code)))
        else:
            self(what, answer)

    def _plain(self, value: Any) -> Any:
        match value:
            case ObjectId():
                return self._ids.setdefault(value, f"{type(value).__name__} {len(self._ids)}")
            case DBRef():
                return ("DBRef", value.collection, self._plain(value.id), value.database)
            case BaseModel():
                return (type(value).__name__, self._plain(dict(value)))
            case dt.datetime() if value.replace(tzinfo=None) > _FIXED:
                return ("a time of the clock", value.tzinfo is not None)
            case Mapping():
                return [(str(key), self._plain(each)) for key, each in value.items() if key != "revision_id"]
            case set() | frozenset():
                return (type(value).__name__, sorted(map(repr, map(self._plain, value))))
            case list() | tuple():
                return [self._plain(each) for each in value]
            case enum.Enum() | None | bool() | int() | float() | str() | bytes():
                return (type(value).__name__, value)
        if dataclasses.is_dataclass(value):
            return (type(value).__name__, repr(value))
        if hasattr(value, "ref"):
            return (type(value).__name__, self._plain(value.ref))
        return (type(value).__name__, str(value))


Feature = Callable[[Any, Note], Awaitable[None]]


def _class_of(error: Exception) -> str:
    """An error of the library is also one of the driver's, which is what an application catches."""
    own = [each for each in type(error).__mro__ if not each.__module__.startswith("shadow.")]
    return own[0].__name__


async def play(features: Mapping[str, Feature], database: Any) -> dict[str, Answers]:
    """The answers of each feature. One that raises, or takes more than a minute, ends with a note of that."""
    answers = {}
    for name, feature in features.items():
        note = Note()
        try:
            async with asyncio.timeout(_SECONDS):
                await feature(database, note)
        except Exception as error:
            note.answers.append(("it ended", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))
        answers[name] = note.answers
    return answers


def first_difference(wanted: Answers, answered: Answers) -> str:
    """The first call that two plays of a feature have answered otherwise; "" if there is none."""
    for one, other in zip(wanted, answered, strict=False):
        if one != other:
            return f"{one[0]}: {one[1]!r}, and here {other!r}"[:1000]
    return "" if len(wanted) == len(answered) else f"{len(wanted)} answers, and here {len(answered)}"
