"""The operators that a real mongod knows, by its own counters: what is not supported on DynamoDB is listed here, so
that nothing is missed."""

from __future__ import annotations

from typing import Any, Final

import pymongo

from shadow.mongoql.values.support import TABLE, Family, Support
from tests.support.topologies import root_url

REPORTS: Final = {
    "$changeStream", "$changeStreamSplitLargeEvent", "$collStats", "$currentOp", "$indexStats",
    "$listCachedAndActiveUsers", "$listCatalog", "$listClusterCatalog", "$listLocalSessions", "$listSampledQueries",
    "$listSearchIndexes", "$listSessions", "$mergeCursors", "$operationMetrics", "$planCacheStats", "$queryStats",
    "$queue", "$setVariableFromSubPipeline", "$shardedDataDistribution", "$documents",
}  # fmt: skip
"""Stages about the deployment, or of the server's own making."""
LEFT: Final[dict[Family, set[str]]] = {
    Family.STAGE: {*REPORTS, "$geoNear", "$search", "$searchMeta", "$vectorSearch", "$rankFusion"},
    Family.EXPRESSION: {
        "$function", "$meta", "$toHashedIndexKey", "$toUUID", "$bitAnd", "$bitNot", "$bitOr", "$bitXor",
        "$median", "$percentile",
    },
    Family.QUERY: {"$geoIntersects", "$geoWithin", "$near", "$nearSphere", "$text", "$where"},
    Family.ACCUMULATOR: {"$accumulator", "$median", "$percentile"},
    Family.WINDOW: {"$median", "$percentile", "$minMaxScaler"},
}  # fmt: skip


def test_every_operator_of_the_server_is_supported_or_listed(mongo_url: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        metrics = client["admin"].command("serverStatus")["metrics"]
    counters = metrics["operatorCounters"]
    known = {
        Family.STAGE: metrics["aggStageCounters"],
        Family.EXPRESSION: counters["expressions"],
        Family.QUERY: counters["match"],
        Family.ACCUMULATOR: counters["groupAccumulators"],
        Family.WINDOW: counters["windowAccumulators"],
    }
    for family, names in known.items():
        own = {name for name in names if not name.startswith("$_")}
        assert len(own) > 10, family
        missing = {name for name in own if name not in TABLE[family] or TABLE[family][name].status is Support.REFUSED}
        assert missing <= LEFT[family], (family, missing - LEFT[family])
