"""The suites of the drivers and of ODMs, as they ship them, with the library in the place of their client.

One line of each suite is changed (`suites.py`). What passes with the bare driver passes here; `kept.json` has the tests
that do not, each with its reason. A test in it that passes has to be taken out of it: a run warns of it, and fails with
SHADOW_LONG=1. A run has one mode of each suite and a part of the larger ones; SHADOW_LONG=1 has all of them. By hand,
and to write the list: see `python -m tests.suites --help`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path
from typing import Final

import pytest

from shadow.errors import ShadowError
from tests.suites import kept, sources
from tests.suites.runs import Choice, Servers, run
from tests.suites.suites import MODES, SUITES
from tests.support import services
from tests.support.drawn import Draws

LAST_WITH_TESTS: Final = {"beanie", "odmantic"}
"""Packages whose newer archives have no tests: those of the last one that has, run against what is installed."""
LONG: Final = os.environ.get("SHADOW_LONG") == "1"


@pytest.fixture
def servers(own_mongod_url: str, dynamodb_local_url: str) -> Servers:
    for package in ("beanie", "mockupdb", "odmantic", "umongo"):
        if importlib.util.find_spec(package) is None:
            services.missing(package, "it is not installed")
    try:
        sources.home("motor")
    except ShadowError as error:
        services.missing("the suites", error)
    return Servers(own_mongod_url, dynamodb_local_url)


def test_the_suites_are_those_of_the_installed_versions(servers: Servers) -> None:
    versions = {name: version for name, version in sources.versions().items() if name not in LAST_WITH_TESTS}
    assert {name: importlib.metadata.version(name) for name in versions} == versions
    for name in LAST_WITH_TESTS:
        assert sources.versions()[name].split(".")[0] == importlib.metadata.version(name).split(".")[0]


@pytest.mark.slow
@pytest.mark.timeout(2400 if LONG else 600)
@pytest.mark.drawn_over("mode", reason="one mode of each suite in a run: the others ask the same of the same surface")
@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("name", list(SUITES))
def test_a_suite_passes_but_for_what_is_kept(
    name: str, mode: str, servers: Servers, tmp_path: Path, draws: Draws
) -> None:
    parts = 1 if LONG else SUITES[name].parts
    ended = run(name, mode, servers, tmp_path / "all", Choice(parts, draws.seed % parts))
    assert ended, "a run of nothing proves nothing"
    known = kept.known(name, mode)
    # What a suite skips it skips because of the server, which is the same for all.
    failed = sorted(test for test, (outcome, _) in ended.items() if outcome == "failed" and test not in known)
    if failed:
        # A busy machine is no fault, and neither is what a suite fails by itself.
        ended |= run(name, mode, servers, tmp_path / "again", Choice(tests=tuple(failed)))
        failed = [test for test in failed if ended[test][0] == "failed"]
    if failed:
        bare = run(name, "bare", servers, tmp_path / "bare", Choice(tests=tuple(failed)))
        failed = [test for test in failed if bare[test][0] == "passed"]
    assert {test: ended[test][1] for test in failed} == {}, "they pass with the bare driver"
    kept.shrinks(name, mode, [test for test in known if ended.get(test, ("", ""))[0] == "passed"], fatal=LONG)
    if parts == 1:
        assert sorted(known.keys() - ended.keys()) == [], "tests/suites/kept.json has tests that are not in the suite"
