"""Which MongoDB a test has: the deployment, the driver and the options of the connection, drawn from one seed.

The contract and compat suites hold in every deployment, with each driver, and with any options that change no answer.
To run all of them in each combination would tell little for its price, so each test draws one: a run covers everything
a bit, many runs cover all of it. What is drawn depends on the seed and on the test alone, not on the tests beside it.

    --options-seed N        (or SHADOW_OPTIONS_SEED) draws the same again; without it, another seed for each run
    --deployment NAME       (or SHADOW_DEPLOYMENT) `one`, `replicas` or `auth` for all tests, instead of drawn ones
    --driver NAME           (or SHADOW_DRIVER) `motor` or `pymongo`, likewise

The header of a run says the seed, and a test that fails says what it had. A test names what it cannot run with by a
marker (`only_on`, `only_driver`, `plain_options`), which has a reason; one that names its deployment by indirect
parametrization of `mongo_url` has it without further options.

A test of any suite that repeats one proof in each combination of some of its parameters has the marker `drawn_over`,
which names them: a run then has each case of its other parameters in one combination of those, drawn from the same
seed. `SHADOW_LONG=1` and `--all-drawn` have all of them, and so has whoever names a test by its id or by `-k`.
"""

from __future__ import annotations

import dataclasses
import os
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import pytest

from tests.support.topologies import DEPLOYMENTS, with_options

__all__ = [
    "DRIVERS",
    "OPTIONS",
    "CannotRun",
    "Draw",
    "Draws",
    "add_options",
    "combinations",
    "draws_among",
    "driver_of",
    "examples",
    "forget",
    "give_seed",
    "in_one_deployment",
    "is_long",
    "of_run",
    "one_of_three",
    "run_seed",
]

DRIVERS: Final = ("motor", "pymongo")

OPTIONS: Final[Mapping[str, Sequence[str]]] = {
    "appName": ("suite", "a%20name%20with%20%C3%A4"),
    "authMechanism": ("SCRAM-SHA-1", "SCRAM-SHA-256"),
    "compressors": ("zlib",),
    "connectTimeoutMS": ("15000",),
    "datetime_conversion": ("DATETIME",),
    "heartbeatFrequencyMS": ("2000", "30000"),
    "journal": ("true", "false"),
    "localThresholdMS": ("5",),
    "maxConnecting": ("1", "4"),
    "maxIdleTimeMS": ("5000",),
    "maxPoolSize": ("0", "8", "200"),
    "minPoolSize": ("1",),
    "readConcernLevel": ("local", "available", "majority"),
    "readPreference": ("primary", "primaryPreferred", "secondaryPreferred", "nearest"),
    "retryReads": ("true", "false"),
    "retryWrites": ("true", "false"),
    "serverMonitoringMode": ("poll", "stream"),
    "serverSelectionTimeoutMS": ("20000",),
    "socketTimeoutMS": ("40000",),
    "tz_aware": ("false",),
    "unicode_decode_error_handler": ("strict",),
    "uuidRepresentation": ("unspecified",),
    "w": ("1", "majority"),
    "waitQueueTimeoutMS": ("20000",),
    "wtimeoutMS": ("20000",),
    "zlibCompressionLevel": ("1", "9"),
}
"""Option of a connection string to values that change no answer of a server that is well (PyMongo, `MongoClient`)."""

_SHARE: Final = 0.3
"""Of the options, for one draw."""
_NOT_THERE: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    # What was just written has to be read again, which a secondary does not promise.
    "replicas": {"readPreference": ("secondaryPreferred", "nearest"), "authMechanism": OPTIONS["authMechanism"]},
    "one": {"authMechanism": OPTIONS["authMechanism"]},
    "auth": {},
}
"""Deployment to the options and values that it is not drawn with."""
_NEEDS: Final = {"zlibCompressionLevel": "compressors"}
_OF_WRITES: Final = ("w", "journal", "wtimeoutMS")
"""With any of these but `w=majority`, one member acknowledges (MongoDB manual, "Implicit Default Write Concern")."""


@dataclasses.dataclass(frozen=True, slots=True)
class Draw:
    """What one test has."""

    deployment: str
    driver: str
    options: tuple[tuple[str, str], ...] = ()

    def url(self, bare: str) -> str:
        """`bare`: the url of the deployment, which has options of its own."""
        made = with_options(bare, self.options)
        _drivers[made] = self.driver
        return made

    def __str__(self) -> str:
        options = "&".join(f"{name}={value}" for name, value in self.options)
        return f"deployment {self.deployment}, driver {self.driver}, options {options or 'none'}"


_SEED: Final = "options_seed"
_run_seed: Final[list[int]] = []

_drivers: dict[str, str] = {}
"""Url that was drawn to the driver that was drawn with it."""


def driver_of(url: str, default: str) -> str:
    """The driver that was drawn with this url; `default` if none was."""
    return _drivers.get(url, default)


