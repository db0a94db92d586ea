"""What all tests share: real servers, started once and on demand, and real documents.

A server that cannot be had fails the test in CI and skips it elsewhere (`support.services`). Nothing here starts
unless a test asks for it by name. All tests of a run share a server of each kind, those that run beside each other in
other processes (`pytest -n`) too: they keep apart by their names. A test that does something to a server (stops it,
elects, delays, sets a parameter or a failpoint, reads a figure of the whole server) has one of its own, by one of the
fixtures whose names begin with `own_` and `new_`.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import aiobotocore.httpsession
import botocore.hooks
import hypothesis
import pytest
import typer.main
import typer.testing

from shadow.embedded.servers import DynamoDBLocal, FaultProxy, Ministack, Mongod
from shadow.errors import ShadowError
from tests.support import documents, drawn, dynamodb_local, services, shared, spread, turns
from tests.support.drawn import Draw, Draws
from tests.support.topologies import DEPLOYMENTS, Members, ReplicaSet, admit, drop, new_user

_ORDER: Final = ("unit", "house", "contract", "compat", "simulation", "faults", "races", "suites", "e2e", "bench")
_UNIT: Final = Path(__file__).parent / "unit"
_AT_ONCE: Final = 3
"""Processes for the tests of `_UNIT`: the third one uses what the others leave of two processors while they wait."""
_DRAWN: Final = ("contract", "compat")
"""The suites whose tests draw the MongoDB that they have (`support.drawn`)."""

hypothesis.settings.register_profile(
    "shadow",
    deadline=None,  # how long a busy machine takes for a case says nothing of the case
    max_examples=drawn.examples(100),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("shadow")

_draws: Final = pytest.StashKey[Draws]()
_servers: Final = pytest.StashKey[shared.Servers | shared.Asking]()


def pytest_addoption(parser: pytest.Parser) -> None:
    drawn.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """`pytest tests/unit` spreads its tests over processes by itself. Whoever names a file, `-n`, a debugger or `-s`
    has one process."""
    if hasattr(config, "workerinput") or "PYTEST_XDIST_WORKER" in os.environ:
        return  # one of those processes
    option = config.option
    if option.numprocesses is None and not (option.usepdb or option.trace or option.collectonly):
        named = [Path(each).resolve() for each in config.args]
        if named == [_UNIT] and option.capture != "no" and option.dist == "no":
            option.numprocesses = _AT_ONCE


def pytest_report_header(config: pytest.Config) -> str:
    return config.stash[_draws].header


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if terminalreporter.stats.keys() & {"failed", "error"}:
        terminalreporter.write_line(config.stash[_draws].header)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    test = metafunc.definition
    named = any("mongo_url" in str(mark.args[0]) for mark in test.iter_markers("parametrize"))
    if "mongo_url" not in metafunc.fixturenames or named or not _is_drawn(test):
        return
    try:
        chosen: Any = metafunc.config.stash[_draws].of_test(test)
    except drawn.CannotRun as error:
        chosen = pytest.param("one", marks=pytest.mark.skip(reason=str(error)))
    metafunc.parametrize("mongo_url", [chosen], indirect=True, ids=[pytest.HIDDEN_PARAM])


def _is_drawn(node: pytest.Item | pytest.Collector) -> bool:
    return node.path.parent.name in _DRAWN


def _draw_of(item: pytest.Item) -> Draw | None:
    own = item.callspec.params.get("mongo_url") if hasattr(item, "callspec") else None
    return own if isinstance(own, Draw) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test that fails says which MongoDB it had."""
    report: Any = yield
    if report.failed and _is_drawn(item):
        own = _draw_of(item)
        others = [each for each in item.config.stash[_draws].made_for(item) if each is not own]
        lines = [*([f"{own}"] if own else []), *(f"{'if it drew more: ' if own else ''}{each}" for each in others)]
        report.sections.append(("MongoDB", "\n".join(lines)))
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick suites first: whoever waits for a failure waits less. Spread over processes, the long tests first
    (`support.spread`). Within a file, the tests of one deployment together: what they share is made once for each.
    What `drawn_over` leaves for another run is not run, nor is what has its turn in another one (`support.turns`)."""
    seed = config.stash[_draws].seed
    left = drawn.combinations(config, seed, items)
    if drawn.draws_among(config):
        left |= turns.for_another_run(seed, [item for item in items if item not in left], spread.took())
    if left:
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]
    files = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}

    def place(item: pytest.Item) -> tuple[int, int, str]:
        folders = [_ORDER.index(part) for part in item.path.parts if part in _ORDER]
        return folders[-1] if folders else len(_ORDER), files[item.path], str(_draw_of(item) or "")

    items.sort(key=place)
    if hasattr(config, "workerinput"):
        places = spread.in_order([item.nodeid for item in items])
        items.sort(key=lambda item: places[item.nodeid])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """While tests are collected, hardly anything is garbage, and no collection of it looks through all that stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """What was loaded and collected stays to the end: no collection of garbage looks through it again, nor for the
    little garbage that there is of it."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> spread.LongestFirst | None:
    """`pytest -n N` without `--dist` deals the tests out as `support.spread` says."""
    return spread.LongestFirst(config, log) if config.getoption("dist") == "load" else None


class _LostTasks(logging.Handler):
    """What asyncio says of tasks and errors that nobody looks after any more. It says so when memory is collected: the
    test that hears of it may be a later one than the test that lost it."""

    _LOST = ("was never retrieved", "was destroyed but it is pending", "was never awaited")

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if any(each in said for each in self._LOST):
            error = record.exc_info[1] if record.exc_info else None
            self.heard.append(f"{said} {error!r}")

    def take(self) -> list[str]:
        heard, self.heard = self.heard, []
        return heard


_lost_tasks: Final = _LostTasks()
_lost_by_others: Final[list[str]] = []
"""At the end of the processes that ran tests for this one."""
_died: Final[list[str]] = []
"""What is said of those that have not come to their end: tests may be missing that nobody has run."""
_LOST: Final = "lost"


def pytest_configure(config: pytest.Config) -> None:
    logging.getLogger("asyncio").addHandler(_lost_tasks)
    config.stash[_draws] = drawn.of_run(config)
    config.stash[_servers] = shared.of_run(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    if (servers := config.stash.get(_servers, None)) is not None:
        servers.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """In the suites that SHADOW_ASYNCIO_DEBUG names ("contract,unit"), event loops are made in asyncio's debug mode. It
    takes a fifth longer: of a suite's files a run has one of three in it, drawn, and a long run has all."""
    suites = os.environ.get("SHADOW_ASYNCIO_DEBUG")
    if not suites:
        return (yield)
    debug = item.path.parent.name in suites.split(",") and (drawn.is_long() or drawn.one_of_three(item))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONASYNCIODEBUG", "1" if debug else "")
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield
    if heard := _lost_tasks.take():
        pytest.fail("in this test or one before it:\n" + "\n".join(heard), pytrace=False)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    drawn.give_seed(node.workerinput)
    shared.fill_in(node.workerinput, node.config.stash[_servers])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """One of the processes over which `pytest -n` spreads the tests has ended."""
    _lost_by_others.extend(getattr(node, "workeroutput", {}).get(_LOST, ()))
    if error is not None:
        _died.append(str(error))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What the last test has lost is found by no later one."""
    gc.collect()
    heard = _lost_tasks.take()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_LOST] = heard
    elif heard := [*heard, *_lost_by_others]:
        print("\n".join(["", "lost at the end of the run:", *heard]), file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if _died:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


def _dynamodb_local_home() -> Any:
    try:
        return dynamodb_local.home()
    except ShadowError as error:
        services.missing("DynamoDB Local", error)


@pytest.fixture(scope="session", autouse=True)
def no_authorities() -> Iterator[None]:
    """Clients of DynamoDB read the certificates of all authorities when they are made, which takes longer than making a
    table. No server of these tests speaks TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiobotocore.httpsession, "get_cert_path", lambda verify: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def handlers_looked_at_once() -> Iterator[None]:
    """botocore looks at the signature of each of its handlers and translates the names of their events, the same ones
    for each client that is made: half of what making one takes."""
    names: dict[str, str] = {}
    made = botocore.hooks.EventAliaser.__init__

    def make(self: Any, emitter: Any, event_aliases: Any = None) -> None:
        made(self, emitter, event_aliases)
        if self._event_aliases == botocore.hooks.EVENT_ALIASES:
            self._alias_name_cache = names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.hooks, "accepts_kwargs", functools.cache(botocore.hooks.accepts_kwargs))
        patch.setattr(botocore.hooks.EventAliaser, "__init__", make)
        yield


