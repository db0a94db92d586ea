"""Spans of an application that has OpenTelemetry with the instrumentations of both stores' clients: on both drivers,
with both stores as the primary, and with both ways of asking DynamoDB, none is lost, doubled or outlives its parent."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from pymongo.errors import DuplicateKeyError

from shadow import Shadow
from shadow.config import Settings
from shadow.control.sqlite import SqliteRecords
from shadow.jobs.backfill import Backfill
from shadow.jobs.jobs import Jobs
from shadow.jobs.work import JobPace, Work
from shadow.traces.spans import ATTRIBUTES
from tests.support import manual
from tests.support.traced import Spans, attributes, id_of, scope_of, traced

DRIVERS = ("pymongo", "motor")
DOCUMENTS = {
    f"DynamoDB.{name}"
    for name in ("GetItem", "BatchGetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "TransactWriteItems")
}
SECRET = "a value of a document"


def settings(site: dict[str, Any], **changed: Any) -> Settings:
    observe = {"holdout": 0.0, "noise_share": 0.0, "canary_every": 3600, **changed.pop("observe", {})}
    defaults = {"phase": "shadow", "forced": "a test", **changed.pop("defaults", {})}
    limits = {
        "settle": 0.05,
        "loop_lag": 0.0,
        "minimum_age": 0.1,
        "write_deadline": 30.0,
        "read_deadline": 30.0,
        **changed.pop("limits", {}),
    }
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


@pytest.mark.slow
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
    works = [each for each in spans.works() if attributes(each)["shadow.work"] != "canary"]
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


def site_of(mongo: str, dynamo: str, name: str, folder: Path, **changed: Any) -> dict[str, Any]:
    usual = {"driver": "pymongo", "primary": "mongo", "requests": "direct"}
    return {"mongo": mongo, "dynamo": dynamo, "database": name, "journal": folder / "journal.db", **usual, **changed}


async def test_what_an_unsampled_call_causes_has_no_span(
    mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    """Nor have the drivers' requests for it, also where the sampler decides by the trace alone, or by the parent."""
    for place, sampler in enumerate((ParentBased(ALWAYS_ON), _ByParentOnly())):
        site = site_of(mongo_url, dynamodb_local_url, f"{fresh_name}{place}", tmp_path / str(place), requests="sdk")
        with traced(sampler) as spans:
            async with Shadow.from_settings(settings(site)) as shadow:
                await shadow.prepare()
                await shadow.get_collection("things").find_one({"_id": "nobody"})
                assert await shadow.settled(30)
                spans.clear()
                unsampled = SpanContext(1 << 100, 1 << 50, is_remote=True, trace_flags=TraceFlags(0))
                token = attach(set_span_in_context(NonRecordingSpan(unsampled)))
                try:
                    await use(shadow.get_collection("things"))
                finally:
                    detach(token)
                assert await shadow.settled(30)
                totals = shadow.admin.metrics_registry.totals()
                assert totals["comparisons"] > 5
            # A planted difference is nobody's, and asks for documents too.
            canaries = {each.context.trace_id for each in spans.works("canary")}
            rest = [each for each in spans.all() if each.context.trace_id not in canaries]
            assert [each.name for each in rest if scope_of(each) == "shadow" or each.name in DOCUMENTS] == []


class _ByParentOnly(Sampler):
    """Samples what has no parent, or a sampled one."""

    def should_sample(self, parent_context: Any, trace_id: int, *rest: Any) -> SamplingResult:
        parent = get_current_span(parent_context).get_span_context()
        sampled = not parent.is_valid or parent.trace_flags.sampled
        return SamplingResult(Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP, rest[2])

    def get_description(self) -> str:
        return "by parent only"


