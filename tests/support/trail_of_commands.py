"""What was said to MongoDB: every command that a client sent, to which member, and with which concerns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pymongo import monitoring

__all__ = ["READS", "WRITES", "Commands", "Said"]

WRITES: Final = frozenset({"insert", "update", "findAndModify", "delete"})
READS: Final = frozenset({"find", "aggregate", "count", "distinct"})


@dataclass(frozen=True, slots=True)
class Said:
    """One command. `member`: host and port of whom it was said to; `body`: all of it."""

    name: str
    collection: Any
    member: tuple[str, int | None]
    body: dict[str, Any]

    @property
    def read_concern(self) -> Any:
        return (self.body.get("readConcern") or {}).get("level")

    @property
    def write_concern(self) -> Any:
        return self.body.get("writeConcern")


class Commands(monitoring.CommandListener):
    """Hears of every command; `take` answers those since it was asked last."""

    def __init__(self) -> None:
        self._heard: list[Said] = []

    def take(self, names: frozenset[str] = READS | WRITES) -> list[Said]:
        heard, self._heard = self._heard, []
        return [each for each in heard if each.name in names]

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        body = dict(event.command)
        host, port = event.connection_id
        self._heard.append(Said(event.command_name, body.get(event.command_name), (host, port), body))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...
