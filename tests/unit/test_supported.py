"""The tables of supported operations say what the code does."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure

from shadow import Collection, UnsupportedOperation
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.mongoql.values.support import Family, Support, entries
from shadow.stores.dynamo.query.plan import KeyPlan, QueryPlan, ScanPlan, UnionPlan, plan
from shadow.stores.dynamo.query.support import How, how
from tests.support.manual import REFUSED_VERBS


def test_every_operator_has_a_word_and_refused_ones_say_so() -> None:
    for entry in entries():
        assert (how(entry) is How.REFUSED) == (entry.status is Support.REFUSED)


def test_what_is_called_native_is_what_the_planner_serves() -> None:
    native = {entry.name for entry in entries() if entry.family is Family.QUERY and how(entry) is How.NATIVE}
    assert native == {"$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$exists", "$and", "$or"}
    spec = CollectionSpec("c", (IndexSpec("i", "a", "b"),))
    for operator in native - {"$and", "$or"}:
        operand = {"$in": ["x"], "$exists": True}.get(operator, "x")
        assert isinstance(plan({"$and": [{"a": "x"}, {"b": {operator: operand}}]}, spec), QueryPlan)
        assert operator not in ("$eq", "$in") or isinstance(plan({"_id": {operator: operand}}, spec), KeyPlan)
    assert isinstance(plan({"$or": [{"_id": "k"}, {"a": "x", "b": {"$gt": "y"}}]}, spec), UnionPlan)
    assert isinstance(plan({"$or": [{"_id": "k"}, {"other": "x"}]}, spec), ScanPlan)


@pytest.mark.parametrize("verb", REFUSED_VERBS)
async def test_a_refused_verb_is_refused_by_name(verb: str) -> None:
    collection = Collection(CollectionSpec("users"), None)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedOperation, match=verb) as refused:
        await getattr(collection, verb)("x")
    assert isinstance(refused.value, OperationFailure)
    assert refused.value.code == 115


def test_a_verb_that_motor_has_and_we_have_not_is_refused_and_no_sub_collection() -> None:
    collection = Collection(CollectionSpec("users"), None)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedOperation, match="map_reduce"):
        _ = collection.map_reduce