@pytest.fixture(scope="session", autouse=True)
def commands_made_once() -> Iterator[None]:
    """Typer makes the whole tree of commands again for each call of one, which takes longer than most calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def draws(request: pytest.FixtureRequest) -> Draws:
    """For fixtures that draw by themselves."""
    return request.config.stash[_draws]


@pytest.fixture(scope="module")
def mongo_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A MongoDB that all tests share; don't stop it, and use `mongo_database`. In the suites that draw, what was drawn
    for the test; else one server, or the deployment of `topologies.DEPLOYMENTS` that a test names by indirect
    parametrization."""
    chosen = getattr(request, "param", None)
    if chosen is None and _is_drawn(request.node):
        chosen = request.config.stash[_draws].of_module(request.node)
    deployment = chosen.deployment if isinstance(chosen, Draw) else chosen or "one"
    url: str = request.getfixturevalue(DEPLOYMENTS[deployment])
    made = chosen.url(url) if isinstance(chosen, Draw) else url
    yield made
    drawn.forget(made)


@pytest.fixture(scope="session")
def shared_server(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The address of a server of a kind of `shared.KINDS` that all tests of the run share."""
    return functools.cache(functools.partial(shared.address, request.config.stash[_servers]))


@pytest.fixture(scope="session")
def one_mongod_url(shared_server: Callable[[str], str]) -> str:
    """One server (SHADOW_MONGO_URL, else one of our own)."""
    return os.environ.get("SHADOW_MONGO_URL") or shared_server("mongod")


@pytest.fixture(scope="session")
def replica_set(shared_server: Callable[[str], str]) -> Members:
    """Who is who in the replica set of three members that all tests share."""
    return Members(shared_server("replica set"))


@pytest.fixture(scope="session")
def replica_set_url(replica_set: Members) -> str:
    return replica_set.url


@pytest.fixture(scope="module")
def own_replica_set() -> Iterator[ReplicaSet]:
    """A replica set that the tests of a module share: what a test does to it has to end with the test. It does not
    elect because a busy machine kept its primary from saying anything."""
    with services.start(lambda: ReplicaSet(election_ms=10_000, heartbeat_ms=1000)) as server:
        yield server


@pytest.fixture(scope="module")
def own_mongod_url() -> Iterator[str]:
    """A server that the tests of a module share, whose databases have the names that they like."""
    with services.start(Mongod) as server:
        yield server.url


@pytest.fixture(scope="session")
def least_role_url(shared_server: Callable[[str], str]) -> str:
    """A server with authorization, and a user of this process's tests who has `readWrite` on the databases that it was
    admitted to."""
    return new_user(shared_server("mongod with users"))


@pytest.fixture(scope="session")
def dynamodb_local_url(shared_server: Callable[[str], str]) -> str:
    """A DynamoDB that all tests share (SHADOW_DYNAMO_URL, else a DynamoDB Local of our own). Prefix your tables."""
    return os.environ.get("SHADOW_DYNAMO_URL") or shared_server("DynamoDB Local")


@pytest.fixture(scope="session")
def roomy_dynamodb_local_url(shared_server: Callable[[str], str]) -> str:
    """Another DynamoDB Local, for tests that add an index to a table with items. It does that by one of ten threads,
    which the sweeps of tables with a time to live keep busy: beside a hundred such tables an index takes minutes."""
    return shared_server("roomy DynamoDB Local")


@pytest.fixture(scope="session")
def ministack_url(shared_server: Callable[[str], str]) -> str:
    """A ministack that all tests share. Prefix your tables."""
    return shared_server("ministack")


@pytest.fixture
def fresh_name() -> str:
    """A name that no other test has: a prefix of tables, a database."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def mongo_database(mongo_url: str, fresh_name: str) -> Iterator[str]:
    """The name of an empty database at `mongo_url`, dropped after the test."""
    admit(mongo_url, fresh_name)
    yield fresh_name
    drop(mongo_url, fresh_name)


@pytest.fixture
def least_role_database(least_role_url: str, fresh_name: str) -> Iterator[str]:
    """The name of an empty database at `least_role_url`, the only one where its user may do anything."""
    admit(least_role_url, fresh_name)
    yield fresh_name
    drop(least_role_url, fresh_name)


@pytest.fixture
def new_mongod() -> Iterator[Callable[..., Mongod]]:
    """Starts a `Mongod` (with its arguments) that the test may kill, pause and restart; it is gone after the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(services.start(lambda: Mongod(**options)))


@pytest.fixture
def new_replica_set() -> Iterator[Callable[..., ReplicaSet]]:
    """Starts a `ReplicaSet` (with its arguments) for one test, which may do to its members what it likes."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(services.start(lambda: ReplicaSet(**options)))


@pytest.fixture
def new_dynamodb_local() -> Iterator[Callable[..., DynamoDBLocal]]:
    """Starts a `DynamoDBLocal` for one test; `persistent=True` keeps its data over a restart."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            services.start(lambda: DynamoDBLocal(_dynamodb_local_home(), **options))
        )


@pytest.fixture
def new_ministack() -> Iterator[Callable[..., Ministack]]:
    """Starts a `Ministack` for one test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(services.start(lambda: Ministack(**options)))


@pytest.fixture
def new_proxy() -> Iterator[Callable[[str], FaultProxy]]:
    """Starts a `FaultProxy` before the server at a url; `proxy.url` is the same url with the proxy's port."""
    with ExitStack() as stack:

        def make(url: str) -> FaultProxy:
            return stack.enter_context(FaultProxy.before(url))

        yield make


@pytest.fixture(scope="session")
def real_documents() -> dict[str, list[dict[str, Any]]]:
    """Collection name to real documents. All tests share them: copy before changing."""
    try:
        return documents.load()
    except FileNotFoundError as error:
        services.missing("the real documents", error)
