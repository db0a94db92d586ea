"""Every error that shadow itself raises, as a tree.

    ShadowError
    ├── ConfigurationError        the settings are invalid; `faults` lists everything wrong
    ├── UnsupportedOperation      also a pymongo.errors.OperationFailure (code 115, CommandNotSupported)
    ├── SecondaryWriteError       `writes: strict` only: the primary has the write, the secondary does not
    ├── JournalError              the intent was not written, so the primary was not asked
    ├── ControlError              the control store could not be reached, or did not answer
    ├── WritesHeld                a flip paused writes for too long; nothing was written
    ├── NotFollowed               a repair in phase `off`, which writes one store only; nothing was written
    ├── UnreadableDocument        also a bson.errors.InvalidBSON: a stored document cannot be decoded
    ├── StoreUnavailable          a store could not be reached during preparation (tables, start, jobs)
    └── ShadowClosed              used after `close()`

Errors of the stores reach the application as PyMongo's exceptions (`DuplicateKeyError`, `OperationFailure`,
`AutoReconnect`, ...), whichever store is primary, so its `except` clauses keep working.
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
    """The base class. `hint` is the next step for an operator."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n  hint: {hint}" if hint else message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in the settings: the dotted field, the value found (secrets hidden), and the value expected."""

    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value} - {self.expected}"


class ConfigurationError(ShadowError):
    """The settings are invalid. `faults` lists everything that is wrong."""

    def __init__(self, source: str, faults: Sequence[Fault], *, hint: str = "") -> None:
        self.source = source
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        count = len(self.faults)
        super().__init__(f"{source}: {count} fault{'s' if count != 1 else ''}\n{lines}", hint=hint)


class UnsupportedOperation(ShadowError, OperationFailure):
    """The operation has no exact equivalent on both stores. Raised before either store is asked. `name` is the
    operation.

    It is also an `OperationFailure` with code 115 (CommandNotSupported, MongoDB's error_codes.yml), so code written
    for Motor handles it like a refusal by the server.
    """

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        self.name = name
        self.reason = reason
        message = f"{name} is not supported: {reason}"
        ShadowError.__init__(self, message, hint=hint)
        OperationFailure.__init__(self, str(self), 115, {"ok": 0.0, "code": 115, "codeName": "CommandNotSupported"})

    def fresh(self) -> UnsupportedOperation:
        """The same refusal once more: a raised exception keeps the traceback of its call."""
        return UnsupportedOperation(self.name, self.reason, hint=self.hint)

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class SecondaryWriteError(ShadowError):
    """`writes: strict`: the primary has the write and the secondary does not, yet. The intent stays in the journal."""


class JournalError(ShadowError):
    """The intent could not be written, so the primary was not asked and nothing changed."""


class ControlError(ShadowError):
    """The control store could not be reached or did not answer. A write to it may still have been made."""


class WritesHeld(ShadowError):
    """A flip paused the writes of the collection and did not end in time. Neither store was asked."""


class NotFollowed(ShadowError):
    """The collection is in phase `off` in this process, so nothing can be copied or repaired. Versions are reused while
    only one store is written, so a copy could not be ordered against later writes."""

    def __init__(self, collection: str) -> None:
        super().__init__(
            f"{collection}: phase off writes one store only, so nothing is copied to the other",
            hint="set its phase to dual_write in every process first, then run a backfill",
        )


class UnreadableDocument(ShadowError, InvalidBSON):
    """A stored document cannot be decoded, so it is not returned, copied or changed. `reason` says why, without any of
    its content. The base class is what the drivers raise for invalid BSON."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"a stored document cannot be read: {reason}",
            hint="`shadow verify` names it by its key; correct or delete it in the store that holds it",
        )


class StoreUnavailable(ShadowError):
    """A store could not be reached during preparation. Application calls raise PyMongo's own errors instead."""


class ShadowClosed(ShadowError):
    """The Shadow object was used after `close()`."""


class NotCaughtUp(Exception):
    """Writes could not be paused, or the secondary could not catch up. The text says why."""
