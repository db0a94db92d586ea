"""What the contract and compat suites draw is drawn from the seed and the test alone, and is what a server takes."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.uri_parser import parse_uri

from tests.support import topologies
from tests.support.cases import each_of
from tests.support.drawn import DRIVERS, OPTIONS, CannotRun, Draw, Draws, combinations, driver_of, forget
from tests.support.topologies import DEPLOYMENTS, root_url, with_options

SEEDS = range(60)


def a_test(name: str, file: str = "test_a.py", **markers: pytest.Mark) -> Any:
    """What is asked of a test."""
    return SimpleNamespace(name=name, path=Path("/anywhere/contract") / file, get_closest_marker=markers.get)


def marker(name: str, *values: str, reason: str | None = "because") -> pytest.Mark:
    return pytest.Mark(name, values, {"reason": reason} if reason else {}, _ispytest=True)


def test_a_seed_draws_the_same_whatever_else_was_drawn_before() -> None:
    for seed in SEEDS:
        one, other = Draws(seed), Draws(seed)
        other.of_test(a_test("test_before"))
        other.of_module(a_test("", "test_b.py"))
        assert one.of_test(a_test("test_a")) == other.of_test(a_test("test_a"))
    assert len({Draws(seed).of_test(a_test("test_a")) for seed in SEEDS}) > 50


def test_many_seeds_draw_every_deployment_with_each_driver_and_every_value_of_every_option() -> None:
    drawn = [Draws(seed).of_test(a_test("test_a")) for seed in range(600)]
    assert {(each.deployment, each.driver) for each in drawn} == set(itertools.product(DEPLOYMENTS, DRIVERS))
    values = {pair for each in drawn for pair in each.options}
    assert values == {(name, value) for name, values in OPTIONS.items() for value in values}
    by_majority = [dict(each.options) for each in drawn if ("readConcernLevel", "majority") in each.options]
    assert {each.get("w") for each in by_majority} == {None, "majority"}
    assert not [each for each in by_majority if "w" not in each and each.keys() & {"journal", "wtimeoutMS"}]


def test_tests_of_one_file_and_deployment_share_what_is_made_once_for_them() -> None:
    for seed in SEEDS:
        draws = Draws(seed)
        drawn = [draws.of_test(a_test(f"test_{number}")) for number in range(20)]
        assert len({each.deployment for each in drawn}) > 1
        assert len(set(map(id, drawn))) <= len(DEPLOYMENTS)
        assert {id(each) for each in draws.made_for(a_test(""))} == set(map(id, drawn))


def test_nothing_is_drawn_that_a_test_cannot_run_with() -> None:
    only = marker("only_on", "one", "auth"), marker("only_driver", "motor"), marker("plain_options")
    for seed in SEEDS:
        test = a_test("test_a", only_on=only[0], only_driver=only[1], plain_options=only[2])
        drawn = Draws(seed).of_test(test)
        assert drawn.deployment in ("one", "auth")
        assert (drawn.driver, drawn.options) == ("motor", ())


def test_what_is_given_is_not_drawn() -> None:
    for seed in SEEDS:
        drawn = Draws(seed, "auth", "pymongo").of_test(a_test("test_a"))
        assert (drawn.deployment, drawn.driver) == ("auth", "pymongo")


@pytest.mark.parametrize(
    ("given", "only"),
    [
        (("replicas", None), {"only_on": marker("only_on", "one", reason="it has no members")}),
        ((None, "pymongo"), {"only_driver": marker("only_driver", "motor", reason="it has no members")}),
    ],
)
def test_what_cannot_run_with_it_says_why(given: tuple[str | None, str | None], only: Any) -> None:
    with pytest.raises(CannotRun, match="it has no members"):
        Draws(1, *given).of_test(a_test("test_a", **only))


@pytest.mark.parametrize("name", ["only_on", "only_driver"])
def test_a_marker_without_a_reason_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no reason"):
        Draws(1).of_test(a_test("test_a", **{name: marker(name, "one", reason=None)}))


@each_of(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
async def test_the_driver_knows_every_option_that_is_drawn(name: str, value: str, recwarn: Any) -> None:
    """PyMongo warns of what it does not know, and ignores it."""
    recwarn.clear()
    url = f"mongodb://user:password@127.0.0.1:1/?compressors=zlib&{name}={value}"
    options = {key.lower() for key in parse_uri(url)["options"]}
    assert {name.lower(), {"wtimeoutms": "wtimeout"}.get(name.lower(), "")} & options
    await AsyncMongoClient(url, connect=False).close()
    assert [str(each.message) for each in recwarn if "compressors" not in str(each.message)] == []


def test_the_url_has_the_options_and_its_root_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topologies, "_plain", {})
    bare = "mongodb://a:1,b:2/?replicaSet=rs0"
    url = Draw("replicas", "pymongo", (("w", "1"), ("appName", "x"))).url(bare)
    assert url == f"{bare}&w=1&appName=x"
    assert driver_of(url, "motor") == "pymongo"
    forget(url)
    assert driver_of(url, "motor") == "motor"
    assert driver_of(bare, "motor") == "motor"
    assert root_url(url) == root_url(f"{url}&journal=true") == bare
    assert with_options(bare, ()) == bare


class Repeated:
    """A test with the marker `drawn_over`, as it is collected for one combination of its parameters."""

    def __init__(self, mark: pytest.Mark, **params: Any) -> None:
        self.nodeid = f"a.py::test_a[{'-'.join(map(str, params.values()))}]"
        self.callspec = SimpleNamespace(params=params)
        self.get_closest_marker = {"drawn_over": mark}.get


def over(*names: str, reason: str = "because", **more: Any) -> pytest.Mark:
    return pytest.Mark("drawn_over", names, {"reason": reason, **more}, _ispytest=True)


def run_of(seed: int, items: list[Any], **options: Any) -> list[dict[str, Any]]:
    made = {"keyword": "", "lf": False, "drawn": True, **options}
    left = combinations(SimpleNamespace(option=SimpleNamespace(**made), args=["a.py"]), seed, items)  # type: ignore[arg-type]
    return [item.callspec.params for item in items if item not in left]


CASES = [f"case {number}" for number in range(6)]
DRIVEN = [{"case": case, "driver": driver, "way": way} for case in CASES for driver in DRIVERS for way in ("in", "out")]


@pytest.fixture(autouse=True)
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHADOW_LONG", raising=False)


def test_a_run_has_every_case_once_and_every_value_of_what_is_drawn_over() -> None:
    seen = set()
    for seed in SEEDS:
        run = run_of(seed, [Repeated(over("driver", "way"), **each) for each in DRIVEN])
        assert [each["case"] for each in run] == CASES
        assert sorted(each["driver"] for each in run) == ["motor"] * 3 + ["pymongo"] * 3
        assert sorted(each["way"] for each in run) == ["in"] * 3 + ["out"] * 3
        assert run == run_of(seed, [Repeated(over("driver", "way"), **each) for each in DRIVEN])
        seen |= {tuple(each.values()) for each in run}
    assert len(seen) == len(DRIVEN), "many runs have every combination"


def test_two_of_four_combinations_have_both_values_of_each_parameter() -> None:
    for seed in SEEDS:
        run = run_of(
            seed, [Repeated(over("driver", "way", of=2), **each) for each in DRIVEN if each["case"] == CASES[0]]
        )
        assert {each["driver"] for each in run} == set(DRIVERS)
        assert {each["way"] for each in run} == {"in", "out"}


def test_values_of_each_kind_that_is_alike_stand_for_each_other() -> None:
    stores = ["memory", "mongo-one", "mongo-auth", "dynamo-local", "dynamo-other"]
    mark = over("store", alike=("mongo", "dynamo"))
    run = run_of(1, [Repeated(mark, case=case, store=store) for case in CASES for store in stores])
    kinds = [(each["case"], each["store"].partition("-")[0]) for each in run]
    assert kinds == list(itertools.product(CASES, ["memory", "mongo", "dynamo"]))
    assert {each["store"] for each in run} == {*stores}, "each as often as another of its kind"


def test_only_values_that_are_alike_stand_for_each_other() -> None:
    stores = ["memory", "mongo-one", "mongo-auth", "dynamo"]
    items = [Repeated(over("store", alike="mongo"), case=case, store=store) for case in CASES for store in stores]
    run = [(each["case"], each["store"].partition("-")[0]) for each in run_of(1, items)]
    assert run == list(itertools.product(CASES, ["memory", "mongo", "dynamo"]))


@pytest.mark.parametrize("options", [{"keyword": "motor"}, {"lf": True}, {"drawn": False}])
def test_whoever_names_tests_has_all_of_them(options: dict[str, Any]) -> None:
    assert run_of(1, [Repeated(over("driver", "way"), **each) for each in DRIVEN], **options) == DRIVEN


def test_a_long_run_has_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOW_LONG", "1")
    assert run_of(1, [Repeated(over("driver", "way"), **each) for each in DRIVEN]) == DRIVEN


def test_what_is_drawn_over_is_a_parameter_and_has_a_reason() -> None:
    with pytest.raises(ValueError, match="a parameter diver"):
        run_of(1, [Repeated(over("diver"), **DRIVEN[0])])
    with pytest.raises(ValueError, match="no reason"):
        run_of(1, [Repeated(over("driver", reason=""), **DRIVEN[0])])
