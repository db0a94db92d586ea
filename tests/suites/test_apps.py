"""Applications on ODMs that ship no tests: each feature answers with the library what it answers bare, call by call.

`kept.json` has the features that do not yet, each with its reason. In the end both stores hold the same, and no shadow
read has found a difference.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pymongo import MongoClient

from tests.suites import kept
from tests.suites.plays import first_difference
from tests.suites.runs import Servers
from tests.suites.suites import MODES
from tests.support import drawn, services


@pytest.fixture
def servers(one_mongod_url: str, dynamodb_local_url: str) -> Servers:
    return Servers(one_mongod_url, dynamodb_local_url)


@pytest.mark.slow
@pytest.mark.drawn_over("mode", of=2, reason="the features ask the same of the same surface in each mode")
@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("name", ["beanie-app", "odmantic-app"])
def test_an_application_has_the_answers_of_the_bare_driver(
    name: str, mode: str, servers: Servers, fresh_name: str, tmp_path: Path
) -> None:
    try:
        from tests.suites import apps
    except ModuleNotFoundError as error:
        services.missing(f"{error.name}", "it is not installed")
    app = apps.APPS[name]
    bare = asyncio.run(apps.bare(app, servers, fresh_name))
    assert [answers[-1] for answers in bare.answers.values() if answers[-1][0] == "it ended"] == []
    try:
        played = asyncio.run(apps.with_library(app, mode, servers, fresh_name, tmp_path))
    finally:
        with MongoClient(servers.mongo_url) as client:
            client.drop_database(fresh_name)
    known = kept.known(name, mode)
    different = {
        feature: first_difference(wanted, played.answers[feature])
        for feature, wanted in bare.answers.items()
        if wanted != played.answers[feature]
    }
    assert {feature: said for feature, said in different.items() if feature not in known} == {}
    kept.shrinks(name, mode, sorted(known.keys() - different.keys()), fatal=drawn.is_long())
    assert played.apart == ()
    assert played.mismatches == 0
