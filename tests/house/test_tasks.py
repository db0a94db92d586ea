"""No task of the product loses an error: somebody waits for it, or is told."""

from __future__ import annotations

import ast
import asyncio
import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from shadow.control import flip_record as routing
from shadow.control.flip_record import Flip, FlipKind, FlipState, RouteRecord, Routing
from shadow.control.sqlite import SqliteRecords
from shadow.errors import ControlError
from shadow.fleet.context import ParticipantContext
from shadow.fleet.participant import Participant
from shadow.host.tasks import begin
from shadow.model.background import Background
from shadow.model.phase import Phase, Route, StoreName
from shadow.routes.routes import Routes, RouteSource
from shadow.routes.startup import StartupContext, StartupPrimary
from shadow.writes.work_queue import WorkQueue
from tests.support import package

LOOKS_ITSELF: Final = {
    ("host/tasks.py", "create_task"),
    ("stores/calls.py", "create_task"),
    ("routes/forwarder.py", "ensure_future"),
    ("writes/admission.py", "create_task"),
    ("writes/running.py", "ensure_future"),
    ("surface/calls/futures.py", "create_task"),  # as Motor: asyncio reports what the application does not look at
}
"""Where a task is made by hand: a callback of its own asks for the error, or the application has it, as Motor's."""


def _made() -> Iterator[tuple[str, str, int]]:
    for name, nodes in package.nodes().items():
        if name.startswith("embedded/"):
            continue
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of_group = isinstance(node.func.value, ast.Name) and node.func.value.id in ("group", "deletes")
                if node.func.attr in ("create_task", "ensure_future") and not of_group:
                    yield name, node.func.attr, node.lineno


def test_tasks_are_made_where_their_errors_are_looked_at() -> None:
    """Those of a task group are the group's own."""
    made = list(_made())
    assert [each for each in made if each[:2] not in LOOKS_ITSELF] == []
    assert {each[:2] for each in made} == LOOKS_ITSELF, "an entry that is no more"


def _lost(loop: asyncio.AbstractEventLoop) -> list[str]:
    said: list[str] = []
    loop.set_exception_handler(lambda loop, context: said.append(str(context.get("message"))))
    return said


async def _fail() -> None:
    raise ValueError("a fault")


async def test_an_error_is_told_and_is_not_lost() -> None:
    said, told = _lost(asyncio.get_running_loop()), list[BaseException]()
    begin(_fail(), failed=told.append)
    begin(_fail())
    future = asyncio.get_running_loop().create_future()
    begin(future, failed=told.append)
    future.set_exception(ValueError("another"))
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert [str(each) for each in told] == ["a fault", "another"]
    assert said == []


async def test_whoever_waits_gets_the_answer_or_the_error() -> None:
    async def answer() -> int:
        return 7

    assert await begin(answer()) == 7
    with pytest.raises(ValueError, match="a fault"):
        await begin(_fail())
    task = begin(asyncio.sleep(60))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class _Site(SimpleNamespace):
    """A process at its end: nothing that a flip asks of it works any more."""

    def __init__(self) -> None:
        super().__init__(told=[], holding=None)

    def routes(self) -> dict[str, Route]:
        return {"things": Route(StoreName.MONGO, Phase.SHADOW)}

    def wanted(self) -> dict[str, StoreName]:
        return {}

    def wants_both(self) -> dict[str, Phase]:
        return {}

    def noted(self, seen: Routing, until: float) -> None: ...

    def drained(self, collections: Any) -> bool:
        return True

    def arrived(self, collections: Any) -> bool:
        return True

    async def vouch(self, collections: Any, *, whole: bool = True) -> str:
        raise RuntimeError("cannot schedule new futures after shutdown")

    def failed(self, task: Background, error: BaseException | None) -> None:
        self.told.append((task, error))


async def test_a_flip_that_cannot_even_say_why_it_failed_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _lost(asyncio.get_running_loop())
    records, site = SqliteRecords(tmp_path / "control"), _Site()
    records.prepare()
    participant = Participant(ParticipantContext(records, "a", heartbeat=0.05, limit=1.0), site)  # type: ignore[arg-type]
    await participant.join({"things": StoreName.MONGO})

    async def gone(ack: Any = None) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(participant, "beat", gone)
    seen = routing.load(records)
    flip = Flip("a-flip", FlipKind.FLIP, FlipState.ANNOUNCED, {"things": StoreName.DYNAMO})
    routing.save(records, seen.with_placed({"things": RouteRecord(StoreName.MONGO)}).with_flip(flip))
    await participant.look()
    assert participant._flip is not None
    await asyncio.wait([participant._flip])
    participant._flip = None
    gc.collect()
    assert said == []
    assert [(task, type(error)) for task, error in site.told] == [(Background.FLIP, RuntimeError)] * 2
    records.close()


async def test_what_nobody_waits_for_any_more_is_not_lost(tmp_path: Path) -> None:
    """Roles: every operation that wanted to know who is primary was cancelled, and then it fails."""
    said = _lost(asyncio.get_running_loop())
    going = asyncio.Event()

    async def join(kept: Any) -> Any:
        await going.wait()
        raise ControlError("the control store is away")

    class Journal:
        async def primaries(self, wanted: Any) -> dict[str, str]:
            return {}

    routes = Routes(
        {"things": Route(StoreName.MONGO, Phase.SHADOW)},
        on_change=lambda *_: None,
        on_unknown=print,
        source=RouteSource(lambda *, writing: roles.learn(writing=writing)),
    )
    roles = StartupPrimary(StartupContext(Journal(), routes, lambda *_: None, join=join))  # type: ignore[arg-type]
    waiting = asyncio.ensure_future(roles.learn(writing=True))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    going.set()
    await asyncio.sleep(0.01)
    roles._learning = None
    gc.collect()
    assert said == []


async def test_a_lane_that_fails_itself_says_so() -> None:
    told: list[BaseException] = []
    lane = WorkQueue(workers=1, capacity=5, on_error=told.append)

    async def job() -> None: ...

    lane.offer("things", "k", job)
    lane._queues.clear()
    for _ in range(10):
        await asyncio.sleep(0)
    assert [type(each) for each in told] == [KeyError]
