"""What indexes and recorded queries become."""

from __future__ import annotations

from typing import Any

from shadow.assess.design import Design, MongoIndex, design, pruned, read_index
from shadow.assess.measure import Meter
from shadow.assess.model import KeyReport
from shadow.assess.queries import ReadVerb, Recorded, gather
from shadow.model.operation import Query
from shadow.model.schema import CollationSpec, CollectionSpec, IndexSpec, UniqueSpec
from shadow.stores.dynamo.client.settings import is_table_name
from tests.support.cases import each_of


def index(*keys: tuple[str, Any], **options: Any) -> MongoIndex:
    name = "_".join(f"{path}_{way}" for path, way in keys)
    return read_index({"name": name, "key": dict(keys), **options}, {})


def made(*indexes: MongoIndex, queries: list[Query] | None = None, given: CollectionSpec | None = None) -> Design:
    shapes = gather(Recorded("c", ReadVerb.FIND, query) for query in queries or [])
    return design("c", indexes, shapes, given or CollectionSpec("c"), "_shadow")


def specs(found: Design) -> list[tuple[str | tuple[str, ...], str | None]]:
    return [(each.fields or each.hash, each.range) for each in found.spec.indexes]


ENGLISH = {"locale": "en", "caseLevel": False, "strength": 2, "version": "57.1"}
"""As `listIndexes` shows it."""
ID = index(("_id", 1))


def test_a_plain_index_is_one_of_the_table_and_that_of_the_key_none() -> None:
    found = made(ID, index(("email", 1)), index(("org", 1), ("at", -1)))
    assert found.spec.indexes == (IndexSpec("email-index", "email"), IndexSpec("org_at-index", "org", "at"))
    assert found.spec.unique == ()


def test_an_index_that_another_one_serves_is_not_made_twice() -> None:
    found = made(index(("a", 1)), index(("a", 1), ("b", 1)), index(("a", -1), ("b", -1)), index(("b", "hashed")))
    assert specs(found) == [("a", "b"), ("b", None)]
    assert [each.text for each in found.became if each.spec is None] == ["served by a_b-index", "served by a_b-index"]


def test_a_unique_index_becomes_a_constraint_under_its_own_name_and_an_index_to_find_by() -> None:
    found = made(
        index(("email", 1), unique=True),
        index(("a.b", 1), ("c", 1), unique=True, sparse=True),
        index(("name", 1), unique=True, collation=ENGLISH),
    )
    assert found.spec.unique == (
        UniqueSpec("email_1", ("email",)),
        UniqueSpec("a.b_1_c_1", ("a.b", "c"), sparse=True),
        UniqueSpec("name_1", ("name",), collation=CollationSpec("en", 2)),
    )
    assert specs(found) == [("email", None), ("name", None)]


def test_a_constraint_that_the_configuration_has_is_not_suggested_twice() -> None:
    """Its index on MongoDB may have the constraint's name, as shadow makes it, or another one."""
    given = CollectionSpec("c", unique=(UniqueSpec("email-unique", ("email",)), UniqueSpec("n_1", ("n",), sparse=True)))
    found = made(index(("email", 1), unique=True), index(("n", 1), unique=True), given=given)
    assert found.spec.unique == given.unique
    assert [each.text for each in found.became[2:]] == [
        "unique constraint email-unique and index email-index: hash email",
        "unique constraint n_1 and index n-index: hash n",
    ]


def test_no_constraint_has_the_name_of_another_one_or_of_an_index() -> None:
    given = CollectionSpec("c", (IndexSpec("email-index", "email"),), (UniqueSpec("a_1", ("b",)),))
    found = made(
        index(("a", 1), unique=True), index(("email", 1), unique=True, name="email-index"),
        index(("n", 1), unique=True, name="n-index"), given=given,
    )  # fmt: skip
    assert [each.name for each in found.spec.unique] == ["a_1", "a_1-2", "email-index-2", "n-index"]
    assert [each.name for each in found.spec.indexes] == ["email-index", "a-index", "n-index-2"]
    assert [each.text for each in found.became[2:]] == [
        "unique constraint a_1-2 and index a-index: hash a",
        "unique constraint email-index-2, served by email-index",
        "unique constraint n-index and index n-index-2: hash n",
    ]


