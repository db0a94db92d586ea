"""What a store of DynamoDB needs beside its settings and its client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from shadow.stores.calls import ClientHooks

__all__ = ["DEFAULTS", "DynamoContext", "OnCapacity", "OnLacking", "OnScan"]

OnCapacity: TypeAlias = Callable[[str, str, str, float], None]
"""Called as (table, index or "", verb, capacity units) for each answer that says what it consumed."""
OnScan: TypeAlias = Callable[[str, int, int, int], None]
"""Called as (table, scans begun, items read, items returned) for each scan and each of its answers."""
OnLacking: TypeAlias = Callable[[str, str], None]
"""Called as (table, text) for what was wanted of a table that the server does not have, or a right that lacked."""


def _no_capacity(table: str, index: str, verb: str, units: float) -> None: ...


def _no_scan(table: str, scans: int, read: int, returned: int) -> None: ...


def _no_lacking(table: str, text: str) -> None: ...


def _no_throttling() -> None: ...


@dataclass(frozen=True)
class DynamoContext(ClientHooks):
    """None of the callables may raise."""

    database: str = "shadow"
    """Stands in the texts of errors, as MongoDB's database does."""
    operation_limit: float = 30.0
    """Seconds that an operation may last; a write that goes on losing gives up after half."""
    on_capacity: OnCapacity = _no_capacity
    on_scan: OnScan = _no_scan
    on_lacking: OnLacking = _no_lacking
    on_throttled: Callable[[], None] = _no_throttling
    """Called for every request that a client made here saw throttled, repeated ones too."""


DEFAULTS: Final = DynamoContext()
