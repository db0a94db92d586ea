"""What must hold when a run has settled. The order of the secondary's states is checked as they come, by `history`."""

from __future__ import annotations

import asyncio

from shadow.control.epochs import has_epoch
from shadow.model.version import Key
from tests.simulation import expiry
from tests.simulation.conditions import COLLECTION
from tests.simulation.history import mark_of
from tests.simulation.workload import Answer, Heard, Workload
from tests.simulation.world import World

__all__ = ["check_gates", "check_settled", "check_tasks"]


def check_gates(world: World) -> None:
    """At any moment: where the gates would let a flip pass, both are equal. They would where the journal holds nothing
    and nothing is in doubt, of stores that were equal at the beginning or have been verified."""
    if world.conditions.fleet:
        proven = has_epoch(world.placed, world.proof)
    else:
        proven = bool(world.verified) or not world.conditions.seeded
    if not proven or world.doubted or world.open() or world.late():
        return  # what takes effect late is found a moment later
    for key in world.keys + world.counters:
        _check_equal(world, key)


def check_settled(world: World, workload: Workload) -> None:
    """Raises `Broken` at the first that does not hold."""
    answers = workload.answers + workload.unheard()
    for key in world.keys + world.counters:
        _check_equal(world, key)
    for answer in answers:
        _check_effects(world, answer)
    for key in world.counters:
        _check_counter(world, key, answers)
    for table in ("intents", "deferred"):
        left = world.db.execute(f"SELECT * FROM {table}").fetchall()
        world.check(not left, f"the journal is empty: {table} holds {left}")
    _check_doubt(world)


def _check_doubt(world: World) -> None:
    """What was acknowledged and rolled back is in doubt until it has been verified. A process that died before it could
    say so has told nobody of the write either."""
    for at, process in world.undone:
        told = process.dead or at < world.verified or world.doubted
        world.check(told, f"a rollback puts the collection in doubt: {process.name} was told at {at:.3f}")


def _check_equal(world: World, key: Key) -> None:
    primary, secondary = (server.image(COLLECTION, key) for server in (world.primary, world.secondary))
    equal = expiry.agree_but_for_expired(world, primary, secondary, key)
    world.check(equal, f"both are equal: {key} is {primary} there and {secondary} here")


def _check_effects(world: World, answer: Answer) -> None:
    """Acknowledged: once. Without effect: never. Unknown: once at most."""
    mark = mark_of(answer.change)
    count = world.history.marks.get(mark, 0)
    possible = {Heard.DONE: (1,), Heard.NOTHING: (0,), Heard.UNKNOWN: (0, 1)}[answer.heard]
    world.check(
        count in possible, f"no write is lost or doubled: {mark[-4:]} was {answer.heard}, and done {count} times"
    )


def _check_counter(world: World, key: Key, answers: list[Answer]) -> None:
    """A counter holds what was acknowledged, and at most what is unknown beside it."""
    document = world.secondary.image(COLLECTION, key).document
    mine = [answer for answer in answers if answer.change.key == key]
    least = sum(answer.amount for answer in mine if answer.heard is Heard.DONE)
    most = least + sum(answer.amount for answer in mine if answer.heard is Heard.UNKNOWN)
    found = None if document is None else document["n"]
    world.check(found is not None and least <= found <= most, f"{key} counts {found}, not {least} to {most}")


def check_tasks(world: World) -> None:
    """No task outlives its runtime."""
    here = asyncio.current_task()
    left = [task for task in world.loop.made if not task.done() and task is not here]
    world.check(not left, f"no task is left: {[task.get_coro() for task in left]}")
