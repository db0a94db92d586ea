"""The budget of an expression: what there is room for is taken, and what is not leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest

from shadow.model.operation import Update
from shadow.model.schema import CollectionSpec
from shadow.model.version import Version
from shadow.stores.dynamo.client.limits import EXPANDED, ITEM_LIMIT, OPERATORS, TEXT, Budget, at_most, operators
from shadow.stores.dynamo.items.codec import Codec
from shadow.stores.dynamo.items.expressions import Expression
from shadow.stores.dynamo.query.plan import ScanPlan, plan
from shadow.stores.dynamo.query.reads import CollectionTable, scan_request
from shadow.stores.dynamo.write.direct import direct_request
from tests.support.cases import each_of

SPEC = CollectionSpec("c")
TABLE = CollectionTable("c", "db.c", SPEC, Codec(SPEC))


@each_of(
    ("text", "count"),
    [
        ("", 0),
        ("#n0 = :v0", 1),
        ("#n0.#n1 >= :v0 AND attribute_not_exists(#n2)", 3),
        ("(#n0 BETWEEN :v0 AND :v1 OR NOT attribute_type(#n0, :v2))", 5),
        ("SET #n0 = #n0 + :v0, #n1 = if_not_exists(#n1, :v1)", 4),
        ("#n0 <> :v0", 1),
    ],
)
def test_operators_are_counted(text: str, count: int) -> None:
    """Comparators, words and functions; never placeholders. No fewer than DynamoDB counts."""
    assert operators(text) == count


def test_a_part_without_room_leaves_no_name_and_no_value() -> None:
    """So that the parts after it may still fit."""
    expression, budget = Expression(), Budget(text=40, operators=2)

    def equal(name: str, value: str) -> Any:
        return lambda made: f"{made.path(name)} = {made.value({'S': value})}"

    assert expression.attempt(budget, equal("a", "x"), " AND ") == "#n0 = :v0"
    assert expression.attempt(budget, equal("b", "y"), " AND ") == ""
    assert budget == Budget(text=26, operators=0)
    assert expression.attempt(Budget(), equal("c", "x" * (EXPANDED + 1))) == ""
    assert expression.attempt(Budget(), equal("d", "z")) == "#n1 = :v1"
    made = expression.parameters(FilterExpression="#n0 = :v0 AND #n1 = :v1")
    assert made["ExpressionAttributeNames"] == {"#n0": "a", "#n1": "d"}
    assert made["ExpressionAttributeValues"] == {":v0": {"S": "x"}, ":v1": {"S": "z"}}


def test_an_expression_over_a_limit_is_never_sent() -> None:
    """A place that makes one without asking is a fault of the library's, found by any test that gets there."""
    for text in ("a" * (TEXT + 1), " AND ".join(["a = b"] * (OPERATORS // 2 + 1))):
        assert not Expression().fits(text)
        with pytest.raises(ValueError, match="FilterExpression"):
            Expression().parameters(FilterExpression=text)
    assert Expression().fits("a" * TEXT, " AND ".join(["a = b"] * (OPERATORS // 2)))


def test_a_scan_takes_the_equalities_first_and_leaves_the_rest() -> None:
    """They leave the fewest documents."""
    filter = {**{f"f{n}": {"$gte": n} for n in range(100)}, "last": 5, "text": "x" * (ITEM_LIMIT + 1)}
    found = plan(filter, SPEC)
    assert isinstance(found, ScanPlan)
    assert len(found.pushed) == 101
    request = scan_request(TABLE, found)
    assert len(request["FilterExpression"]) <= TEXT
    names = set(request["ExpressionAttributeNames"].values())
    assert {"last", "f0", "f20"} <= names
    assert "f99" not in names


def test_an_update_in_one_round_trip_is_only_made_where_it_fits() -> None:
    """Else the general way is taken at once, and nothing is sent in vain."""
    for size, fits in ((1_000, True), (EXPANDED // 20, False)):
        update = {"$set": {f"f{n}": "x" * size for n in range(25)}}
        request = direct_request(TABLE, "k", Update("k", {"_id": "k"}, update, "b"), "op", Version("b", 1))
        assert (request is not None) is fits


@pytest.mark.parametrize(("items", "limit"), [(0, {}), (1, {"Limit": 1}), (9_999, {"Limit": 9_999}), (2**31, {})])
def test_a_window_of_any_size_is_a_limit_that_dynamodb_takes(items: int, limit: dict[str, int]) -> None:
    assert at_most(items) == limit
