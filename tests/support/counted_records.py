"""A control store that counts its calls, and fails on request."""

from __future__ import annotations

from collections import Counter
from typing import Any

from shadow.control.records import Records
from shadow.errors import ControlError

__all__ = ["CountedRecords"]


class CountedRecords:
    """Passes each call on, unless it is `down`."""

    def __init__(self, records: Records) -> None:
        self.records, self.calls, self.down = records, Counter[str](), False

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.calls[name] += 1
            if self.down:
                raise ControlError("down")
            return getattr(self.records, name)(*args, **options)

        return call