@pytest.mark.takes_turns
async def test_the_sampler_of_the_manual_keeps_the_work_of_the_calls_that_it_keeps(
    mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    """As it stands in the manual: a hundredth of the calls, and all work that they cause."""
    found = re.search(
        r"```python\n(from opentelemetry.sdk.trace.sampling import.*?)```", manual.text("metrics"), re.DOTALL
    )
    assert found is not None
    program: dict[str, Any] = {}
    exec(found[1], program)
    site = site_of(mongo_url, dynamodb_local_url, fresh_name, tmp_path)
    with traced(sampler=program["sampler"], instrumented=False) as spans:
        async with Shadow.from_settings(settings(site)) as shadow:
            await shadow.prepare()
            assert await shadow.settled(30)
            spans.clear()
            for number in range(600):
                await shadow["things"].insert_one({"_id": number})
            assert await shadow.settled(60)
        calls = [each for each in spans.calls() if each.name == "insert_one things"]
        works = spans.works("replicate")
    # By chance 6; none at all, or 60, once in hundreds of runs, or never.
    assert len(calls) < 60
    known = {id_of(each) for each in calls}
    linked = [{link.context.span_id for link in each.links} for each in works]
    assert set().union(*linked) == known, "the work of each call that is kept"
    assert all(linked), "and of no other"


async def test_a_mismatch_leads_to_its_trace(
    mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the finding, in the log, on the span of the probe, and in the exposition."""
    site = site_of(mongo_url, dynamodb_local_url, fresh_name, tmp_path)
    with traced(instrumented=False) as spans, caplog.at_level("WARNING", "shadow"):
        async with Shadow.from_settings(settings(site, observe={"trace_statements": True})) as shadow:
            await shadow.prepare()
            things = shadow.get_collection("things")
            await things.insert_one({"_id": "a", "n": 1})
            assert await shadow.settled(30)
            await shadow._engine.driver()["things"].update_one({"_id": "a"}, {"$set": {"n": 2}})  # past it
            with spans.tracer.start_as_current_span("GET /a") as request:
                await things.find_one({"_id": "a"})
            assert await shadow.settled(30)
            (found,) = await shadow.admin.shared_findings.list()
            text, _ = shadow.admin.metrics_registry.render("application/openmetrics-text")
            plain, _ = shadow.admin.metrics_registry.render()
    trace_id = f"{request.get_span_context().trace_id:032x}"
    assert found["first_trace"] == trace_id
    (probe,) = [each for each in spans.works("shadow_read") if "shadow.mismatch" in attributes(each)]
    assert attributes(probe)["shadow.verdict"] == "mismatch"
    assert attributes(probe)["shadow.attempt"] > 1
    (line,) = [json.loads(each.message) for each in caplog.records if "mismatch.confirmed" in each.message]
    assert line["caused_by"] == trace_id
    assert line["trace_id"] == f"{probe.context.trace_id:032x}"
    exposed = text.decode().splitlines()
    assert any("shadow_mismatches_total" in each and line["trace_id"] in each for each in exposed)
    assert any("shadow_operation_seconds_bucket" in each and trace_id in each for each in exposed)
    assert "trace_id" not in plain.decode()
    (call,) = [each for each in spans.calls() if each.parent is not None]
    assert attributes(call)["db.query.text"] == 'find_one {"_id": "?"}'


async def test_an_error_has_its_class_and_code_and_no_text(
    mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    with traced(instrumented=False) as spans:
        for primary in ("mongo", "dynamo"):
            site = site_of(mongo_url, dynamodb_local_url, f"{fresh_name}{primary}", tmp_path / primary, primary=primary)
            async with Shadow.from_settings(settings(site)) as shadow:
                await shadow.prepare()
                await shadow.get_collection("things").insert_one({"_id": SECRET})
                spans.clear()
                with pytest.raises(DuplicateKeyError):
                    await shadow.get_collection("things").insert_one({"_id": SECRET})
                call = next(each for each in spans.calls() if each.name == "insert_one things")
                for each in (call, *spans.requests(call)):
                    assert each.status.status_code is StatusCode.ERROR, primary
                    assert attributes(each)["error.type"] == "pymongo.errors.DuplicateKeyError"
                    assert attributes(each)["db.response.status_code"] == "11000"
                    assert SECRET not in repr((each.attributes, each.events, each.status.description))


async def test_a_write_that_waits_keeps_its_link_and_the_rest_of_a_cancelled_call_is_work(
    mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    site = site_of(mongo_url, dynamodb_local_url, fresh_name, tmp_path)
    limits = {"recover_every": 0.05}
    with traced(instrumented=False) as spans:
        async with Shadow.from_settings(settings(site, limits=limits)) as shadow:
            await shadow.prepare()
            things = shadow.get_collection("things")
            await things.insert_one({"_id": "a"})
            assert await shadow.settled(30)
            spans.clear()
            store = shadow._engine.runtime().stores["dynamo"]
            replay, store.replay = store.replay, _failing
            await things.update_one({"_id": "a"}, {"$set": {"n": 1}})
            while not any("shadow.deferred" in attributes(each) for each in spans.works("replicate")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            store.replay = replay
            assert await shadow.settled(30)
            (call,) = [each for each in spans.calls() if each.name == "update_one things"]
            healed = [each for each in spans.works("heal") if attributes(each).get("shadow.healing") == "copied"]
            assert [link.context.span_id for link in healed[0].links] == [id_of(call)]
            # Cancelled while the primary makes it: its spans end with the caller, who waits for nothing more.
            task = asyncio.ensure_future(things.update_many({}, {"$set": {"n": 2}}))
            await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await shadow.settled(30)
        spans.check()


async def _failing(*arguments: Any) -> None:
    raise ConnectionError


async def test_the_steps_of_a_job_are_linked_to_the_call_that_started_it(
    mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    site = site_of(mongo_url, dynamodb_local_url, fresh_name, tmp_path, requests="sdk")
    with traced() as spans:
        async with Shadow.from_settings(settings(site)) as shadow:
            await shadow.prepare()
            things = shadow.get_collection("things")
            await things.insert_many([{"_id": f"m{i}"} for i in range(3)])
            assert await shadow.settled(30)
            spans.clear()
            with contextlib.closing(SqliteRecords(tmp_path / "jobs.db")) as records:
                records.prepare()
                with spans.tracer.start_as_current_span("POST /jobs") as request:
                    work = Work(Backfill(shadow.admin.sides("things")), Jobs(records), JobPace(workers=1))
                    assert (await work.run()).outcome == "complete"
        spans.check(direct=True)  # the caller waits for what lays out the job
        steps = spans.works("backfill")
        assert {attributes(each)["db.operation.name"] for each in steps} == {"scan", "batch", "conclude"}
        assert {link.context.span_id for each in steps for link in each.links} == {id_of(request)}
        batches = [each for each in steps if attributes(each)["db.operation.name"] == "batch"]
        assert sum(attributes(each)["db.operation.batch.size"] for each in batches) == 3
        assert {attributes(each)["shadow.job"] for each in batches} == {work.job_id}


async def test_the_end_of_a_transaction_has_a_span_and_what_it_made_visible_is_linked_to_it(
    replica_set_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    for primary, driver in (("mongo", "motor"), ("mongo", "pymongo"), ("dynamo", "pymongo")):
        name = f"{fresh_name}{primary}{driver}"
        chosen = {"primary": primary, "driver": driver}
        site = site_of(replica_set_url, dynamodb_local_url, name, tmp_path / name, **chosen)
        with traced() as spans:
            async with Shadow.from_settings(settings(site)) as shadow:
                await shadow.prepare()
                things = shadow["things"]
                await things.insert_one({"_id": "a", "n": 1})
                assert await shadow.settled(30)
                spans.clear()
                begun = shadow.client.start_session()
                async with await begun if inspect.isawaitable(begun) else begun as session:

                    async def work(session: Any) -> None:
                        await things.update_one({"_id": "a"}, {"$inc": {"n": 1}}, session=session)  # noqa: B023
                        await things.insert_one({"_id": SECRET}, session=session)  # noqa: B023

                    with spans.tracer.start_as_current_span("POST /commit") as request:
                        await session.with_transaction(work)
                    with pytest.raises(LookupError):
                        await session.with_transaction(aborting(things))
                assert await shadow.settled(30)
        _check_ends(spans, primary, id_of(request))


def aborting(things: Any) -> Any:
    async def work(session: Any) -> None:
        await things.delete_one({"_id": "a"}, session=session)
        raise LookupError

    return work


def _check_ends(spans: Spans, primary: str, request: int) -> None:
    spans.check()
    ends = {each.name: each for each in spans.calls() if each.name.endswith("_transaction")}
    assert set(ends) == {"commit_transaction", "abort_transaction"}
    commit, abort = ends["commit_transaction"], ends["abort_transaction"]
    assert commit.parent is not None
    assert commit.parent.span_id == request
    assert abort.parent is None
    system = {"mongo": "mongodb", "dynamo": "aws.dynamodb"}[primary]
    for each in (commit, abort):
        assert each.status.status_code is not StatusCode.ERROR
        assert attributes(each) == {"db.operation.name": each.name, "db.system.name": system}
    (asked,) = spans.requests(commit)
    assert asked.name == f"commit_transaction on {primary}"
    assert attributes(asked)["shadow.role"] == "primary"
    # A buffered transaction that is aborted has sent nothing.
    assert len(spans.requests(abort)) == (primary == "mongo")
    if primary == "mongo":
        assert spans.children(asked)  # of the driver
    works = spans.works("replicate")
    assert len(works) == 2
    assert {link.context.span_id for each in works for link in each.links} == {id_of(commit)}
