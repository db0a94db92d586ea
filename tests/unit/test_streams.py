"""DynamoDB's streams over answers from a script: in which order shards are read, where reading goes on, what is said
when records are missing; and which records are out-of-band writes."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from bson import ObjectId
from pymongo.errors import AutoReconnect, OperationFailure

from shadow.model.schema import CollectionSpec, ExpirySpec, IndexSpec
from shadow.model.verdict import Bypass
from shadow.model.version import Tombstone, Version
from shadow.stores.dynamo.client.errors import translate
from shadow.stores.dynamo.client.streams import ExpiredIterator, TrimmedStream, endpoint_of
from shadow.stores.dynamo.items.codec import Codec
from shadow.stores.dynamo.items.keys import key_text
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.stream import shards
from shadow.stores.dynamo.stream.changes import StreamReader
from shadow.stores.dynamo.stream.records import TableRecord, table_record
from shadow.stores.past import BEGUN, TOO_OLD, HistoryLost, PastPage

SPEC = CollectionSpec("things")
TABLE = CollectionTable("p-things", "db.things", SPEC, Codec(SPEC))
HOUR = 3600.0
SPACING, IDLE, PAUSES = shards._SPACING, shards._IDLE, shards._PAUSES


def record(number: int, key: str, *, ago: float = 0.0) -> dict[str, Any]:
    """An insert by somebody else."""
    made = dt.datetime.fromtimestamp(time.time() - ago, dt.UTC)
    image = {"_id": {"S": key}, "n": {"N": "1"}}
    change = {
        "ApproximateCreationDateTime": made, "Keys": {"_id": {"S": key}}, "NewImage": image,
        "SequenceNumber": f"{number:021}", "SizeBytes": 20,
    }  # fmt: skip
    return {"eventID": f"e{number}", "eventName": "INSERT", "dynamodb": change}


class Shard:
    def __init__(self, id: str, parent: str = "", *records: dict[str, Any], ended: bool = False) -> None:
        self.id, self.parent, self.records, self.ended = id, parent, list(records), ended
        self.trimmed_to = 0
        """The records that the stream no longer has."""


class Stream:
    """DynamoDB's streams, as far as they are asked: one table's. Answers as the service does, at most `size` records at
    once; `errors` are raised first, one for each request of their verb."""

    def __init__(self, *found: Shard, arn: str = "arn 1") -> None:
        self.shards = {each.id: each for each in found}
        self.arn: str | None = arn
        self.view = "NEW_AND_OLD_IMAGES"
        self.size = 2
        self.errors: dict[str, list[Exception]] = {}
        self.asked: list[tuple[str, str]] = []
        self.alive: set[str] = set()

    def described(self) -> dict[str, Any] | None:
        if self.arn is None:
            return {"TableName": "p-things"}
        specified = {"StreamEnabled": True, "StreamViewType": self.view}
        return {"TableName": "p-things", "LatestStreamArn": self.arn, "StreamSpecification": specified}

    def expire(self) -> None:
        self.alive.clear()

    async def call(self, verb: str, table: str, **parameters: Any) -> dict[str, Any]:
        assert table == "p-things"
        await asyncio.sleep(0)
        if self.errors.get(verb):
            raise self.errors[verb].pop(0)
        if parameters.get("StreamArn", self.arn) != self.arn:
            raise TrimmedStream("ResourceNotFoundException")
        answer: dict[str, Any] = getattr(self, f"_{verb}")(**parameters)
        return answer

    def _describe_stream(self, StreamArn: str, ExclusiveStartShardId: str = "") -> dict[str, Any]:
        """In pages of two."""
        ids = sorted(self.shards)
        rest = [each for each in ids if each > ExclusiveStartShardId]
        said = [self._shown(self.shards[each]) for each in rest[:2]]
        more = {"LastEvaluatedShardId": rest[1]} if len(rest) > 2 else {}
        return {"StreamDescription": {"Shards": said, **more}}

    @staticmethod
    def _shown(shard: Shard) -> dict[str, Any]:
        numbers = {"StartingSequenceNumber": "0", **({"EndingSequenceNumber": "9"} if shard.ended else {})}
        parent = {"ParentShardId": shard.parent} if shard.parent else {}
        return {"ShardId": shard.id, "SequenceNumberRange": numbers, **parent}

    def _get_shard_iterator(
        self, StreamArn: str, ShardId: str, ShardIteratorType: str, SequenceNumber: str = ""
    ) -> dict[str, Any]:  # fmt: skip
        self.asked.append((ShardId, ShardIteratorType))
        shard = self.shards.get(ShardId)
        if shard is None:
            raise TrimmedStream("ResourceNotFoundException")
        at = {"LATEST": len(shard.records), "TRIM_HORIZON": shard.trimmed_to}.get(ShardIteratorType)
        if at is None:
            numbers = [each["dynamodb"]["SequenceNumber"] for each in shard.records]
            at = numbers.index(SequenceNumber) + 1
            if at <= shard.trimmed_to:
                raise TrimmedStream("TrimmedDataAccessException")
        return {"ShardIterator": self._living(ShardId, at)}

    def _living(self, shard: str, at: int) -> str:
        made = f"{shard} {at} {len(self.alive)}"
        self.alive.add(made)
        return made

    def _get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:
        if ShardIterator not in self.alive:
            raise ExpiredIterator
        id, at, _ = ShardIterator.split()
        shard, first = self.shards[id], int(at)
        if first < shard.trimmed_to:
            raise TrimmedStream("TrimmedDataAccessException")
        found = shard.records[first : first + min(Limit, self.size)]
        ended = shard.ended and first + len(found) >= len(shard.records)
        return {"Records": found, **({} if ended else {"NextShardIterator": self._living(id, first + len(found))})}


class Reading:
    """Reads a stream from a cursor, page by page."""

    def __init__(self, stream: Stream, cursor: Mapping[str, Any] | None = None) -> None:
        async def describe(table: str) -> Mapping[str, Any] | None:
            if stream.errors.get("describe_table"):
                raise stream.errors["describe_table"].pop(0)
            return stream.described()

        reader = StreamReader(stream, describe, ["things"], lambda name: TABLE, every=0.0)  # type: ignore[arg-type]
        self._pages = reader.pages(cursor)
        self.last = PastPage((), {})

    async def __aenter__(self) -> Reading:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pages.aclose()  # type: ignore[attr-defined]

    async def page(self) -> PastPage:
        self.last = await anext(self._pages)
        return self.last

    async def keys(self, pages: int = 12) -> list[str]:
        return [each.key for _ in range(pages) for each in (await self.page()).writes]

    @property
    def cursor(self) -> Mapping[str, Any]:
        """As the control store gives it back."""
        found: Mapping[str, Any] = json.loads(json.dumps(self.last.cursor))
        return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(shards, "_LIMIT", 2)
    monkeypatch.setattr(shards, "_SPACING", 0.0)
    monkeypatch.setattr(shards, "_IDLE", (0.0, 0.0))
    monkeypatch.setattr("shadow.stores.dynamo.stream.changes._SOON", 0.0)


async def place_of(stream: Stream) -> Mapping[str, Any]:
    """The place at the end of the stream."""
    async with Reading(stream) as reading:
        await reading.keys(8)
        return reading.cursor


async def test_reading_begins_at_the_end_and_goes_on_behind_the_last_record() -> None:
    shard = Shard("s1", "", record(1, "old"))
    stream = Stream(shard)
    async with Reading(stream) as reading:
        assert (await reading.page()).writes == ()
        shard.records += [record(n, f"k{n}") for n in range(2, 7)]
        assert await reading.keys() == ["k2", "k3", "k4", "k5", "k6"]
        place = reading.cursor
    shard.records.append(record(7, "while nobody read"))
    async with Reading(stream, place) as reading:
        assert await reading.keys() == ["while nobody read"]
    assert stream.asked == [("s1", "LATEST"), ("s1", "AFTER_SEQUENCE_NUMBER")]


async def test_an_empty_shard_that_was_begun_at_its_end_goes_on_without_what_was_before() -> None:
    """It has no record to go on behind, so it is read from its beginning; what came before was never wanted."""
    shard = Shard("s1", "", record(1, "old", ago=HOUR))
    stream = Stream(shard)
    place = await place_of(stream)
    shard.records.append(record(2, "new"))
    async with Reading(stream, place) as reading:
        assert await reading.keys() == ["new"]
    assert stream.asked[-1] == ("s1", "TRIM_HORIZON")


async def test_children_are_read_behind_their_parents() -> None:
    """Also those that come while it reads, which begin at their beginning, and where a process takes over."""
    parent = Shard("s1", "", *(record(n, f"p{n}", ago=HOUR) for n in range(5)))
    stream = Stream(parent)
    place = await place_of(stream)
    parent.records += [record(n, f"p{n}") for n in range(5, 11)]
    parent.ended = True
    for number, id in enumerate(("s2", "s3")):
        stream.shards[id] = Shard(id, "s1", record(20 + number, f"child {id}"), ended=True)
        stream.shards[f"{id}b"] = Shard(f"{id}b", id, record(30 + number, f"grandchild {id}"))
    expected = [f"p{n}" for n in range(5, 11)]
    async with Reading(stream, place) as reading:
        first = await reading.keys(2)
        taken_over = reading.cursor
        rest = await reading.keys(20)
    assert first + rest[: 6 - len(first)] == expected
    for id in ("s2", "s3"):
        assert rest.index(f"child {id}") < rest.index(f"grandchild {id}")
    assert len(first + rest) == 10
    async with Reading(stream, taken_over) as reading:
        assert sorted(await reading.keys(20)) == sorted(rest)
        ended = reading.cursor
    assert sorted(each[0] for each in ended["streams"][0]["shards"]) == ["s2b", "s3b"], "what is behind is not kept"
    del stream.shards["s1"], stream.shards["s2"], stream.shards["s3"]
    async with Reading(stream, ended) as reading:
        assert await reading.keys() == []
        assert reading.last.lost == ()


async def test_an_iterator_that_expires_is_replaced_and_nothing_is_missed() -> None:
    shard = Shard("s1")
    stream = Stream(shard)
    async with Reading(stream) as reading:
        await reading.page()
        for number in range(1, 6):
            stream.expire()
            shard.records.append(record(number, f"k{number}"))
            assert await reading.keys(4) == [f"k{number}"]
        assert reading.last.lost == ()


async def test_an_iterator_of_an_empty_shard_that_is_refused_is_replaced_and_only_so_often() -> None:
    """As DynamoDB Local refuses it, once other tables were written."""
    for refused, said in ((3, []), (4, [TOO_OLD])):
        stream = Stream(Shard("s1", "", record(1, "old", ago=HOUR)))
        async with Reading(stream) as reading:
            await reading.page()
            stream.shards["s1"].records.append(record(2, "new"))
            stream.errors["get_records"] = [TrimmedStream("x") for _ in range(refused)]
            assert [*await lost(reading, 5)] == said
        stream.shards["s1"].records.append(record(3, "newest"))
        async with Reading(stream, reading.cursor) as again:
            assert "newest" in await again.keys()


async def lost(reading: Reading, pages: int = 6) -> list[str]:
    return [reason for _ in range(pages) for _, reason in (await reading.page()).lost]


def trimmed(stream: Stream) -> None:
    """What the cursor names is over a day old."""
    shard = stream.shards["s1"]
    shard.records += [record(n, f"k{n}") for n in range(100, 104)]
    shard.trimmed_to = len(shard.records) - 1


def gone(stream: Stream) -> None:
    """The shard, of which not everything was read, is no more."""
    stream.shards["s2"] = Shard("s2", "s1", record(200, "in the child"))
    del stream.shards["s1"]


def replaced(stream: Stream) -> None:
    """The stream was switched off and on."""
    stream.arn = "arn 2"
    stream.shards = {"t1": Shard("t1", "", record(300, "in the new stream"))}


async def test_where_records_are_missing_it_says_so_and_reads_from_now_on() -> None:
    """At a start, and while it reads; and said only once the new place is there, so that a verification after it misses
    nothing in between."""
    for break_ in (trimmed, gone, replaced):
        for while_reading in (False, True):
            stream = Stream(Shard("s1", "", record(1, "old"), record(2, "old")))
            async with Reading(stream) as first:
                await first.keys(3)
                stream.shards["s1"].records.append(record(3, "seen"))
                assert await first.keys(4) == ["seen"]
                place = first.cursor
                if while_reading:
                    stream.shards["s1"].records.append(record(4, "and this"))
                    await first.keys(4)
                    stream.expire()
                    break_(stream)
                    said = await lost(first)
                    last = first.cursor
                else:
                    break_(stream)
                    async with Reading(stream, place) as reading:
                        said = await lost(reading)
                        last = reading.cursor
            what = (break_.__name__, while_reading)
            assert len(said) == 1, what
            assert said[0] == TOO_OLD or break_ is replaced, what
            (newest,) = [each for each in stream.shards.values() if not each.ended]
            newest.records.append(record(400, "after it"))
            async with Reading(stream, last) as reading:
                assert "after it" in await reading.keys(), what
                assert reading.last.lost == (), what


async def test_the_loss_is_said_when_the_new_iterators_are_there() -> None:
    stream = Stream(Shard("s1"))
    place = await place_of(stream)
    stream.errors["get_shard_iterator"] = [TrimmedStream("x")]
    stream.asked.clear()
    async with Reading(stream, place) as reading:
        while not (await reading.page()).lost:
            pass
        assert stream.asked == [("s1", "LATEST")]
        stream.shards["s1"].records.append(record(1, "at once"))
        assert await reading.keys(3) == ["at once"]


async def test_a_place_over_a_day_old_is_lost_without_asking() -> None:
    """A shard of which nothing was read yet would silently begin with what is left of it."""
    stream = Stream(Shard("s1"))
    place = await place_of(stream)
    for hours, said in ((22, []), (24, [TOO_OLD])):
        ((_, *others, _, since),) = place["streams"][0]["shards"]
        shard = ["s1", *others, time.time() - hours * HOUR, since]
        aged = {"streams": [{**place["streams"][0], "shards": [shard]}]}
        async with Reading(stream, aged) as reading:
            assert await lost(reading) == said


async def test_what_is_no_place_is_a_loss_of_everything() -> None:
    for place in ({}, {"streams": [{"name": "things"}]}, {"streams": [{"name": "things", "arn": "a", "shards": [1]}]}):
        async with Reading(Stream(Shard("s1")), place) as reading:
            with pytest.raises(HistoryLost):
                await reading.page()


async def test_a_throttled_shard_waits_and_stops_no_other_one_and_the_lag_shows_it() -> None:
    stream = Stream(Shard("s1"), Shard("s2"))
    async with Reading(stream) as reading:
        await reading.page()
        stream.errors["get_records"] = [OperationFailure("slow down", 262)]
        stream.shards["s1"].records.append(record(1, "first"))
        stream.shards["s2"].records.append(record(2, "second"))
        page = await reading.page()
        assert [each.key for each in page.writes] in (["first"], ["second"])
        assert not page.quiet
        assert abs(page.at - time.time()) < 5
        assert len(await reading.keys(3)) == 1
        assert reading.last.quiet


async def test_how_far_behind_it_is_is_the_time_of_the_oldest_record_that_waits() -> None:
    shard = Shard("s1")
    stream = Stream(shard)
    place = await place_of(stream)
    shard.records += [record(n, f"k{n}", ago=50 - n) for n in range(5)]
    async with Reading(stream, place) as reading:
        page = await reading.page()
        assert not page.quiet
        assert 45 < time.time() - page.at < 52
        await reading.keys(5)
        assert reading.last.quiet


def denied(verb: str, request: str) -> Exception:
    answer = {"Error": {"Code": "AccessDeniedException", "Message": ""}, "ResponseMetadata": {"RequestId": request}}
    return translate(ClientError(answer, verb), verb, "p-things")


async def test_a_table_without_a_readable_stream_is_unread_and_its_stream_is_found_when_it_comes() -> None:
    """A right that is missing is named with the next step, in the same words each time it is asked for."""
    stream = Stream(Shard("s1"))
    stream.arn = None
    async with Reading(stream) as reading:
        ((name, reason),) = (await reading.page()).unread
        assert (name, "has no stream" in reason, "shadow tables create" in reason) == ("things", True, True)
        stream.arn, stream.view = "arn 1", "KEYS_ONLY"
        ((_, reason),) = (await reading.page()).unread
        assert "KEYS_ONLY" in reason
        stream.view = "NEW_AND_OLD_IMAGES"
        assert await lost(reading, 1) == [BEGUN], "what was written meanwhile is not known"
        assert reading.last.unread == ()
        for verb in ("get_records", "describe_stream", "describe_table"):
            stream.errors[verb] = [denied(verb, "one"), denied(verb, "two")]
            first, second = (await reading.page()).unread, (await reading.page()).unread
            assert first == second
            ((name, reason),) = first
            for each in (verb, "AccessDeniedException", "the identity lacks dynamodb:", "shadow tables export iam"):
                assert each in reason, verb
            stream.shards["s1"].records.append(record(len(stream.shards["s1"].records) + 1, verb))
            assert await reading.keys(4) == [verb], "and nothing is missing when the right is there again"
            assert reading.last.unread == ()
        stream.arn = None
        page = await reading.page()
        assert [reason for _, reason in page.lost] == ["the stream of its table was switched off, or replaced"]
        assert page.unread


async def test_the_places_of_collections_that_this_process_does_not_have_are_kept() -> None:
    stream = Stream(Shard("s1"))
    place = await place_of(stream)
    other = {"name": "others", "arn": "arn 9", "shards": [["x", "", "7", False, 1.0, 0.0]]}
    async with Reading(stream, {"streams": [*place["streams"], other]}) as reading:
        await reading.page()
        assert other in reading.cursor["streams"]


async def test_another_error_ends_the_reading_and_no_page_is_half() -> None:
    stream = Stream(Shard("s1"))
    place = await place_of(stream)
    stream.shards["s1"].records.append(record(1, "k"))
    stream.errors["get_records"] = [AutoReconnect("gone")]
    async with Reading(stream, place) as reading:
        with pytest.raises(AutoReconnect):
            await reading.page()
    async with Reading(stream, place) as reading:
        assert await reading.keys(3) == ["k"]


class Paced:
    """Reads shards on a clock that nothing but the reader's own pauses moves, and keeps when each was asked. `_SPACING`
    and `_IDLE` are the real ones, whatever the other tests have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: Shard, full: int = 2) -> None:
        self.now = 1000.0
        self.stream = Stream(*found)
        self.stream.size = full
        self.asked: dict[str, list[float]] = {each.id: [] for each in found}
        self.writes: dict[str, float] = {}
        for name, value in {"_SPACING": SPACING, "_IDLE": IDLE, "_PAUSES": PAUSES, "_LIMIT": full}.items():
            monkeypatch.setattr(shards, name, value)
        for module in ("changes", "shards"):
            monkeypatch.setattr(f"shadow.stores.dynamo.stream.{module}.steady", lambda: self.now)
        monkeypatch.setattr(self.stream, "_get_records", self._get_records)

    def _get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:
        self.asked[ShardIterator.split()[0]].append(self.now)
        return Stream._get_records(self.stream, ShardIterator, Limit)

    async def _sleep(self, seconds: float) -> None:
        assert seconds <= 1.0, "each page is a sign of life"
        self.now += max(seconds, 0.001)

    async def run(self, seconds: float, write: Callable[[float], None] = lambda now: None) -> None:
        async def describe(table: str) -> Mapping[str, Any] | None:
            return self.stream.described()

        reader = StreamReader(self.stream, describe, ["things"], lambda name: TABLE, sleep=self._sleep)  # type: ignore[arg-type]
        end = self.now + seconds
        async for page in reader.pages(None):
            self.writes |= {each.key: self.now for each in page.writes}
            if self.now >= end:
                break
            write(self.now)

    def most_in_a_second(self, shard: str) -> int:
        times = self.asked[shard]
        return max(sum(first <= each < first + 1.0 for each in times) for first in times)


