"""One record that several processes change: loaded, changed and saved at its revision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from shadow.control.records import Records

__all__ = ["Revised", "SharedRecord"]

_TRIES: Final = 100


class Revised(Protocol):
    """A frozen dataclass with the revision of the record that it was read from, or `MISSING`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def revision(self) -> str: ...


T = TypeVar("T", bound=Revised)


@dataclass(frozen=True)
class SharedRecord(Generic[T]):
    """The record at `key`. `empty` makes the content of a record that does not exist; `encoded` makes what the control
    store holds of a content, `decoded` the content of that and a revision."""

    key: str
    empty: Callable[[], T]
    encoded: Callable[[T], Mapping[str, Any]]
    decoded: Callable[[Mapping[str, Any], str], T]

    def load(self, records: Records) -> T:
        """Does I/O; raises `ControlError`."""
        found = records.get(self.key)
        return self.empty() if found is None else self.decoded(found.value, found.revision)

    def save(self, records: Records, wanted: T) -> T | None:
        """Writes it if it is still at its revision; None if it is not. Does I/O; raises `ControlError`."""
        revision = records.put(self.key, self.encoded(wanted), expected=wanted.revision)
        return None if revision is None else dataclasses.replace(wanted, revision=revision)

    def change(self, records: Records, make: Callable[[T], T | None]) -> T:
        """Loads, changes and saves, until no other change came between; `make` returns None where there is nothing to
        change. Does I/O; raises `ControlError`."""
        for _ in range(_TRIES):
            seen = self.load(records)
            wanted = make(seen)
            if wanted is None:
                return seen
            saved = self.save(records, wanted)
            if saved is not None:
                return saved
        raise AssertionError(f"the record {self.key} changes all the time")