@each_of(
    ("given", "warning", "indexed"),
    [
        (index(("t", "text")), "text queries", False),
        (index(("where", "2dsphere"), ("a", 1)), "geo queries", False),
        (index(("$**", 1)), "names its fields", False),
        (index(("at", 1), expireAfterSeconds=60), "TTL", False),
        (index(("a.b", 1)), "at the top level", False),
        (index(("a", 1), collation={"locale": "de"}), "compares bytes", True),
        (index(("a", 1), unique=True, partialFilterExpression={"a": {"$gt": "hunter2"}}), "no constraint", True),
        (index(("a", 1), unique=True, collation={"locale": "de"}), "no counterpart", True),
        (index(("a", 1), ("b", 1), ("c", 1)), "c: checked after reading", True),
    ],
)
def test_what_is_not_as_before_is_said(given: MongoIndex, warning: str, indexed: bool) -> None:
    found = made(given)
    (became,) = found.became
    assert warning in became.warning
    assert (became.spec is not None) == indexed
    assert found.spec.unique == ()
    assert "hunter2" not in repr(became)


def test_a_text_index_is_told_by_its_fields() -> None:
    raw = {"name": "t", "key": {"_fts": "text", "_ftsx": 1}, "weights": {"title": 1, "body": 2}}
    assert read_index(raw, {"t": 5}) == MongoIndex("t", (("title", "text"), ("body", "text")), uses=5)


def test_fields_that_queries_always_fix_together_are_one_hash() -> None:
    three = index(("tenant", 1), ("kind", 1), ("at", 1))
    together = [Query({"tenant": 1, "kind": 2}), Query({"tenant": 1, "kind": 2, "at": {"$gt": "x"}})]
    assert specs(made(three, queries=together)) == [(("tenant", "kind"), "at")]
    assert specs(made(three, queries=[*together, Query({"tenant": 1})])) == [("tenant", "kind")]
    assert specs(made(three)) == [("tenant", "kind")]


def test_a_query_that_would_scan_gets_the_index_that_it_wants() -> None:
    found = made(index(("a", 1)), queries=[Query({"city": "x"}, sort=(("at", 1),)), Query({"a": 1}), Query({"x.y": 1})])
    assert specs(found) == [("a", None), ("city", "at")]
    assert specs(made(queries=[Query({"city": "x"}), Query({"city": "x"}, sort=(("at", 1),))])) == [("city", None)]


def test_what_the_configuration_has_stays_as_it_is() -> None:
    given = CollectionSpec("c", (IndexSpec("mine", "email"),), (UniqueSpec("u", ("email",)),))
    found = made(index(("email", 1)), index(("email", 1), ("at", 1)), given=given)
    assert found.spec.indexes[0] == IndexSpec("mine", "email")
    assert found.spec.unique == given.unique
    report = KeyReport("email", 2048, 0, 0, 0, 500, {}, {}, 0)
    left = pruned(found, {"email": report, "at": report}, {})
    assert left.spec.indexes == (IndexSpec("mine", "email"),)


def test_shadows_own_index_is_none_of_the_applications() -> None:
    assert made(read_index({"name": "_shadow_ttl", "key": {"_shadow.x": 1}, "expireAfterSeconds": 0}, {})).became == ()


def test_names_of_indexes_are_what_a_table_takes_and_differ() -> None:
    found = made(index(("größe", 1)), index(("gr__e", 1)), index(("grä_e", 1)))
    names = [each.name for each in found.spec.indexes]
    assert names == ["gr__e-index", "gr__e-index-2", "gr__e-index-2-2"]
    assert all(map(is_table_name, names))
    assert not any(map(is_table_name, ["ab", "a b", "ä" * 5, "x" * 256]))


def metered(spec: CollectionSpec, documents: list[dict[str, Any]]) -> tuple[dict[str, KeyReport], dict[str, Any]]:
    meter = Meter(spec)
    for place, each in enumerate(documents):
        meter.add({"_id": place, **each}, 0)
    keys = {report.path: report for report in meter.key_reports()}
    return keys, {name: (tally.total, tally.share) for name, tally in meter.tallies.items()}


def test_an_index_over_lists_or_over_one_value_is_left_out_with_the_reason() -> None:
    wished = made(index(("tags", 1)), index(("state", 1), unique=True), index(("name", 1)))
    documents = [{"tags": [n], "state": "done" if n % 4 else str(n), "name": str(n)} for n in range(400)]
    left = pruned(wished, *metered(wished.spec, documents))
    assert specs(left) == [("name", None)]
    assert [each.warning for each in left.became[:2]] == [
        "no index is suggested: tags is mostly a list, and all lists share one partition",
        "no index is suggested: one value of state is in 75% of it",
    ]
    assert left.spec.unique == wished.spec.unique, "a constraint holds all the same"
    few = pruned(wished, *metered(wished.spec, documents[:50]))
    assert specs(few) == [("state", None), ("name", None)], "fifty documents say nothing of frequency"


def test_a_table_gets_no_more_indexes_than_it_can_have() -> None:
    wished = made(*(index((f"f{n}", 1)) for n in range(25)))
    left = pruned(wished, *metered(wished.spec, [{}]))
    assert len(left.spec.indexes) == 20
    assert left.became[-1].warning.endswith("a table has at most 20 indexes")