async def test_a_shard_that_has_nothing_is_asked_ever_less_and_one_with_records_more_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paced = Paced(monkeypatch, Shard("idle"), Shard("busy"))
    written: dict[str, float] = {}

    def write(now: float) -> None:
        """One record in a second."""
        if len(written) < now - 1000.0:
            key = f"k{len(written)}"
            paced.stream.shards["busy"].records.append(record(len(written) + 1, key))
            written[key] = now

    await paced.run(60.0, write)
    assert 29 <= len(paced.asked["idle"]) <= 34
    assert 75 <= len(paced.asked["busy"]) <= 125
    assert written.keys() - paced.writes.keys() <= {f"k{len(written) - 1}"}
    assert max(paced.writes[key] - written[key] for key in paced.writes) <= IDLE[1]


async def test_the_first_record_after_an_idle_hour_is_told_within_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    paced = Paced(monkeypatch, Shard("s1"))

    def write(now: float) -> None:
        if now >= 4600.3 and not paced.stream.shards["s1"].records:
            assert 1795 <= len(paced.asked["s1"]) <= 1810
            paced.stream.shards["s1"].records.append(record(1, "k"))

    await paced.run(3610.0, write)
    assert 4600.3 <= paced.writes["k"] <= 4602.4


async def test_full_pages_are_read_at_the_pace_that_the_service_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five requests a second and shard, of which one is for another reader; no shard waits for another one."""
    paced = Paced(monkeypatch, Shard("s1"), Shard("s2"), Shard("s3"), full=10)

    def write(now: float) -> None:
        """All at once."""
        for id in ("s1", "s2"):
            shard = paced.stream.shards[id]
            if not shard.records:
                shard.records += [record(number, f"{id} {number}") for number in range(400)]

    await paced.run(12.0, write)
    assert len(paced.writes) == 800
    assert max(paced.writes.values()) <= 1000.0 + 0.5 + 41 * SPACING
    for id in ("s1", "s2"):
        assert paced.most_in_a_second(id) == 4
        assert 41 <= len(paced.asked[id]) <= 50
    assert len(paced.asked["s3"]) <= 9


async def test_a_shard_that_refuses_is_asked_ever_less_while_the_others_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paced = Paced(monkeypatch, Shard("s1"), Shard("s2"))
    answer = paced.stream._get_records

    def refuse(ShardIterator: str, Limit: int) -> dict[str, Any]:
        found = answer(ShardIterator, Limit)
        if ShardIterator.startswith("s1"):
            raise OperationFailure("slow down", 262)
        return found

    monkeypatch.setattr(paced.stream, "_get_records", refuse)
    await paced.run(60.0)
    assert 8 <= len(paced.asked["s1"]) <= 12
    assert 29 <= len(paced.asked["s2"]) <= 34


async def test_a_page_has_some_shards_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held in memory as a whole."""
    monkeypatch.setattr("shadow.stores.dynamo.stream.changes.AT_ONCE", 3)
    stream = Stream(*(Shard(f"s{n}") for n in range(8)))
    async with Reading(stream) as reading:
        for _ in range(3):
            await reading.page()
        for number, shard in enumerate(stream.shards.values()):
            shard.records.append(record(number + 1, shard.id))
        pages = [len((await reading.page()).writes) for _ in range(3)]
    assert pages == [3, 3, 2]


