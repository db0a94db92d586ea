"""Whether a write may go to both stores: asked before each, and answered from what is known of its collection.

A store examines a collection once in each event loop: before the first write, if it is the primary. The first writes
wait for the secondary's answer only briefly, for it must not hold up the application; after that it is asked again in
the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from pymongo.errors import NetworkTimeout

from shadow.model.limits import Limits
from shadow.model.phase import StoreName
from shadow.stores.base import Admitting, Judging, Store
from shadow.stores.within import within

__all__ = ["Admission", "OnUnfit"]

OnUnfit = Callable[[str, str, str], None]
"""Called with the collection, why it cannot be written to both stores, and what to do."""

_AGAIN: Final = 5.0
"""Seconds before a secondary that did not answer is asked again."""


class Admission:
    """One for each event loop. `on_unfit` is called for each collection when it is found to be refused."""

    def __init__(self, stores: Iterable[Store], limits: Limits, on_unfit: OnUnfit = lambda *said: None) -> None:
        held = list(stores)
        self._refusing: list[Admitting] = [each for each in held if isinstance(each, Admitting) and each.refuses]
        self._judging: list[Judging] = [each for each in held if isinstance(each, Judging)]
        self._limits = limits
        self._on_unfit = on_unfit
        self._told: set[tuple[str, str]] = set()
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        self._patient_until: dict[str, float] = {}
        """By collection: until when its first writes wait for the secondary's answer."""

    async def __call__(self, collection: str, primary: StoreName) -> None:
        """Returns if a write may go to both stores. Raises `UnsupportedOperation` if not, and what the primary's driver
        raises if the primary has to be asked and cannot be reached."""
        for store in self._refusing:
            await store.admit()
        for judge in self._judging:
            if collection not in judge.unfit:
                await self._looked(judge, collection, needed=judge.name is primary)
            self._refuse(judge, collection)

    def unfit(self) -> dict[str, str]:
        """The collections that are known to be refused, with why."""
        return {name: each.reason for judge in self._judging for name, each in judge.unfit.items() if each is not None}

    async def look(self, collection: str) -> None:
        """Has the stores examine it now, for a start, a change of phase or a job. Raises as a write would."""
        for judge in self._judging:
            async with within(self._limits.operation / 2):
                await judge.look(collection)
            self._refuse(judge, collection)

    def _refuse(self, judge: Judging, collection: str) -> None:
        unfit = judge.unfit.get(collection)
        if unfit is None:
            return
        if (collection, unfit.reason) not in self._told:
            self._told.add((collection, unfit.reason))
            self._on_unfit(collection, unfit.reason, unfit.advice)
        raise unfit.error()

    async def _looked(self, judge: Judging, collection: str, *, needed: bool) -> None:
        """Writes that come together wait for one examination."""
        loop = asyncio.get_running_loop()
        task = self._looks.get(collection)
        if task is None:
            if not needed and loop.time() < self._not_before.get(collection, 0.0):
                return
            task = self._looks[collection] = loop.create_task(self._look(judge, collection), name="shadow-look")
            task.add_done_callback(lambda done: self._ended(collection, done))
        if needed:
            await asyncio.shield(task)
            return
        patient_until = self._patient_until.setdefault(collection, loop.time() + self._limits.write_deadline)
        if loop.time() < patient_until:
            await asyncio.wait([task], timeout=patient_until - loop.time())

    async def _look(self, judge: Judging, collection: str) -> None:
        # The whole time limit: no intent is open yet, and a process that starts is busy with more than this.
        seconds = self._limits.operation
        try:
            async with within(seconds):
                await judge.look(collection)
        except TimeoutError:
            raise NetworkTimeout(f"{judge.name} does not say within {seconds:g} s what {collection} is") from None

    def _ended(self, collection: str, task: asyncio.Task[None]) -> None:
        self._looks.pop(collection, None)
        if not task.cancelled() and task.exception() is not None:
            self._not_before[collection] = asyncio.get_running_loop().time() + _AGAIN

    def stop(self) -> None:
        """Cancels the examinations that are under way."""
        for task in list(self._looks.values()):
            task.cancel()
