"""An index of a dotted path is refused by name, whichever way it comes: nothing would ever be found through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from shadow.client import Shadow
from shadow.config import Settings, load, parse
from shadow.errors import ConfigurationError
from shadow.model.index_gaps import Loss, gaps_of
from shadow.model.operation import Query
from shadow.model.schema import CollationSpec, CollectionSpec, IndexSpec, UniqueSpec
from shadow.stores.dynamo.query.plan import ScanPlan, plan, suggestion
from shadow.surface.indexing.indexes import wanted

INDEXES: list[dict[str, Any]] = [
    {"name": "by-email", "hash": "profile.email"},
    {"name": "by-email", "hash": "user", "range": "profile.email"},
    {"name": "by-email", "hash": ["user", "profile.email"]},
]


def flow(index: dict[str, Any]) -> str:
    """As YAML in one line."""
    hash = index["hash"] if isinstance(index["hash"], str) else f"[{', '.join(index['hash'])}]"
    more = f", range: {index['range']}" if "range" in index else ""
    return f"collections: {{users: {{indexes: [{{name: {index['name']}, hash: {hash}{more}}}]}}}}"


@pytest.mark.parametrize("index", INDEXES)
def test_no_way_of_configuring_takes_it(index: dict[str, Any], tmp_path: Path) -> None:
    """A file, text, settings made in code, a client made from a file, and the description that the stores take."""
    path = tmp_path / "shadow.yaml"
    path.write_text(flow(index))
    for read in (lambda: load(path, {}), lambda: parse(flow(index), {}), lambda: Shadow.from_file(path)):
        with pytest.raises(ConfigurationError, match="top-level field"):
            read()
    with pytest.raises(pydantic.ValidationError, match="top-level field"):
        Settings.model_validate({"collections": {"users": {"indexes": [index]}}})
    several = () if isinstance(index["hash"], str) else tuple(index["hash"])
    with pytest.raises(ValueError, match=r"profile\.email is a path"):
        IndexSpec("by-email", "_shadow_by" if several else index["hash"], index.get("range"), several)


def test_create_index_makes_one_on_mongodb_alone_and_nothing_suggests_one() -> None:
    """What it says to write into the configuration is what the configuration would take."""
    asked = wanted(CollectionSpec("users"), (("profile.email", 1),), {})
    assert asked.plain
    assert not asked.declared
    (gap,) = gaps_of([asked.raw], CollectionSpec("users"))
    assert (gap.loss, "top level" in gap.advice) == (Loss.SPEED, True)
    assert suggestion(Query({"profile.email": "a"})) == ""
    spec = CollectionSpec("users", (IndexSpec("profile-index", "profile"),))
    assert isinstance(plan({"profile.email": "a"}, spec), ScanPlan)


def test_the_advice_about_a_unique_index_with_a_collation_closes_the_gap() -> None:
    raw = {"name": "email", "key": {"email": 1}, "unique": True, "collation": {"locale": "en", "strength": 2}}
    (gap,) = gaps_of([raw], CollectionSpec("users", (), (UniqueSpec("email", ("email",)),)))
    assert gap.loss is Loss.ANSWERS
    assert "{name: email, fields: [email], collation: {locale: en, strength: 2}}" in gap.advice
    spec = CollectionSpec("users", (), (UniqueSpec("email", ("email",), collation=CollationSpec("en", 2)),))
    assert gaps_of([raw], spec) == ()
    (other,) = gaps_of([{**raw, "collation": {"locale": "de", "strength": 2}}], spec)
    assert "plain unique index" in other.advice
