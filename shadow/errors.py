"""Every error that shadow raises on its own account, and the tree they hang in.

    ShadowError
    ├── ConfigurationError        the settings cannot be used; carries one fault per message
    ├── UnsupportedOperation      also a pymongo.errors.OperationFailure (code 115, CommandNotSupported)
    ├── SecondaryWriteError       `writes: strict` only: the primary has the write, the secondary has not
    ├── JournalError              the intent could not be made durable, so the primary was not asked
    ├── ControlError              the control store could not be asked, or did not answer
    ├── WritesHeld                a flip holds the writes of the collection for too long; nothing was written
    ├── NotFollowed               a heal of a collection that is written to one store alone; nothing was written
    ├── UnreadableDocument        also a bson.errors.InvalidBSON: a stored document cannot be read whole
    ├── StoreUnavailable          a store could not be reached while preparing (tables, start-up, jobs)
    └── ShadowClosed              used after `close()`

What the stores themselves have to say to an application is said in PyMongo's exceptions (`DuplicateKeyError`,
`OperationFailure`, `AutoReconnect`, ...), whichever store is primary: an application keeps its `except` clauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bson.errors import InvalidBSON
from pymongo.errors import OperationFailure

__all__ = [
    "ConfigurationError",
    "ControlError",
    "Fault",
    "JournalError",
    "NotFollowed",
    "SecondaryWriteError",
    "ShadowClosed",
    "ShadowError",
    "StoreUnavailable",
    "UnreadableDocument",
    "UnsupportedOperation",
    "WritesHeld",
]


class ShadowError(Exception):
    """The root. `hint` says what to do next, in words an operator can follow."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n  hint: {hint}" if hint else message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the settings: the dotted field, the value found (secrets hidden), what would be right."""

    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value} - {self.expected}"


class ConfigurationError(ShadowError):
    """The settings cannot be used. `faults` has one entry for each thing that is wrong, all of them at once."""

    def __init__(self, source: str, faults: Sequence[Fault], *, hint: str = "") -> None:
        self.source = source
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        count = len(self.faults)
        super().__init__(f"{source}: {count} fault{'s' if count != 1 else ''}\n{lines}", hint=hint)


class UnsupportedOperation(ShadowError, OperationFailure):
    """The operation has no exact meaning on both stores. Raised before either is touched; `name` is what was refused.

    It is also an `OperationFailure` with code 115 (CommandNotSupported, MongoDB's error_codes.yml), so that code
    written against Motor treats it as it treats a server that refuses.
    """

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        self.name = name
        message = f"{name} is not supported: {reason}"
        ShadowError.__init__(self, message, hint=hint)
        OperationFailure.__init__(self, str(self), 115, {"ok": 0.0, "code": 115, "codeName": "CommandNotSupported"})

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class SecondaryWriteError(ShadowError):
    """`writes: strict`: the primary has the write and the secondary has not (yet). The intent stays in the journal."""


class JournalError(ShadowError):
    """The intent could not be written, so the primary was not asked and nothing has changed."""


class ControlError(ShadowError):
    """The control store could not be asked, or has no answer: what was to be written there may have been written."""


class WritesHeld(ShadowError):
    """A flip holds the writes of the collection, and it was not decided in time. Neither store was asked."""


class NotFollowed(ShadowError):
    """Nothing is copied or healed in a collection of which this process writes one store alone: versions come again in
    such a time, so that a copy could not be told from what is written after it."""

    def __init__(self, collection: str) -> None:
        super().__init__(
            f"{collection}: phase off writes to one store alone, so nothing is copied to the other one",
            hint="set its phase to dual_write in every process first; a backfill then brings everything over",
        )


class UnreadableDocument(ShadowError, InvalidBSON):
    """A stored document cannot be read whole, so it is neither given out, nor copied, nor changed. `reason` says why,
    without anything of it. It is also what the drivers raise for BSON that they cannot decode."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"a stored document cannot be read: {reason}",
            hint="`shadow verify` names it by its key; mend or delete it in the store that holds it",
        )


class StoreUnavailable(ShadowError):
    """A store could not be reached while preparing. Application calls raise PyMongo's own errors instead."""


class ShadowClosed(ShadowError):
    """The Shadow object was used after `close()`."""


class NotCaughtUp(Exception):
    """The writes could not be held, or the secondary not be brought level; the text says why."""
