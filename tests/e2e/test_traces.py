"""Spans of an application that has OpenTelemetry with the instrumentations of both stores' clients: on both drivers,
with both stores as the primary, and with both ways of asking DynamoDB, none is lost, doubled or outlives its parent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from shadow import Shadow
from shadow.config import Settings
from shadow.traces.spans import ATTRIBUTES
from tests.support.traced import Spans, attributes, id_of, scope_of, traced

DRIVERS = ("pymongo", "motor")
SECRET = "a value of a document"


def settings(site: dict[str, Any], **changed: Any) -> Settings:
    observe = {"holdout": 0.0, "noise_share": 0.0, "canary_every": 3600, **changed.pop("observe", {})}
    defaults = {"phase": "shadow", "forced": "a test", **changed.pop("defaults", {})}
    limits = {"settle": 0.05, "loop_lag": 0.0, "minimum_age": 0.1, **changed.pop("limits", {})}
    return Settings(
        mongo={"url": site["mongo"], "database": site["database"], "driver": site["driver"]},
        dynamo={
            "endpoint_url": site["dynamo"],
            "table_prefix": site["database"],
            "access_key_id": "local",
            "secret_access_key": "local",
            "requests": site["requests"],
        },
        journal={"url": f"sqlite:///{site['journal']}"},
        observe=observe,
        defaults={"primary": site["primary"], **defaults},
        limits=limits,
        collections={"things": {}},
        **changed,
    )


async def use(things: Any) -> list[str]:
    """Calls of an application; the names of the spans that they must have, one each."""
    await things.insert_one({"_id": "a", "text": SECRET, "n": 1})
    await things.insert_many([{"_id": f"m{i}", "n": i} for i in range(5)])
    await things.find_one({"_id": "a"})
    await things.find_one({"n": 3})
    await things.find({"n": {"$gte": 1}}).sort("n", 1).to_list(None)
    async for _ in things.find({"text": SECRET}):
        pass
    await things.update_one({"_id": "a"}, {"$set": {"text": f"{SECRET} too"}})
    await things.update_one({"n": 4}, {"$inc": {"n": 10}})
    await things.update_many({"n": {"$lt": 3}}, {"$inc": {"n": 1}})
    await things.find_one_and_update({"_id": "m1"}, {"$set": {"x": 1}})
    await things.replace_one({"_id": "m2"}, {"y": 2})
    await things.count_documents({"n": 1})
    await things.distinct("n")
    made = things.aggregate([{"$match": {"n": {"$gt": 0}}}, {"$sort": {"n": 1}}])
    await made.to_list(None)
    await things.delete_one({"_id": "m3"})
    await things.delete_many({"n": 14})
    return [
        "insert_one", "insert_many", "find_one", "find_one", "find", "find", "update_one", "update_one", "update_many",
        "find_one_and_update", "replace_one", "count_documents", "distinct", "aggregate", "delete_one", "delete_many",
    ]  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
async def test_no_span_is_lost_doubled_or_outlives_its_parent(
    driver: str, mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    for place, (primary, requests) in enumerate([(p, r) for p in ("mongo", "dynamo") for r in ("direct", "sdk")]):
        site = {
            "mongo": mongo_url, "dynamo": dynamodb_local_url, "driver": driver, "primary": primary,
            "requests": requests, "database": f"{fresh_name}{place}", "journal": tmp_path / f"{place}.db",
        }  # fmt: skip
        with traced() as spans:
            async with Shadow.from_settings(settings(site)) as shadow:
                await shadow.prepare()
                await shadow.get_collection("things").find_one({"_id": "nobody"})
                assert await shadow.settled(30)
                spans.clear()
                with spans.tracer.start_as_current_span("GET /things") as request:
                    names = await use(shadow.get_collection("things"))
                assert await shadow.settled(30)
                _check(spans, names, primary, requests, id_of(request))
            spans.check()


def _check(spans: Spans, names: list[str], primary: str, requests: str, request: int) -> None:
    where = f"{primary}, {requests}"
    spans.check()
    calls = spans.calls()
    assert [each.name for each in sorted(calls, key=lambda each: each.start_time)] == [f"{n} things" for n in names]
    system = {"mongo": "mongodb", "dynamo": "aws.dynamodb"}
    for call in calls:
        told = attributes(call)
        assert call.kind is SpanKind.CLIENT
        assert call.parent is not None
        assert call.parent.span_id == request
        assert told["db.system.name"] == system[primary]
        assert told["db.collection.name"] == "things"
        assert told["db.namespace"]
        assert "db.query.text" not in told
        asked = spans.requests(call)
        assert asked, f"{where}: {call.name} asks no store"
        for each in asked:
            assert attributes(each)["db.system.name"] == system[primary], where
            assert attributes(each)["shadow.role"] == "primary"
        below = [under.name for each in asked for under in spans.children(each)]
        of_driver = primary == "mongo" or requests == "sdk"
        assert bool(below) is of_driver, (where, call.name, below)
        if call.name in ("find_one things", "insert_one things"):
            assert len(below) == of_driver, (where, call.name, below)
    # Whatever the trace of the request holds is the request's, and on the primary.
    of_request = [each for each in spans.all() if each.context.trace_id == calls[0].context.trace_id]
    works = spans.works()
    assert {"replicate", "shadow_read"} <= {attributes(each)["shadow.work"] for each in works}
    assert not {id_of(each) for each in works} & {id_of(each) for each in of_request}
    known = {id_of(each) for each in calls}
    for work in works:
        told = attributes(work)
        assert work.links, (where, work.name)
        assert {link.context.span_id for link in work.links} <= known
        assert told["shadow.role"] == "secondary"
        assert told["shadow.store"] == ("dynamo" if primary == "mongo" else "mongo")
        assert told["shadow.attempt"] >= 1
        assert {"shadow.verdict", "shadow.deferred", "shadow.healing"} & set(told), (where, work.name, told)
    for each in spans.all():
        if scope_of(each) == "shadow":
            assert {name for name in attributes(each) if name.startswith("shadow.")} <= ATTRIBUTES
            assert SECRET not in repr((each.name, each.attributes, each.events, each.status.description))
    assert all(each.status.status_code is not StatusCode.ERROR for each in calls)