# --- records --------------------------------------------------------------------------------------------------------

INDEXED = CollectionSpec("things", (IndexSpec("by-n", "n", "m"),), expiry=ExpirySpec("at", 60))
Made = Callable[..., dict[str, Any]]


def item(key: Any, state: Version | Tombstone, op: str = "op", **fields: Any) -> dict[str, Any]:
    document = {"_id": key, **fields} if isinstance(state, Version) else None
    return Codec(INDEXED).encode(key_text(key), state, document, op).item


def judged(before: dict[str, Any] | None, after: dict[str, Any] | None, **more: Any) -> TableRecord:
    images = {name: each for name, each in (("OldImage", before), ("NewImage", after)) if each is not None}
    table = CollectionTable("p-things", "db.things", INDEXED, Codec(INDEXED))
    return table_record(table, {"eventID": "e", "dynamodb": {"SequenceNumber": "1", **images}, **more})


FIRST, SECOND = Version("b", 1), Version("b", 2)
PLAIN = {"_id": {"S": "k"}, "n": {"S": "x"}}
PART = {"_id": {"S": "~part"}, "_shadow": {"M": {"k": {"S": "part"}}}, "d": {"B": "AAA="}}


def test_shadows_own_writes_are_none() -> None:
    own = {
        "insert": (None, item("k", FIRST)),
        "insert over a tombstone": (item("k", Tombstone("t")), item("k", FIRST)),
        "update": (item("k", FIRST, n=1), item("k", SECOND, n=2)),
        "several in a transaction": (item("k", FIRST), item("k", Version("b", 4))),
        "update of a document from before": (item("k", Version("", 0)), item("k", Version("", 1))),
        "update of an item from before": (PLAIN, item("k", Version("", 1))),
        "replace": (item("k", Version("b", 7)), item("k", Version("c", 1))),
        "tombstone": (item("k", FIRST), item("k", Tombstone("t"))),
        "another tombstone": (item("k", Tombstone("t")), item("k", Tombstone("u"))),
        "tombstone expires": (item("k", Tombstone("t")), None),
        "index attributes alone": ({**item("k", FIRST, n="x"), "m": {"S": "other"}}, item("k", FIRST, n="x")),
        "part": (None, PART),
        "part deleted": (PART, None),
    }
    assert {name: judged(*images).write for name, images in own.items()} == dict.fromkeys(own)


