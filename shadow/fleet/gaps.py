"""Writes that the other processes cannot see: made without a journal, without a registered process, or to only one
store. Previous verifications are void after them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final

from shadow.control.vouching import Vouching, VouchingContext
from shadow.errors import ControlError, JournalError
from shadow.fleet.context import FleetContext
from shadow.fleet.running_site import RunningSite
from shadow.host.process import this_process
from shadow.host.steady import steady
from shadow.model.events import ComponentFailed, noted
from shadow.model.phase import Route
from shadow.observe.log import Event

__all__ = ["Gaps"]

_VOUCHED: Final = 30.0
"""Seconds between two checks whether journal and stores are unchanged."""
_BY: Final = "by"


class Gaps(RunningSite):
    def __init__(self, context: FleetContext, wanted: Mapping[str, Route]) -> None:
        super().__init__(context, wanted)
        place, own, limits = context.records.place, this_process(), context.parts.limits
        host = own.place.partition("/")[0]
        self._control = place if "://" in place else f"{host}:{place}"
        self._vouching = Vouching(
            VouchingContext(
                context.records,
                context.parts.journal,
                context.journal,
                self._stores,
                self.wants_both,
                self.participant.interrupt,
                # Within what `close` waits for.
                patience=min(limits.read_deadline, limits.drain / 4),
                by=f"{self._control} {_BY} {host} pid {own.pid}",
                on_stranger=self._stranger,
                on_fault=lambda error: context.parts.reporter.publish(ComponentFailed("control", error)),
            )
        )
        self._vouched = -math.inf
        self._looked = False
        self._strangers: dict[str, str] = {}
        self._gaps: set[str] = set()

    def _stranger(self, place: str, by: str) -> None:
        """Another process keeps its token there under another control store: neither can see the other's writes."""
        theirs, _, who = by.partition(f" {_BY} ")
        if theirs == self._control or self._strangers.get(place) == by:
            return
        self._strangers[place] = by
        detail = (
            f"{place}: {who or 'a process'} has the control store {theirs}, and this one {self._control}: "
            "all processes of an application must name the same (control.url, or journal.url)"
        )
        self._parts.reporter.publish(noted(Event.CONTROL_ELSEWHERE, detail=detail))

    def era(self, collection: str) -> str:
        """Names the period since both stores of a collection were written last, the same in all processes."""
        placed = self.participant.routing.placed.get(collection)
        return "one" if placed is None else f"one-{placed.dual}-{placed.broken:.6f}"

    async def _write_alone(self, name: str) -> bool:
        """Voids previous copies and verifications. False: that cannot be recorded, and dual writes continue."""
        try:
            await self.participant.write_alone([name])
        except BaseException as error:
            # Also if the event loop ends meanwhile: this process would be reported forever as one that writes alone.
            self.participant.writes_both_again([name])
            if not isinstance(error, ControlError):
                raise
            self._parts.reporter.publish(ComponentFailed("control", error))
            return False
        return True

    @property
    def vouched(self) -> bool:
        """Whether this process has checked journal and stores, and recorded whether they are unchanged."""
        return self._looked

    def has_entered(self) -> bool:
        """Whether a write that bypasses the routes needs no check now. Does no I/O."""
        routes = self._parts.routes
        return self._tool or (routes.known and routes.fresh)

    async def enter(self, names: Collection[str]) -> None:
        """Returns when this process is registered, and previous verifications are void for collections that others
        write to both stores. Called before the first write of an event loop, and of each pause, to collections that the
        configuration does not name.

        Where the control store cannot record it, MongoDB's database keeps a marker for each write to `names` until it
        can. Raises `ControlError` or `JournalError` where neither can record it, or `names` are not known.
        """
        if self.has_entered():
            return
        error: ControlError | JournalError | None = None
        try:
            await self._parts.routes.learnt(writing=True)
        except (ControlError, JournalError) as raised:
            error = raised
        if not (self._parts.routes.known and self.participant.joined):
            await self.unplaced(names, error)

    async def unplaced(self, names: Collection[str], error: ControlError | JournalError | None = None) -> None:
        """Called before a write of a process that is not registered. Raises `error`, or `ControlError`, where
        MongoDB cannot keep a marker of it."""
        if not names or not all([await self._vouching.spoil(name) for name in names]):
            raise error or ControlError(
                f"{', '.join(names)}: neither the control store nor MongoDB can record that it is written",
                hint="nothing was written; bring one of them back",
            )

    async def gap(self, name: str) -> None:
        """Called before a write without the journal: voids previous verifications. Where the control store cannot be
        written either, as on a full disk, MongoDB's database keeps a marker. Raises `JournalError` where neither can
        record it."""
        if name in self._gaps:
            return
        try:
            await self._say_gap(name)
        except BaseException:
            # Nothing is written without the journal then, and nothing else would revoke it.
            if name not in self._gaps:
                self.participant.writes_both_again([name])
            raise
        self._gaps.add(name)
        self.participant.stands_alone([name])

    async def _say_gap(self, name: str) -> None:
        try:
            await self.participant.write_alone([name])
        except ControlError as error:
            self._parts.reporter.publish(ComponentFailed("control", error))
            if not await self._vouching.spoil(name):
                raise JournalError(
                    f"{name}: neither the journal nor the control store can be written, nor MongoDB in their place",
                    hint="nothing was written; free some space on the disk, or bring one of them back",
                ) from error

    def journal_works(self, works: bool) -> None:
        """Called when the journal works again: writes made without it that were not acknowledged are in the journal
        by now, as unverified."""
        if works:
            self.participant.writes_both_again(self._gaps)
            self._gaps.clear()

    async def _vouch(self) -> None:
        """Checks all collections at intervals. Where none is written to both stores, there is nothing to verify."""
        both = list(self.wants_both())
        if steady() - self._vouched < _VOUCHED or self._tool or not both or not self.participant.joined:
            return
        self._vouched = steady()
        await self._vouching.tokens(self._wanted, fresh=True)
        silent = bool(self._vouching.silent)
        await self._vouching.identities(both)
        if silent:
            # Checked again with the next heartbeat.
            self._vouched = -math.inf
        else:
            self._looked = True
