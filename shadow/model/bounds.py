"""What both stores can hold: the primary refuses a write whose outcome the secondary would refuse.

An insert can be checked before any store is asked. The outcome of an update is known to a store that computes it
(DynamoDB) before writing: with dual writes, `held_to` tells it what else the outcome must fit into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from shadow.model.operation import Change
from shadow.model.version import Document

__all__ = ["Refusal", "check_outcome", "held_to"]

Refusal: TypeAlias = Callable[[Change, bool, Document], Exception | None]
"""Called with a change, whether it changes an existing document, and the document after it. Returns the error with
which another store would refuse the outcome, or None."""

_refusal: ContextVar[Refusal | None] = ContextVar("shadow_refusal", default=None)


@contextmanager
def held_to(refusal: Refusal | None) -> Iterator[None]:
    """Makes `check_outcome` call `refusal` within the block. None accepts everything."""
    token = _refusal.set(refusal)
    try:
        yield
    finally:
        _refusal.reset(token)


def check_outcome(change: Change, document: Document | None, *, existed: bool) -> None:
    """Raises the error with which the other store would refuse the outcome. Call it before anything is written."""
    refusal = _refusal.get()
    if refusal is None or document is None:
        return
    error = refusal(change, existed, document)
    if error is not None:
        raise error
