"""What `shadow assess` says of collections that are not plain: what would be refused at start, before it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pymongo import MongoClient
from typer.testing import CliRunner

from shadow.assess.model import Severity
from shadow.assess.remarks import of_collection, of_rights
from shadow.cli import app
from shadow.stores.mongo.kinds import REASONS, ListedCollection, Special
from shadow.stores.mongo.shard_keys import ShardKey
from tests.support.kinds import PLAIN, REFUSED
from tests.support.topologies import root_url

SHORT = ("--watch", "0", "--rate", "1000000")


@pytest.fixture
def said(mongo_url: str, mongo_database: str) -> dict[str, Any]:
    with MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        database = client[mongo_database]
        for special, options in REFUSED.items():
            database.command({"create": special.replace(" ", "_"), **options})
        for name, options in PLAIN.items():
            database.command({"create": name, **options})
    arguments = ("--mongo-url", mongo_url, "--database", mongo_database, *SHORT, "--json")
    result = CliRunner(env={"SHADOW_CONFIG": ""}).invoke(app, ["assess", *arguments])
    assert result.exit_code == 1, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_each_kind_that_is_refused_at_start_is_told_with_the_reason_and_the_next_step(said: dict[str, Any]) -> None:
    names = {each["name"] for each in said["collections"]}
    for special in REFUSED:
        name = special.replace(" ", "_")
        told = [each for each in said["remarks"] if each["collection"] == name and each["severity"] != "note"]
        # A user who may not write past validators is told so too, of the collections that have one.
        told = [each for each in told if each["kind"] != "rights"]
        if special is Special.VALIDATOR:
            assert [each["kind"] for each in told] == ["validator"]
            assert "collMod" in told[0]["mend"]
            continue
        assert name not in names
        assert special in said["left_out"][name]
        (remark,) = told
        assert REASONS[special].why in remark["text"]
        assert remark["mend"] == REASONS[special].next
        harmless = special in (Special.VIEW, Special.TIME_SERIES)
        assert remark["severity"] == ("warning" if harmless else "blocker")


def test_what_is_supported_is_moved_and_what_is_to_be_known_of_it_is_told(said: dict[str, Any]) -> None:
    assert {each["name"] for each in said["collections"]} == {*PLAIN, Special.VALIDATOR.replace(" ", "_")}
    blocked = {each["collection"] for each in said["remarks"] if each["severity"] == "blocker"}
    assert not blocked & PLAIN.keys()
    (expiring,) = (each for each in said["remarks"] if each["collection"] == "clustered_and_expiring")
    assert "its documents expire" in expiring["text"]


def test_a_shard_key_is_told_or_the_right_that_is_lacking_to_see_it() -> None:
    (remark,) = of_collection(ListedCollection("users"), None, "_shadow", ShardKey(("region", "a.b")))
    assert (remark.severity, remark.collection) == (Severity.WARNING, "users")
    assert "sharded by region, a.b" in remark.text
    assert "unique on each shard alone" in remark.text
    assert not list(of_collection(ListedCollection("users"), None, "_shadow", ShardKey(())))
    (lacking,) = of_rights({"config.collections": "by what collections are sharded (not authorized)"})
    assert "find on config.collections" in lacking.mend