def forget(url: str) -> None:
    """Whoever has this url next has drawn nothing with it."""
    _drivers.pop(url, None)


class CannotRun(Exception):
    """The deployment or the driver that was given is none that a test can run with; says why."""


def name_of(node: pytest.Item | pytest.Collector) -> str:
    """A name of a test's file that is the same wherever the tests are run from."""
    return f"{node.path.parent.name}/{node.path.name}"


class Draws:
    """Draws for the tests of one run. `deployment` and `driver`: what is not drawn but given."""

    def __init__(self, seed: int, deployment: str | None = None, driver: str | None = None) -> None:
        self.seed = seed
        self._given = {"deployment": deployment, "driver": driver}
        self._made: dict[str, Draw] = {}

    @property
    def header(self) -> str:
        given = "".join(f", {what} {value}" for what, value in self._given.items() if value)
        return f"MongoDB is drawn with --options-seed {self.seed}{given}"

    def draw(self, module: str, deployment: str, drivers: Sequence[str] = DRIVERS, *, plain: bool = False) -> Draw:
        """For the tests of a module that share a deployment: they share the driver and the options too, so that what
        is made once for all of them stays as it is."""
        key = f"{module}:{deployment}:{'-'.join(drivers)}{':plain' * plain}"
        if key not in self._made:
            options = () if plain else self._options(key, deployment)
            self._made[key] = Draw(deployment, self._random(f"{key}:driver").choice(drivers), options)
        return self._made[key]

    def of_test(self, test: pytest.Function) -> Draw:
        """For a test by its markers. Raises `CannotRun` where it can't run with what was given."""
        deployments = self._possible("deployment", DEPLOYMENTS, test.get_closest_marker("only_on"))
        drivers = self._possible("driver", DRIVERS, test.get_closest_marker("only_driver"))
        module = name_of(test)
        alike = test.get_closest_marker("one_deployment") is not None
        deployment = self._random(module if alike else f"{module}::{test.name}").choice(deployments)
        return self.draw(module, deployment, drivers, plain=test.get_closest_marker("plain_options") is not None)

    def of_node(self, node: pytest.Item | pytest.Collector) -> Callable[[str], Draw]:
        """For a fixture that names its deployments: what one of them is tried with."""
        return lambda deployment: self.draw(
            name_of(node), deployment, self._possible("driver", DRIVERS, node.get_closest_marker("only_driver"))
        )

    def of_module(self, node: pytest.Item | pytest.Collector) -> Draw:
        """For what a module's tests ask for by name alone, when they run."""
        module = name_of(node)
        deployment = self._random(module).choice(self._possible("deployment", DEPLOYMENTS, None))
        return self.draw(module, deployment, self._possible("driver", DRIVERS, None))

    def made_for(self, node: pytest.Item | pytest.Collector) -> list[Draw]:
        """What the tests of a module may have had."""
        return [draw for key, draw in self._made.items() if key.startswith(f"{name_of(node)}:")]

    def _possible(self, what: str, known: Iterable[str], marker: pytest.Mark | None) -> list[str]:
        given = self._given[what]
        able = list(known) if marker is None else list(marker.args)
        if marker is not None and not marker.kwargs.get("reason"):
            raise ValueError(f"{marker.name} has no reason")
        if given is None or given in able:
            return able if given is None else [given]
        raise CannotRun(f"--{what} {given}: {marker.kwargs['reason'] if marker else ''}")

    def _options(self, key: str, deployment: str) -> tuple[tuple[str, str], ...]:
        chance = self._random(key)
        drawn: dict[str, str] = {}
        for name, values in OPTIONS.items():
            chosen, value = chance.random() < _SHARE, chance.choice(values)
            if chosen and value not in _NOT_THERE[deployment].get(name, ()):
                drawn[name] = value
        if drawn.get("w") != "majority" and drawn.keys() & set(_OF_WRITES):
            # What one member has acknowledged is not read by a majority before a majority is known to have it.
            drawn = {name: value for name, value in drawn.items() if value != "majority"}
        return tuple((name, value) for name, value in drawn.items() if _NEEDS.get(name, name) in drawn)

    def _random(self, key: str) -> random.Random:
        return random.Random(f"{self.seed}:{key}")


def examples(most: int) -> int:
    """How many of `most` generated cases a run has: each run has others, and a long one has as many."""
    return most if is_long() else most // 4


def one_of_three(item: pytest.Item) -> bool:
    """Whether the test is in one of the files, a third of them, that this run has drawn."""
    return random.Random(f"{run_seed()}:{name_of(item)}:three").randrange(3) == 0


def draws_among(config: pytest.Config) -> bool:
    """Whether this run has a part of what it was asked for: not a long one, nor one that names its tests."""
    options = config.option
    named = any("::" in each for each in config.args) or options.keyword or getattr(options, "lf", False)
    return options.drawn and not (is_long() or named)


