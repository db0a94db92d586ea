"""What a collection is judged by, from what the server says of it alone."""

from __future__ import annotations

from typing import Any

from shadow.errors import UnsupportedOperation
from shadow.stores.mongo.kinds import (
    REASONS,
    ListedCollection,
    Special,
    UnfitKind,
    judge_client,
    judge_collection,
    judge_name,
)
from shadow.stores.mongo.shard_keys import ShardKey
from tests.support.cases import each_of
from tests.support.kinds import PLAIN, REFUSED


@each_of("special", REFUSED)
def test_an_option_that_makes_it_another_kind_is_found(special: Special) -> None:
    found = judge_collection(ListedCollection("things", options=REFUSED[special]), "_shadow")
    assert found is not None
    assert found.special is special


@each_of("kind", PLAIN)
def test_what_both_stores_can_hold_passes(kind: str) -> None:
    assert judge_collection(ListedCollection("things", options=PLAIN[kind]), "_shadow") is None


@each_of(
    ("raw", "special"),
    [
        ({"name": "v", "type": "view", "options": {}}, Special.VIEW),
        ({"name": "t", "type": "timeseries", "options": {}}, Special.TIME_SERIES),
        ({"name": "system.buckets.t", "type": "collection", "options": {"timeseries": {}}}, Special.SYSTEM),
        ({"name": "c", "options": {"capped": True, "collation": {"locale": "en"}}}, Special.CAPPED),
        ({"name": "c", "options": {"capped": False}}, None),
        ({"name": "c", "options": {"collation": {"locale": "fr", "strength": 3}}}, Special.COLLATION),
        ({"name": "c"}, None),
    ],
)
def test_an_entry_of_the_server_is_judged(raw: dict[str, Any], special: Special | None) -> None:
    found = judge_collection(ListedCollection.read(raw), "_shadow")
    assert (found and found.special) == special


def test_the_field_of_the_version_is_the_collections_own() -> None:
    closed = {"validator": {"$jsonSchema": {"properties": {"_v": {}}, "additionalProperties": False}}}
    assert judge_collection(ListedCollection("things", options=closed), "_v") is None
    refused = judge_collection(ListedCollection("things", options=closed), "_shadow")
    assert refused is not None
    assert 'collMod: "things"' in refused.advice
    assert "_shadow" in refused.advice


@each_of("special", Special)
def test_each_refusal_names_the_collection_the_kind_the_reason_and_the_next_step(special: Special) -> None:
    error = UnfitKind("things", special, "mend it so").error()
    assert isinstance(error, UnsupportedOperation)
    assert f"things ({special})" in error.message
    assert REASONS[special].why in error.message
    assert error.hint
    assert "{" not in error.hint


def test_names_of_the_server_are_refused_without_asking_it() -> None:
    assert judge_name("systems") is None
    found = judge_name("system.profile")
    assert found is not None
    assert found.special is Special.SYSTEM


def test_a_client_that_says_nothing_of_itself_encrypts_nothing() -> None:
    assert judge_client("things", object()) is None


@each_of(
    ("entry", "paths"),
    [
        (None, None),
        ({"_id": "d.c", "key": {"region": 1}}, ("region",)),
        ({"_id": "d.c", "key": {"region": "hashed"}}, ("region",)),
        ({"_id": "d.c", "key": {"_id": 1, "a.b": 1}}, ("a.b",)),
        ({"_id": "d.c", "key": {"_id": "hashed"}}, ()),
        ({"_id": "d.c", "key": {"region": 1}, "dropped": True}, None),
        ({"_id": "d.c", "key": {"_id": 1}, "unsplittable": True}, None),
    ],
)
def test_a_shard_key_is_read_from_the_routers_record(entry: Any, paths: tuple[str, ...] | None) -> None:
    found = ShardKey.read(entry)
    assert (found and found.paths) == paths


def test_a_command_by_key_carries_each_part_of_it_and_null_for_what_is_missing() -> None:
    key = ShardKey(("region", "a.b"))
    assert key.values({"_id": 1, "region": {"$odd": 1}, "a": {"b": 2}}) == {
        "region": {"$eq": {"$odd": 1}},
        "a.b": {"$eq": 2},
    }
    assert key.values({"_id": 1, "a": 5}) == {"region": {"$eq": None}, "a.b": {"$eq": None}}


def test_a_filter_that_says_all_of_it_by_equality_needs_no_look() -> None:
    key = ShardKey(("region", "a.b"))
    assert key.is_in({"_id": 1, "region": "eu", "a.b": {"c": 1}})
    assert not key.is_in({"_id": 1, "region": "eu"})
    assert not key.is_in({"region": {"$in": ["eu"]}, "a.b": 1})


def test_a_tombstone_keeps_the_shard_of_its_document() -> None:
    key = ShardKey(("region", "a.b"))
    raw = {"_id": 1, "_shadow": {"t": "x"}}
    made = key.beside({"region": "eu", "a": {"b": 2, "c": 3}}, raw)
    assert made == {"_id": 1, "_shadow": {"t": "x"}, "region": "eu", "a": {"b": 2}}
    assert raw == {"_id": 1, "_shadow": {"t": "x"}}
    assert key.beside({"_id": 1}, raw) == raw