def test_writes_past_shadow_are_named_and_what_may_be_either_is_not_certain() -> None:
    without = {name: each for name, each in item("k", FIRST, n=1).items() if name != "_shadow"}
    odd = {**item("k", FIRST), "_shadow": {"M": {"b": {"N": "1"}}}}
    past = {
        "insert": ((None, PLAIN), Bypass.INSERTED, True),
        "insert over a tombstone": ((item("k", Tombstone("t")), PLAIN), Bypass.INSERTED, True),
        "a copy of another item": ((None, item("k", SECOND)), Bypass.INSERTED, False),
        "a stamp that nobody has written": ((None, odd), Bypass.INSERTED, True),
        "changed": ((item("k", FIRST, a=1), item("k", FIRST, a=2)), Bypass.CHANGED, True),
        "changed in type": ((item("k", FIRST, a=1), item("k", FIRST, a=1.0)), Bypass.CHANGED, True),
        "changed without stamps": ((PLAIN, {**PLAIN, "n": {"S": "y"}}), Bypass.CHANGED, True),
        "stamp damaged": ((item("k", FIRST), odd), Bypass.CHANGED, True),
        "replaced": ((item("k", FIRST, n=1), without), Bypass.REPLACED, True),
        "an old copy restored": ((item("k", Version("b", 5)), item("k", FIRST, op="older")), Bypass.REPLACED, False),
        "another version": ((item("k", Version("b", 5)), item("k", Version("c", 3))), Bypass.REPLACED, False),
        "another operation": ((item("k", FIRST, op="a"), item("k", FIRST, op="b")), Bypass.CHANGED, False),
        "deleted": ((item("k", FIRST), None), Bypass.DELETED, False),
        "deleted without stamp": ((PLAIN, None), Bypass.DELETED, False),
    }  # fmt: skip
    found = {name: judged(*images).write for name, (images, _, _) in past.items()}
    told = {name: (None, None) if each is None else (each.kind, each.certain) for name, each in found.items()}
    assert told == {name: (kind, certain) for name, (_, kind, certain) in past.items()}