def combinations(config: pytest.Config, seed: int, items: list[pytest.Item]) -> set[pytest.Item]:
    """Which of these tests are left for another run: see `drawn_over`."""
    if not draws_among(config):
        return set()
    tests: dict[str, list[pytest.Item]] = {}
    had: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    for item in items:
        if (marker := item.get_closest_marker("drawn_over")) is not None:
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
            had.setdefault((item.nodeid.partition("::")[0], marker.args), set()).update(_params(item))
    for (file, names), params in had.items():
        if missing := set(names) - params:
            raise ValueError(f"{file}: no test has a parameter {', '.join(sorted(missing))}")
    return {item for name, made in tests.items() for item in _left(random.Random(f"{seed}:{name}:over"), made)}


def in_one_deployment(parameter: str) -> pytest.MarkDecorator:
    """For tests that have MongoDB's deployments and the servers that stand for DynamoDB as values of one parameter,
    beside other stores: of the deployments each case has one, one of the servers, and one of the router's pairs of
    stores."""
    reason = "one store, in deployments that every test draws; one client, of servers that answer alike"
    return pytest.mark.drawn_over(parameter, alike=("mongo", "dynamo", "router"), reason=reason)


def _left(chance: random.Random, items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """Of one test. Each case takes the combination whose values the cases before it have had least, so that a run has
    every value of every parameter as often as the others."""
    marker = items[0].get_closest_marker("drawn_over")
    assert marker is not None
    had: Counter[object] = Counter()
    for made in _cases(items, marker):
        chance.shuffle(made)
        for _ in range(marker.kwargs.get("of", 1)):
            if not made:
                break
            chosen = min(made, key=lambda each: (sum(had[value] for value in each[1]), had[each[1]]))
            made.remove(chosen)
            had.update([*chosen[1], chosen[1]])
        yield from (item for item, _ in made)


def _cases(items: list[pytest.Item], marker: pytest.Mark) -> Iterable[list[tuple[pytest.Item, tuple[object, ...]]]]:
    """For each case of the other parameters the tests that repeat it, with what they have of those that are drawn. Of a
    file's marker, a test that has not all of them is no case."""
    if not marker.kwargs.get("reason"):
        raise ValueError(f"{marker.name} has no reason")
    alike = marker.kwargs.get("alike", ("",))
    kinds = (alike,) if isinstance(alike, str) else alike
    found: dict[tuple[object, ...], list[tuple[pytest.Item, tuple[object, ...]]]] = {}
    for item in items:
        params = _params(item)
        if not set(marker.args) <= params.keys():
            continue
        values = [str(params.get(name)) for name in marker.args]
        kind = next((each for each in kinds if all(value.startswith(each) for value in values)), None)
        if kind is None:
            continue
        # Parameters are the same by being the same objects: whatever else they are, no two cases are taken for one.
        rest = tuple(id(params[name]) for name in sorted(params.keys() - {*marker.args, "mongo_url"}))
        found.setdefault((kind, *rest), []).append((item, tuple((name, id(params[name])) for name in marker.args)))
    return found.values()


def _params(item: pytest.Item) -> Mapping[str, object]:
    params: Mapping[str, object] = item.callspec.params if hasattr(item, "callspec") else {}
    return params


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("shadow", "MongoDB, for the contract and compat suites")
    group.addoption("--options-seed", type=int, help="draw what this seed drew before")
    group.addoption("--deployment", choices=list(DEPLOYMENTS), help="for all tests, instead of drawn ones")
    group.addoption("--all-drawn", dest="drawn", action="store_false", help="all that `drawn_over` would choose among")
    group.addoption("--driver", choices=DRIVERS, help="for all tests, instead of drawn ones")


def of_run(config: pytest.Config) -> Draws:
    """What the options of a run ask for, or else its environment. A seed that neither of them names is drawn once: the
    processes over which `pytest -n` spreads the tests are given it (`give_seed`), and have to collect the same."""
    seed, deployment, driver = (
        config.getoption(f"--{name}") or os.environ.get(f"SHADOW_{name.upper().replace('-', '_')}")
        for name in ("options-seed", "deployment", "driver")
    )
    for value, known in ((deployment, DEPLOYMENTS), (driver, DRIVERS)):
        if value and value not in known:
            raise pytest.UsageError(f"{value} is none of {', '.join(known)}")
    seed = seed or getattr(config, "workerinput", {}).get(_SEED)
    config.option.options_seed = int(seed) if seed else secrets.randbelow(1_000_000)
    _run_seed[:] = [config.option.options_seed]
    return Draws(config.option.options_seed, deployment or None, driver or None)


def give_seed(workerinput: dict[str, object]) -> None:
    """Gives the seed of this run to a process over which `pytest -n` spreads its tests."""
    workerinput[_SEED] = run_seed()


def run_seed() -> int:
    """What this run draws from, for suites that generate their cases."""
    return _run_seed[0]


def is_long() -> bool:
    """Whether this run has all that others draw from."""
    return os.environ.get("SHADOW_LONG") == "1"
