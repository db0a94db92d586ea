"""The fleet of one Shadow, and what is shown of it.

In layers, each a module of its own: `RunningSite` answers the participant, `Gaps` records writes that the others cannot
see, `Wishes` makes the flips that the configuration files ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from shadow.control import flip_record as routing
from shadow.control import members
from shadow.errors import ControlError
from shadow.fleet.description import described
from shadow.fleet.gates import fleet_gates, more_gates
from shadow.fleet.health_gates import Gate
from shadow.fleet.wishes import Wishes
from shadow.model.health import CollectionHealth

__all__ = ["Fleet"]


class Fleet(Wishes):
    """One for each Shadow. For the arguments see `Wishes`."""

    def prepare(self) -> None:
        """Creates the storage of the control store. Blocks; raises `ControlError`."""
        self.records.prepare()

    def close(self) -> None:
        """Idempotent; the next use opens it again."""
        self.records.close()

    async def gates(self, own: Mapping[str, CollectionHealth]) -> list[Gate]:
        """Every gate of every configured collection, for a flip to its other store. `own`: this process's figures."""
        return await asyncio.to_thread(self._all_gates, own)

    def _all_gates(self, own: Mapping[str, CollectionHealth]) -> list[Gate]:
        seen, routes = self.participant.routing, self.routes()
        try:
            rows = members.prune(self.records, members.members(self.records))
            silent = members.journals(self.records) - {row.journal for row in rows}
        except ControlError as error:
            look = f"the control store does not respond: {error.message}"
            return [Gate(name, "processes", False, "not known", look) for name in routes]
        others = [row.figures for row in rows if not row.tool and row.id != self.participant.id]
        more = more_gates(self.records, seen.placed, routes)
        return [
            gate
            for name, route in routes.items()
            for gate in fleet_gates(name, rows, silent, seen.placed.get(name), route.secondary, more, [own, *others])
        ]

    def gauges(self) -> dict[str, Any]:
        """The gauges of the fleet, as last read. Does no I/O."""
        part = self.participant
        application = [row for row in part.seen_members if not row.tool]
        return {
            "control_up": part.reachable,
            "members": len(application),
            "disagreements": members.disagreements(application).keys(),
            "held": dict(part.held),
            "watched": self.guarding.watched(),
        }

    async def status(self) -> dict[str, Any]:
        """JSON-able. Shape: {"control": text, "members": [...], "disagreements": {...}, "routing": {...}, "flip": ...};
        where the control store does not answer: {"control": text, "state": text}."""
        try:
            rows = await asyncio.to_thread(lambda: members.members(self.records))
            seen = await asyncio.to_thread(lambda: routing.load(self.records))
            ramps = await asyncio.to_thread(self.guarding.described)
            windows = await asyncio.to_thread(self.guarding.windows, seen)
        except ControlError as error:
            return {"control": self.records.place, "state": error.message}
        return {
            "control": self.records.place,
            "state": "ok",
            "control_elsewhere": dict(self._strangers),
            **described(seen, rows),
            "ramps": ramps,
            "watches": windows,
        }
