"""What a DynamoDB store needs besides its settings and its client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from shadow.stores.calls import ClientHooks

__all__ = ["DEFAULTS", "DynamoContext", "OnCapacity", "OnLacking", "OnScan"]

OnCapacity: TypeAlias = Callable[[str, str, str, float], None]
"""Called as (table, index or "", verb, capacity units) for each response that reports its consumption."""
OnScan: TypeAlias = Callable[[str, int, int, int], None]
"""Called as (table, scans begun, items read, items returned) for each scan and each of its responses."""
OnLacking: TypeAlias = Callable[[str, str], None]
"""Called as (table, text) for a wanted option that the server does not support, or a missing right."""


def _no_capacity(table: str, index: str, verb: str, units: float) -> None: ...


def _no_scan(table: str, scans: int, read: int, returned: int) -> None: ...


def _no_lacking(table: str, text: str) -> None: ...


def _no_throttling() -> None: ...


@dataclass(frozen=True)
class DynamoContext(ClientHooks):
    """None of the callables may raise."""

    database: str = "shadow"
    """Appears in error texts, like the name of MongoDB's database."""
    operation_limit: float = 30.0
    """Seconds that an operation may last; a write that keeps losing races gives up after half of it."""
    on_capacity: OnCapacity = _no_capacity
    on_scan: OnScan = _no_scan
    on_lacking: OnLacking = _no_lacking
    on_throttled: Callable[[], None] = _no_throttling
    """Called for every throttled request of a client that was created here, including retries."""


DEFAULTS: Final = DynamoContext()
