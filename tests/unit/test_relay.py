"""The relay of writers past the shim over a stream from a script: what it heals, what it leaves alone, and when its
cursor moves; and the seat, which one process has at a time."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, OperationFailure

from shadow.control.seat import Seat
from shadow.control.sqlite import SqliteRecords
from shadow.errors import ControlError, JournalError, UnsupportedOperation
from shadow.fleet.relay import Relay, RelayContext
from shadow.host.process import Owner, this_process
from shadow.journal.base import Entry
from shadow.model import events
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.verdict import Bypass, Healing
from shadow.model.version import ABSENT, Image, Tombstone, Version
from shadow.observe.metric_row import Component
from shadow.routes.routes import Routes
from shadow.stores.memory import MemoryStore
from shadow.stores.past import HistoryLost, PastPage, PastWrite, untold
from shadow.writes.heal import heal
from tests.support.pair import Pair, until

AT = Version("b", 1)


def write(key: Any, kind: Bypass = Bypass.CHANGED, *, certain: bool = True) -> PastWrite:
    return PastWrite("things", key, kind, f"event {key}", certain)


class Script:
    """A stream: each opening gives its pages, then its error, then waits for ever."""

    def __init__(self, *openings: tuple[list[PastPage], Exception | None]) -> None:
        self._openings = list(openings)
        self.cursors: list[Mapping[str, Any] | None] = []
        self.refusal: Exception | None = None

    def add(self, pages: list[PastPage]) -> None:
        self._openings.append((pages, None))

    async def check_stream(self, collections: Iterable[str]) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def past_writes(self, cursor: Mapping[str, Any] | None) -> AsyncIterator[PastPage]:
        self.cursors.append(cursor)
        pages, error = self._openings.pop(0) if self._openings else ([], None)
        for page in pages:
            yield page
        if error is not None:
            raise error
        await asyncio.Event().wait()


def page(at: int, *writes: PastWrite, lost: tuple[tuple[str, str], ...] = ()) -> PastPage:
    return PastPage(writes, {"at": at}, lost)


class Running:
    """A relay over a pair of stores in memory."""

    def __init__(self, pair: Pair, folder: Path, script: Script, route: Route | None = None) -> None:
        self.events: list[Any] = []
        self.script = script
        self.records = SqliteRecords(folder / "control.db")
        routes = pair.routes
        if route is not None:
            routes = Routes({"things": route}, on_change=lambda *_: None, on_unknown=lambda _: None)
        context = dataclasses.replace(pair.runtime.context, routes=routes, reporter=self)
        parts = self.parts = RelayContext(context, pair.runtime.replicator, self.records, lambda: ["things"], 0.01)
        self.relay = Relay(script, StoreName.MONGO, parts)
        self.relay._beat = 0.05  # a second at least elsewhere, since it writes into the control store

    def publish(self, event: events.Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [each for each in self.events if isinstance(each, kind)]

    @property
    def relayed(self) -> list[str]:
        return [each.kind.value for each in self.of(events.OutOfBandWriteRelayed)]

    @property
    def noted(self) -> Any:
        found = self.records.get("relay/mongo")
        return None if found is None else found.value["value"].get("cursor")

    async def __aenter__(self) -> Running:
        self.task = asyncio.create_task(self.relay.run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.records.close()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with Pair(tmp_path) as pair:
        yield pair


async def stored(pair: Pair, key: str, primary: Image, secondary: Image) -> None:
    for store, image in ((pair.primary, primary), (pair.secondary, secondary)):
        if image.state != ABSENT:
            assert await store.put("things", key, image, ABSENT)


def image(key: str, version: Version = AT, **fields: Any) -> Image:
    return Image(version, {"_id": key, **fields})


GONE = Image(ABSENT)


async def test_what_was_written_past_it_is_healed_and_its_own_writes_are_not(pair: Pair, tmp_path: Path) -> None:
    old, new = Version("b", 1), Version("b", 2)
    buried = Image(Tombstone("t"))
    cases = {
        "changed": (image("changed", n=2), image("changed", n=1), write("changed")),
        "inserted": (image("inserted", Version("", 0)), GONE, write("inserted", Bypass.INSERTED)),
        "deleted": (GONE, image("deleted"), write("deleted", Bypass.DELETED, certain=False)),
        "never copied": (GONE, GONE, write("never copied", Bypass.DELETED, certain=False)),
        "written back": (image("written back", n=2), image("written back", n=1), write("written back", Bypass.REPLACED,
                                                                                       certain=False)),
        "copied whole": (image("copied whole", new), GONE, write("copied whole", Bypass.INSERTED, certain=False)),
        "own delete": (GONE, buried, write("own delete", Bypass.DELETED, certain=False)),
        "there again": (image("there again"), image("there again"), write("there again", Bypass.DELETED,
                                                                          certain=False)),
        "own replace": (image("own replace"), image("own replace"), write("own replace", Bypass.REPLACED,
                                                                          certain=False)),
    }  # fmt: skip
    for key, (primary, secondary, _) in cases.items():
        await stored(pair, key, primary, secondary)
    for key in ("late delete", "late replace"):
        await stored(pair, key, GONE if key == "late delete" else image(key, new, n=2), image(key, old, n=1))
        await pair.journal.open([Entry(f"op {key}", "things", key)])
    late = [write("late delete", Bypass.DELETED, certain=False), write("late replace", Bypass.REPLACED, certain=False)]
    script = Script(([page(1, *(each for _, _, each in cases.values()), *late)], None))

    async def arrive() -> None:
        """What is under way for it reaches the secondary while it waits."""
        await asyncio.sleep(0.03)
        assert await pair.secondary.put("things", "late delete", buried, old)
        assert await pair.secondary.put("things", "late replace", image("late replace", new, n=2), old)
        for key in ("late delete", "late replace"):
            pair.journal.close(f"op {key}")

    async with Running(pair, tmp_path, script) as running:
        await arrive()
        await until(lambda: running.noted == {"at": 1})
        await until(lambda: pair.report.healings[Healing.COPIED] >= 4)
        assert sorted(running.relayed) == ["changed", "deleted", "deleted", "inserted", "inserted", "replaced"]
        healed = pair.report.healings
        await until(lambda: sum(healed.values()) == 6)
        assert (healed[Healing.COPIED], healed[Healing.TOMBSTONED]) == (4, 2)
        for key, (primary, _, _) in cases.items():
            other = await pair.secondary.image("things", key)
            assert other == primary if primary.present else isinstance(other.state, Tombstone), key
        assert running.relay.status().collections["things"]["count"] == 6


async def test_the_cursor_stays_where_the_journal_cannot_be_written(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise JournalError("no room")

    script = Script(([page(1), page(2, write("a"))], None), ([page(2, write("a"))], None))
    async with Running(pair, tmp_path, script) as running:
        monkeypatch.setattr(pair.runtime.replicator, "heal_soon", fails)
        with pytest.raises(JournalError):
            await running.task
        assert (running.noted, running.relayed) == ({"at": 1}, [])
        assert "no room" in running.relay.status().fault
        monkeypatch.undo()
        running.task = asyncio.create_task(running.relay.run())
        await until(lambda: running.relayed == ["changed"])
        assert script.cursors == [None, {"at": 1}]


async def test_what_the_stream_cannot_tell_makes_the_collection_unverified(pair: Pair, tmp_path: Path) -> None:
    """When it begins, when a page says so, and when the place is too old; then it begins at the present."""
    script = Script(
        ([page(1), page(2, lost=(("things", "dropped"),))], HistoryLost("too old")), ([page(3)], None)
    )  # fmt: skip
    async with Running(pair, tmp_path, script) as running:
        await until(lambda: running.noted == {"at": 3})
        assert script.cursors == [None, None]
        reasons = [each.fields["reason"] for each in running.of(events.Noted)]
        assert [reason.partition(":")[0].partition(" ")[0] for reason in reasons] == ["relaying", "dropped", "the"]
        assert "things" in (await pair.journal.stats()).unclean


async def test_what_the_store_deletes_by_itself_follows_and_is_no_writer(pair: Pair, tmp_path: Path) -> None:
    """Where the secondary has expired it too, or the document is there again, nothing is left to do."""
    for key, (primary, secondary) in {
        "by the store": (GONE, image("by the store")),
        "on both": (GONE, GONE),
        "there again": (image("there again"), image("there again")),
    }.items():
        await stored(pair, key, primary, secondary)
    gone = [
        dataclasses.replace(write(key, Bypass.DELETED, certain=False), by_store=True)
        for key in ("by the store", "on both", "there again")
    ]
    async with Running(pair, tmp_path, Script(([page(1, *gone)], None))) as running:
        await until(lambda: sum(pair.report.healings.values()) == 1)
        await until(lambda: running.noted == {"at": 1})
        assert isinstance((await pair.secondary.image("things", "by the store")).state, Tombstone)
        assert running.relayed == []
        assert running.relay.status().collections == {}


async def test_a_collection_that_the_store_does_not_tell_of_is_unread_and_the_lag_grows(
    pair: Pair, tmp_path: Path
) -> None:
    """Said once, also to processes that do not have the seat, and no more when it is read again."""
    mute = dataclasses.replace(page(1), unread=(("things", "no stream"), ("in one store", "none")))
    script = Script(([mute, dataclasses.replace(mute, cursor={"at": 2})], HistoryLost("x")), ([page(3)], None))
    async with Running(pair, tmp_path, script) as running:
        await until(lambda: "things" in running.relay.status().unread)
        assert running.relay.status().unread == {"things": "no stream"}
        assert not running.relay.reads("things")
        await until(lambda: running.noted == {"at": 3})
        assert running.relay.reads("things")
        assert [each.name for each in running.of(events.Noted)].count("relay.unread") == 1
        assert running.relay.status().behind < 1

    async with Running(pair, tmp_path, Script(([mute], None))) as running:
        await until(lambda: running.relay.status().unread)
        await asyncio.sleep(0.05)
        running.relay._saved = 0.0
        await running.relay._note(mute, {})
        assert running.relay.status().behind >= 0.05


async def test_what_the_secondary_does_not_tell_is_known_before_a_flip_and_is_no_lag(
    pair: Pair, tmp_path: Path
) -> None:
    mute = dataclasses.replace(page(1), unread=(("things", "no stream"),))
    async with Running(pair, tmp_path, Script(([mute], None)), Route(StoreName.DYNAMO, Phase.SHADOW)) as running:
        await until(lambda: running.relay.status().unread == {"things": "no stream"})
        await asyncio.sleep(0.05)
        await note(running, mute)
        assert running.relay.status().behind < 0.05
        pair.routes.set("things", Route(StoreName.MONGO, Phase.SHADOW))
        running.relay._routes = pair.routes
        await note(running, mute)
        assert running.relay.status().behind < 0.05, "from the flip on"
        await asyncio.sleep(0.05)
        await note(running, mute)
        assert running.relay.status().behind >= 0.05
        said = [each.fields["role"] for each in running.of(events.Noted) if each.name == "relay.unread"]
        assert said == ["secondary", "primary"]


async def note(running: Running, page: PastPage) -> None:
    running.relay._saved = 0.0
    await running.relay._note(page, {})


async def test_why_nothing_is_relayed_is_known_to_every_process_until_one_relays(pair: Pair, tmp_path: Path) -> None:
    """With the next step; the place in the stream is kept."""
    refusal = UnsupportedOperation("observe.follow_writers", "no replica set", hint="make it one")
    script = Script(([page(1)], AutoReconnect("10.0.0.7:27017: gone")))
    async with Running(pair, tmp_path, script) as running:
        other = Relay(script, StoreName.MONGO, running.parts)
        for error, said in ((None, "AutoReconnect"), (refusal, "no replica set; make it one")):
            script.refusal = error
            if error is not None:
                running.task = asyncio.create_task(running.relay.run())
            with pytest.raises(AutoReconnect if error is None else UnsupportedOperation):
                await running.task
            other._seat._see(running.records.get("relay/mongo"))
            other._fault = ""
            assert (other.status().fault, other.status().holder) == (said, "")
            assert running.noted == {"at": 1}
        script.refusal = None
        script.add([page(2)])
        running.relay._saved = 0.0
        running.task = asyncio.create_task(running.relay.run())
        await until(lambda: running.noted == {"at": 2})
        other._seat._see(running.records.get("relay/mongo"))
        assert (other.status().fault, bool(other.status().holder)) == ("", True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnsupportedOperation("x", "no stream", hint="make one"), "no stream; make one"),
        (JournalError("no room"), "no room"),
        (ControlError("it does not answer", hint="start it"), "it does not answer; start it"),
        (AutoReconnect("10.0.0.7:27017: connection closed"), "AutoReconnect"),
        (
            OperationFailure("{a: 'secret'}", 96, {"codeName": "OperationFailed"}),
            "OperationFailure 96 (OperationFailed)",
        ),
        (
            OperationFailure("not authorized on app to execute {..}", 13, {"codeName": "Unauthorized"}),
            "OperationFailure 13: the user lacks `changeStream` or `find` on the database: "
            "shadow config check --connect",
        ),
        (ValueError("a secret"), "ValueError"),
    ],
)
def test_each_reason_why_nothing_is_told_is_one_line_with_its_next_step(error: Exception, said: str) -> None:
    assert untold(error) == said


async def test_a_secondary_that_does_not_answer_is_counted_and_the_write_is_left_to_the_journal(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise ConnectionError("no secondary")

    monkeypatch.setattr(pair.secondary, "images", fails)
    script = Script(([page(1, write("a", certain=False))], None))
    async with Running(pair, tmp_path, script) as running:
        await until(lambda: running.relayed == ["changed"])
        faults = running.of(events.ComponentFailed)
        assert {(each.part, type(each.error)) for each in faults} == {("relay", ConnectionError)}
        assert Component("relay") is Component.RELAY, "it has its own count"
        assert running.relay.status().fault == ""


@pytest.mark.parametrize("route", [Route(StoreName.MONGO, Phase.OFF), Route(StoreName.DYNAMO, Phase.SHADOW)])
async def test_nothing_is_healed_where_the_store_is_not_the_primary_of_two(
    pair: Pair, tmp_path: Path, route: Route
) -> None:
    """A write to the secondary is counted, so that somebody looks for the writer."""
    await stored(pair, "a", image("a", n=2), image("a", n=1))
    script = Script(([page(1, write("a"), write("b", Bypass.DELETED, certain=False))], None))
    async with Running(pair, tmp_path, script, route) as running:
        await until(lambda: running.noted == {"at": 1})
        assert running.relayed == []
        seen = [each.key for each in running.of(events.OutOfBandWriteSeen)]
        assert seen == (["a"] if route.dual_write else [])
        assert running.of(events.Noted) == []


async def test_a_heal_looks_again_where_its_condition_cannot_tell_two_contents_apart() -> None:
    """Between its look at the primary and its copy the document is written past the shim, and another heal copies
    that: the late copy, at the same version, does not stay."""
    for version in (AT, Version("", 0)):
        primary, secondary = MemoryStore(StoreName.MONGO), MemoryStore(StoreName.DYNAMO)
        assert await primary.put("things", "k", image("k", version, n=1), ABSENT)
        assert await secondary.put("things", "k", image("k", version, n=0), ABSENT)
        real = secondary.put
        overtaken: list[int] = []

        async def late(*arguments: Any, real: Any = real, primary: Any = primary, version: Any = version,
                       overtaken: list[int] = overtaken) -> Any:  # fmt: skip
            if not overtaken:
                overtaken.append(1)
                newer = image("k", version, n=2)
                assert await primary.put("things", "k", newer, version)
                assert await real("things", "k", newer, version)
            return await real(*arguments)

        secondary.put = late  # type: ignore[method-assign, assignment]
        assert await heal(primary, secondary, "things", "k") is Healing.COPIED
        assert await secondary.image("things", "k") == image("k", version, n=2)


# --- the seat -----------------------------------------------------------------------------------------------------


def seat(records: SqliteRecords, owner: Owner | None = None, clock: Any = lambda: 0.0) -> Seat:
    return Seat(records, "seat", (lambda: owner) if owner else this_process, 10.0, clock=clock)


def test_one_has_the_seat_until_it_leaves_dies_or_falls_silent(tmp_path: Path) -> None:
    records, now = SqliteRecords(tmp_path / "control.db"), [0.0]
    elsewhere = Owner("another host/boot/namespace/0", 1, 1.0)
    first, second = seat(records), seat(records, elsewhere, clock=lambda: now[0])
    assert first.take()
    assert first.keep({"at": 1})
    assert not second.take()
    assert (second.value, second.holder.endswith(f"pid {this_process().pid}")) == ({"at": 1}, True)
    assert not second.keep({"at": 0})
    second.leave()
    assert first.take(), "one that does not have the seat frees nothing"
    first.leave()
    assert second.take()
    assert second.value == {"at": 1}
    third = seat(records, clock=lambda: now[0])
    assert not third.take()
    now[0] = 9.9
    assert second.keep({"at": 2}), "a sign of life"
    assert not third.take()
    now[0] = 19.0
    assert not third.take()
    now[0] = 20.0
    assert third.take()
    assert not second.keep({"at": 3}), "what the one that was replaced notes is refused"
    assert third.value == {"at": 2}
    records.close()


def test_a_dead_process_is_replaced_at_once(tmp_path: Path) -> None:
    records, own = SqliteRecords(tmp_path / "control.db"), this_process()
    dead = dataclasses.replace(own, started=own.started - 50)
    assert dead.known_dead()
    assert seat(records, dead).take()
    assert seat(records).take()
    records.close()


def test_a_lost_answer_does_not_lose_the_seat(tmp_path: Path) -> None:
    records = SqliteRecords(tmp_path / "control.db")
    one = seat(records)
    assert one.take()
    real = records.put

    def lost(*arguments: Any, **options: Any) -> str | None:
        real(*arguments, **options)
        return None

    records.put = lost  # type: ignore[method-assign]
    one.keep({"at": 1})
    records.put = real  # type: ignore[method-assign]
    assert one.keep({"at": 2})
    assert one.value == {"at": 2}
    records.close()
