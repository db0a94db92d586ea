"""Log events: constant names, structured fields, and no document content.

Nothing here configures structlog or logging for the process: that is up to the application. An application that has
configured structlog gets the events through its own chain; otherwise each event is one JSON line on the standard
library's logger `shadow`.
"""

from __future__ import annotations

import enum
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import structlog

__all__ = ["LOGGER_NAME", "TEXT_FIELDS", "Event", "LogThrottle", "error_fields", "get_logger", "safe_fields", "scrub"]

LOGGER_NAME: Final = "shadow"


class Event(enum.StrEnum):
    """The names of all events. They are part of the public interface: dashboards and alerts depend on them."""

    MISMATCH_CONFIRMED = "mismatch.confirmed"
    WRITE_DEFERRED = "write.deferred"
    HEAL_FAILED = "heal.failed"
    JOURNAL_UNCLEAN = "journal.unclean"
    JOURNAL_DAMAGED = "journal.damaged"
    JOURNAL_FAILING = "journal.failing"
    JOURNAL_WORKING = "journal.working"
    CONFIG_RELOADED = "config.reloaded"
    CONFIG_REJECTED = "config.rejected"
    ROUTE_CHANGED = "route.changed"
    SECONDARY_DOWN = "secondary.down"
    SECONDARY_UP = "secondary.up"
    CLIENT_STUCK = "client.stuck"
    FLIP_PENDING = "flip.pending"
    FLIP_STARTED = "flip.started"
    FLIP_DONE = "flip.done"
    FLIP_REFUSED = "flip.refused"
    FLIP_REHEARSED = "flip.rehearsed"
    FLIP_BEHIND = "flip.behind"
    RAMP_STEPPED = "ramp.stepped"
    RAMP_ORDERED = "ramp.ordered"
    RAMP_STEPPED_BACK = "ramp.stepped_back"
    WATCH_OPENED = "watch.opened"
    WATCH_BROKEN = "watch.broken"
    WATCH_ENDED = "watch.ended"
    FLIP_TAKEN_BACK = "flip.taken_back"
    FLIP_NOT_TAKEN_BACK = "flip.not_taken_back"
    HOOK_DELIVERED = "hook.delivered"
    HOOK_FAILED = "hook.failed"
    HOOK_DROPPED = "hook.dropped"
    HOOK_VETOED = "hook.vetoed"
    DUAL_WRITES_INTERRUPTED = "dual_writes.interrupted"
    CONTROL_LOST = "control.lost"
    CONTROL_FOUND = "control.found"
    CONTROL_ELSEWHERE = "control.elsewhere"
    READS_IDLE = "reads.idle"
    COLLECTION_UNCONFIGURED = "collection.unconfigured"
    COLLECTION_REFUSED = "collection.refused"
    COLLECTION_EXPIRING = "collection.expiring"
    INDEX_UNDECLARED = "index.undeclared"
    INDEX_LOST = "index.lost"
    TABLE_SWEPT = "table.swept"
    TABLE_LACKING = "table.lacking"
    INTERNAL_FAILED = "internal.failed"
    BACKGROUND_FAILED = "background.failed"
    BACKGROUND_WORKING = "background.working"
    WRITER_BYPASSING = "writer.bypassing"
    WRITER_RELAYED = "writer.relayed"
    RELAY_LOST = "relay.lost"
    RELAY_UNREAD = "relay.unread"
    OPERATION_NOT_PORTABLE = "operation.not_portable"
    OPERATION_REFUSED = "operation.refused"
    WRITES_RAISED = "writes.raised"
    LINES_HELD = "log.held_back"
    RIGHTS_LACKING = "rights.lacking"
    RIGHTS_LACKING_FOR_JOBS = "rights.lacking_for_jobs"
    ADMIN_HEALED = "admin.healed"
    ADMIN_REVEALED = "admin.revealed"
    ADMIN_FLIPPED = "admin.flipped"
    ADMIN_REFUSED = "admin.refused"


