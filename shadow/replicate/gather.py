"""Gathering: what comes near in time, handed over together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Gather"]

T = TypeVar("T")


class Gather(Generic[T]):
    """Hands a group over when `most` have come, or `linger` seconds after the first of them. One event loop's."""

    def __init__(self, *, linger: float, most: int, hand_over: Callable[[list[T]], None]) -> None:
        self._linger = linger
        self._most = most
        self._hand_over = hand_over
        self._groups: dict[Hashable, tuple[asyncio.TimerHandle, list[T]]] = {}

    def __len__(self) -> int:
        """How many have come and are not handed over yet."""
        return sum(len(members) for _, members in self._groups.values())

    def add(self, group: Hashable, member: T) -> None:
        known = self._groups.get(group)
        if known is None:
            timer = asyncio.get_running_loop().call_later(self._linger, self._due, group)
            known = self._groups[group] = timer, []
        known[1].append(member)
        if len(known[1]) >= self._most:
            known[0].cancel()
            self._due(group)

    def _due(self, group: Hashable) -> None:
        self._hand_over(self._groups.pop(group)[1])

    def stop(self) -> None:
        """Forgets what has not been handed over."""
        for timer, _ in self._groups.values():
            timer.cancel()
        self._groups.clear()
