"""What the components of one event loop share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shadow.compare.diff import Hasher
from shadow.compare.rules import Excuses
from shadow.host.failpoints import Failpoints
from shadow.journal.base import Journal
from shadow.model.events import Reporter
from shadow.model.limits import Limits
from shadow.model.phase import StoreName
from shadow.model.schema import ExpirySpec
from shadow.routes.routes import Routes
from shadow.stores.base import Store
from shadow.stores.breaker import Breaker
from shadow.traces.spans import NO_TRACES, Traces
from shadow.writes.intents import Intents
from shadow.writes.work_queue import WorkQueue

__all__ = ["LoopContext"]


@dataclass(frozen=True)
class LoopContext:
    """Built once for each event loop, and passed whole to replicator, shadow reader, percent reads and router."""

    stores: Mapping[StoreName, Store]
    breakers: Mapping[StoreName, Breaker]
    """Of each store as the secondary."""
    writes: WorkQueue
    """Takes the writes that are to be replicated; knows which documents have a write under way."""
    reads: WorkQueue
    """Takes the comparisons of shadow reads."""
    intents: Intents
    journal: Journal
    routes: Routes
    limits: Limits
    reporter: Reporter
    hasher: Hasher
    excuses: Excuses
    failpoints: Failpoints
    expiry: Callable[[str], ExpirySpec | None] = lambda collection: None
    """By which rule the documents of a collection expire."""
    traces: Traces = NO_TRACES