WARNINGS: Final = frozenset(
    {
        Event.MISMATCH_CONFIRMED,
        Event.WRITE_DEFERRED,
        Event.HEAL_FAILED,
        Event.JOURNAL_UNCLEAN,
        Event.JOURNAL_DAMAGED,
        Event.JOURNAL_FAILING,
        Event.CONFIG_REJECTED,
        Event.SECONDARY_DOWN,
        Event.CLIENT_STUCK,
        Event.FLIP_PENDING,
        Event.FLIP_REFUSED,
        Event.FLIP_BEHIND,
        Event.RAMP_STEPPED_BACK,
        Event.WATCH_BROKEN,
        Event.FLIP_TAKEN_BACK,
        Event.HOOK_FAILED,
        Event.HOOK_DROPPED,
        Event.HOOK_VETOED,
        Event.DUAL_WRITES_INTERRUPTED,
        Event.CONTROL_LOST,
        Event.CONTROL_ELSEWHERE,
        Event.READS_IDLE,
        Event.COLLECTION_UNCONFIGURED,
        Event.COLLECTION_REFUSED,
        Event.COLLECTION_EXPIRING,
        Event.INTERNAL_FAILED,
        Event.BACKGROUND_FAILED,
        Event.INDEX_UNDECLARED,
        Event.INDEX_LOST,
        Event.TABLE_LACKING,
        Event.WRITER_BYPASSING,
        Event.RELAY_LOST,
        Event.RELAY_UNREAD,
        Event.OPERATION_NOT_PORTABLE,
        Event.OPERATION_REFUSED,
        Event.WRITES_RAISED,
        Event.LINES_HELD,
        Event.RIGHTS_LACKING_FOR_JOBS,
        Event.ADMIN_REVEALED,
        Event.ADMIN_REFUSED,
    }
)
"""The events that are logged as warnings; events in neither set are information."""

ERRORS: Final = frozenset({Event.RIGHTS_LACKING, Event.FLIP_NOT_TAKEN_BACK})
"""The events that are logged as errors."""

UNBOUNDED: Final = frozenset({Event.ADMIN_REVEALED, Event.LINES_HELD, Event.RIGHTS_LACKING_FOR_JOBS})
"""Warnings of which every line is written: operators' actions are recorded completely, and they are few."""

TEXT_FIELDS: Final = frozenset(
    {
        "address",
        "advice",
        "collection",
        "detail",
        "driver",
        "epoch",
        "error",
        "index",
        "finding",
        "from_phase",
        "from_primary",
        "hint",
        "hook",
        "on",
        "key_hash",
        "kind",
        "op_id",
        "outcome",
        "part",
        "path",
        "phase",
        "primary",
        "primary_state",
        "process",
        "reason",
        "result",
        "role",
        "secondary",
        "secondary_state",
        "shape",
        "since",
        "source",
        "state",
        "step",
        "store",
        "table",
        "to",
        "verb",
        "verdict",
        "version",
        "where",
        "who",
        "writes",
    }
)
"""The fields whose text is written unchanged. Text under any other name is replaced by its keyed hash."""

LONGEST: Final = 2000
"""The maximum number of characters of one field."""

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+@")


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The logger of shadow's events."""
    if structlog.is_configured():
        return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(LOGGER_NAME))
    logger = structlog.wrap_logger(
        logging.getLogger(LOGGER_NAME),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return cast("structlog.typing.FilteringBoundLogger", logger)


def scrub(text: str) -> str:
    """`text` without the credentials of any URL in it, truncated to `LONGEST` characters."""
    clean = _CREDENTIALS.sub("***@", text)
    return clean if len(clean) <= LONGEST else f"{clean[:LONGEST]}..."


def error_fields(error: BaseException) -> dict[str, Any]:
    """The loggable part of an error: its class, its code, where it was raised. Never its text, which in the drivers'
    errors quotes documents."""
    fields: dict[str, Any] = {"error": f"{type(error).__module__}.{type(error).__qualname__}"}
    code = getattr(error, "code", None)
    if isinstance(code, int):
        fields["code"] = code
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "?")
        fields["where"] = f"{module}:{trace.tb_lineno}"
    return fields


def safe_fields(fields: Mapping[str, Any], hash_value: Callable[[Any], str]) -> dict[str, Any]:
    """The loggable form of `fields`: plain numbers and flags, text under the names of `TEXT_FIELDS`, errors as their
    class, counts by name unchanged, and the keyed hash of everything else."""
    return {name: _safe(name, value, hash_value) for name, value in fields.items()}


def _safe(name: str, value: Any, hash_value: Callable[[Any], str]) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and name in TEXT_FIELDS:
        return scrub(value)
    if isinstance(value, BaseException):
        return error_fields(value)["error"]
    if isinstance(value, list | tuple) and name in TEXT_FIELDS:
        return [_safe(name, each, hash_value) for each in value]
    try:
        return f"#{hash_value(value)}"
    except Exception:  # no BSON value, so it has no hash
        return f"<{type(value).__name__}>"


class LogThrottle:
    """Lets one event through per name and `interval` (seconds), and counts the suppressed ones."""

    def __init__(self, interval: float = 10.0, *, limit: int = 1000, clock: Callable[[], float] = time.monotonic):
        self._interval = interval
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}

    def admit(self, *name: str) -> int | None:
        """How many were suppressed since the last one that was let through; None: suppress this one too."""
        now = self._clock()
        with self._lock:
            last, held = self._seen.get(name, (None, 0))
            if last is not None and now - last < self._interval:
                self._seen[name] = last, held + 1
                return None
            if len(self._seen) >= self._limit:
                self._seen.clear()
            self._seen[name] = now, 0
            return held