def test_keys_of_every_type_are_read_and_one_that_cannot_be_makes_the_collection_unverified() -> None:
    for key in ("text", "~text", 7, 7.5, ObjectId(), b"\0", dt.datetime(2020, 1, 1), {"a": [1]}):
        write = judged(item(key, FIRST), None).write
        assert write is not None
        assert write.key == key
    damaged = judged(None, {"_id": {"S": "~?nonsense"}, "n": {"N": "1"}})
    assert (damaged.write, damaged.unnamed) == (None, True)


def test_what_dynamodb_deletes_by_itself_is_nobodys_write() -> None:
    """An expired document goes on both stores by the rule of the configuration. Where the store has deleted one by
    another rule, the other store has to follow, but there is no writer to find."""
    service = {"userIdentity": {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}}
    expired = item("k", FIRST, at=dt.datetime(2020, 1, 1))
    assert judged(expired, None, **service).write is None
    by_hand = judged(expired, None).write
    assert by_hand is not None
    assert (by_hand.kind, by_hand.by_store) == (Bypass.DELETED, False)
    other = judged(item("k", FIRST, at=dt.datetime(2999, 1, 1)), None, **service).write
    assert other is not None
    assert (other.kind, other.certain, other.by_store) == (Bypass.DELETED, False, True)
    someone = {"userIdentity": {"Type": "Service", "PrincipalId": "replication.dynamodb.amazonaws.com"}}
    replicated = judged(expired, None, **someone).write
    assert replicated is not None
    assert not replicated.by_store


def test_the_endpoint_of_streams_is_another_one_only_at_aws() -> None:
    cases = {
        None: None,
        "http://localhost:8000": "http://localhost:8000",
        "https://dynamodb.eu-west-1.amazonaws.com": None,
        "https://dynamodb.cn-north-1.amazonaws.com.cn/": None,
        "https://dynamodb.eu-west-1.api.aws": None,
        "http://amazonaws.com.example:8000": "http://amazonaws.com.example:8000",
    }
    assert {url: endpoint_of(url) for url in cases} == cases
