"""Many replays, or many copies, in one batch, as the store called DynamoDB makes them: see `shadow.stores.replays`,
whose steps are the real ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shadow.model.operation import Write
from shadow.model.version import Image, Key, State
from shadow.stores.replays import Put, Step
from tests.simulation.replicas import Member

if TYPE_CHECKING:
    from tests.simulation.stores import Client

__all__ = ["SimulatedCopies", "SimulatedReplays"]

Statement = tuple[Write, State, Image]
"""A write, the state under its key that is the condition, and the image that it leaves there."""


@dataclass(frozen=True)
class SimulatedReplays:
    client: Client
    collection: str

    async def steps(self, writes: Mapping[int, Write]) -> Mapping[int, Step[Statement]]:
        asked = list(writes.values())

        def look(on: Member) -> list[Image]:
            return [copy.deepcopy(on.memory._image(self.collection, each.key)) for each in asked]

        images = await self.client._ask(f"look at {' '.join(str(each.key) for each in asked)}", look)
        made: dict[int, Step[Statement]] = {}
        for (place, write), before in zip(writes.items(), images, strict=True):
            after = self.client._replayed(self.collection, write, before)
            if after is not None:
                made[place] = Step((write, before.state, after), after)
        return made

    async def send(self, statements: Sequence[Statement]) -> Sequence[bool]:
        server = self.client._server
        part, _ = self.client._process.part_of(len(statements))

        def change(on: Member) -> list[bool]:
            done = [False] * len(statements)
            for number, (write, state, after) in enumerate(statements[:part]):
                if not self.is_at(on, write, state):
                    continue
                on.memory._set(self.collection, write.key, copy.deepcopy(after))
                server.followed(on, self.collection, write.key, changed=True)
                done[number] = True
            return done

        what = f"replay many {' '.join(str(write.key) for write, _, _ in statements)}"
        return await self.client._copied(what, change)

    def is_at(self, on: Member, write: Write, state: State) -> bool:
        """The condition of one statement."""
        return on.memory._image(self.collection, write.key).state == state


@dataclass(frozen=True)
class SimulatedCopies:
    client: Client
    collection: str

    async def steps(self, puts: Mapping[int, Put]) -> Mapping[int, Step[Put]]:
        asked = [key for key, _, _ in puts.values()]

        def look(on: Member) -> list[State]:
            return [on.memory._image(self.collection, key).state for key in asked]

        states = await self.client._ask(f"look at {' '.join(map(str, asked))}", look)
        return {
            place: Step(put, put[1])
            for (place, put), state in zip(puts.items(), states, strict=True)
            if state == put[2]
        }

    async def send(self, statements: Sequence[Put]) -> Sequence[bool]:
        server = self.client._server
        part, _ = self.client._process.part_of(len(statements))

        def put(on: Member) -> list[bool]:
            done = [False] * len(statements)
            for number, (key, image, state) in enumerate(statements[:part]):
                if self.is_at(on, key, state):
                    on.memory._set(self.collection, key, copy.deepcopy(image))
                    server.followed(on, self.collection, key, changed=True)
                    done[number] = True
            return done

        return await self.client._copied(f"put many {' '.join(str(key) for key, _, _ in statements)}", put)

    def is_at(self, on: Member, key: Key, state: State) -> bool:
        """The condition of one statement."""
        return on.memory._image(self.collection, key).state == state
