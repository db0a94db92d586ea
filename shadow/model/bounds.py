"""What both stores can hold: the primary holds the outcome of a write to what the secondary would refuse.

An insert is known before any store is asked. What an update comes to is known to a store that computes it (DynamoDB)
before it writes it: while writes go to both stores, `held_to` tells it what else the outcome has to fit into.
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
"""Given a change, whether it changes a document that is there, and the document after it: the error with which another
store would refuse it, or None."""

_refusal: ContextVar[Refusal | None] = ContextVar("shadow_refusal", default=None)


@contextmanager
def held_to(refusal: Refusal | None) -> Iterator[None]:
    """Within the block, `check_outcome` asks `refusal`; None: it lets everything pass."""
    token = _refusal.set(refusal)
    try:
        yield
    finally:
        _refusal.reset(token)


def check_outcome(change: Change, document: Document | None, *, existed: bool) -> None:
    """Raises what the other store would refuse the outcome with. To be called before anything is written."""
    refusal = _refusal.get()
    if refusal is None or document is None:
        return
    error = refusal(change, existed, document)
    if error is not None:
        raise error
