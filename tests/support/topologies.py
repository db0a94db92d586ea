"""MongoDB as production runs it: a replica set of three members, and a server that asks who is there.

Tests name a deployment by its fixture (`DEPLOYMENTS`), mostly by indirect parametrization of `mongo_url`. It is shared
with every other test of the run (`support.shared`): who does something to a server or to a set (`step_down`, `lagging`,
`rolling_back`, a failpoint, a parameter) has one of their own.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pymongo import MongoClient, WriteConcern
from pymongo.errors import OperationFailure, PyMongoError

from shadow.embedded.mongod import Mongod
from shadow.embedded.process import ServerProcess
from shadow.errors import StoreUnavailable

__all__ = [
    "DEPLOYMENTS",
    "MAKERS",
    "Members",
    "ReplicaSet",
    "SecuredMongod",
    "Standalone",
    "admit",
    "allow_past_validators",
    "drop",
    "new_user",
    "plain_url",
    "root_client",
    "root_url",
    "with_options",
]

DEPLOYMENTS: Final = {"one": "one_mongod_url", "replicas": "replica_set_url", "auth": "least_role_url"}
"""Name of a deployment to the session fixture with its url."""

HERE: Final = "here"
"""A named write concern of every set: acknowledged by one member, whichever it is."""

_NAME: Final = "rs0"

Client = MongoClient[dict[str, Any]]

_roots: dict[str, str] = {}
"""User and host of an application's url to the url of one who may do everything."""
_plain: dict[str, str] = {}
"""User and host of an url that was given options to that url without them."""

_clients: dict[str, Client] = {}
"""Url to a client for those who prepare and clean up. They live as long as the process: making one takes longer than
what it is made for."""


def _of(url: str) -> str:
    """User and host, whatever options follow."""
    return url.partition("?")[0].rstrip("/")


def root_url(url: str) -> str:
    """The same server, for somebody who may do everything: tests clean up by it."""
    return _roots.get(_of(url)) or _plain.get(_of(url), url)


def plain_url(url: str) -> str:
    """The same server for the same user, without the options that `with_options` gave."""
    return _plain.get(_of(url), url)


def with_options(url: str, options: Iterable[tuple[str, str]]) -> str:
    """The same server for the same user, with more options of the connection; for `root_url` they count for nothing."""
    _plain[_of(url)] = url
    return "&".join([url, *(f"{name}={value}" for name, value in options)])


def root_client(url: str) -> Client:
    """A client by `root_url`, which is not to be closed."""
    root = root_url(url)
    if root not in _clients:
        _clients[root] = Client(root)
    return _clients[root]


def new_user(root: str) -> str:
    """The url of a new user of an application, who may do nothing before `admit`. `root`: of who may do everything."""
    name, password = f"app{secrets.token_hex(4)}", secrets.token_hex(8)
    root_client(root).admin.command("createUser", name, pwd=password, roles=[])
    url = f"mongodb://{name}:{password}@{root.rpartition('@')[2]}"
    _roots[_of(url)] = root
    return url


def _user(url: str) -> str:
    return url.partition("://")[2].partition(":")[0]


def admit(url: str, *databases: str) -> None:
    """Gives the application's user the role that the manual names, `readWrite` on each one of these databases. Does
    nothing where the server lets everybody in."""
    if _of(url) in _roots:
        roles = [{"role": "readWrite", "db": each} for each in databases]
        root_client(url).admin.command("grantRolesToUser", _user(url), roles=roles)


def drop(url: str, *databases: str) -> None:
    """Drops what a test has made, and with it the application's user's role."""
    client = root_client(url)
    for each in databases:
        client.drop_database(each)
    if _of(url) in _roots:
        roles = [{"role": "readWrite", "db": each} for each in databases]
        client.admin.command("revokeRolesFromUser", _user(url), roles=roles)


def allow_past_validators(url: str, database: str) -> None:
    """Gives the application's user what `readWrite` lacks for a collection whose validator refuses copies."""
    if _of(url) in _roots:
        client = root_client(url)
        may = {"resource": {"db": database, "collection": ""}, "actions": ["bypassDocumentValidation"]}
        client[database].command("createRole", "past_validators", privileges=[may], roles=[])
        client.admin.command("grantRolesToUser", _user(url), roles=[{"role": "past_validators", "db": database}])


class _Member(Mongod):
    """One member. The set makes the replica set of them, so none makes one of itself."""

    def ready(self) -> bool:
        try:
            with Client(self.url, serverSelectionTimeoutMS=1000, connectTimeoutMS=1000) as client:
                return bool(client.admin.command("hello"))
        except PyMongoError:
            return False


_FIRST_ELECTION: Final = 1000
_FIRST_HEARTBEAT: Final = 200
"""Milliseconds."""


class Standalone(Mongod):
    """A server that belongs to no replica set, as on many a developer's machine: it has no transactions and no change
    streams."""

    def command(self) -> list[str]:
        said = super().command()
        at = said.index("--replSet")
        return said[:at] + said[at + 2 :]

    def ready(self) -> bool:
        try:
            with MongoClient[dict[str, Any]](self.url, serverSelectionTimeoutMS=1000) as client:
                return bool(client.admin.command("hello")["isWritablePrimary"])
        except PyMongoError:
            return False


class Members:
    """Who is who in a set that others share: it asks, and changes nothing."""

    def __init__(self, url: str) -> None:
        self._members: list[Any] = [_Member(port=int(each.rpartition(":")[2])) for each in _hosts(url).split(",")]
        self._start_seconds = 120.0

    @property
    def url(self) -> str:
        hosts = ",".join(_address(each) for each in self._members)
        return f"mongodb://{hosts}/?replicaSet={_NAME}"

    @property
    def primary(self) -> _Member:
        """The member that may be written to; waits for an election."""
        found: list[_Member] = []

        def elected() -> bool:
            found[:] = [each for each in self._asked() if _writable(each)]
            return len(found) == 1

        self._wait("no primary", elected)
        return found[0]

    def _asked(self) -> list[_Member]:
        """Those that can answer."""
        return self._members

    def secondaries(self) -> list[_Member]:
        primary = self.primary
        return [each for each in self._members if each is not primary]

    def tagged(self, tag: str) -> _Member:
        """The member with a tag of its own: `m0`, `m1`, `m2`."""
        return self._members[int(tag.removeprefix("m"))]

    def tag_of(self, member: _Member) -> str:
        """The tag that no other member has."""
        return f"m{self._members.index(member)}"

    def wait_until_whole(self) -> None:
        """Returns when one member is primary, the others follow it, and nobody is behind."""
        self._wait("the set is not whole", self._whole)

    def _whole(self) -> bool:
        with self._client(self.primary) as client:
            members = client.admin.command("replSetGetStatus")["members"]
        states = sorted(each["stateStr"] for each in members)
        return states == ["PRIMARY", "SECONDARY", "SECONDARY"] and len({each["optime"]["t"] for each in members}) == 1

    def _client(self, member: _Member) -> Client:
        return Client(member.url, serverSelectionTimeoutMS=5000)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + self._start_seconds
        while True:
            with contextlib.suppress(PyMongoError, OSError):
                if condition():
                    return
            if time.monotonic() > end:
                raise StoreUnavailable(f"{what} within {self._start_seconds:g} s")
            time.sleep(0.02)


class ReplicaSet(Members, ServerProcess):
    """A set of three: `start` returns when it has a primary and two secondaries. It stands where one server would:
    `kill`, `restart`, `pause` and `resume` are of its primary, whichever that is when they are called."""

    name = "replica set"

    def __init__(
        self,
        *,
        start_seconds: float = 120.0,
        election_ms: int = 1500,
        heartbeat_ms: int = _FIRST_HEARTBEAT,
        extra: Sequence[str] = (),
    ) -> None:
        """`election_ms`: for how long a member hears nothing of the primary before it wants to be it. A crowded machine
        can keep a primary from saying anything for longer than that. `heartbeat_ms`: how often members ask each other
        how they are, which is most of what an idle set does. `extra`: further arguments of each member."""
        ServerProcess.__init__(self, start_seconds=start_seconds)
        self._extra = ("--setParameter", "enableTestCommands=1", "--oplogSize", "64", *extra)
        self._settings = {"electionTimeoutMillis": election_ms, "heartbeatIntervalMillis": heartbeat_ms}
        self._members: list[_Member] = []
        self._down: list[_Member] = []
        self._paused: list[_Member] = []

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        if self._members:
            return self
        try:
            for _ in range(3):
                self._members.append(_Member(extra=self._extra).start())
            self._initiate()
            self.wait_until_whole()
            self._configure()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        members, self._members = self._members, []
        for member in members:
            member.stop()

    def _initiate(self) -> None:
        members = [
            {"_id": number, "host": _address(each), "tags": {f"m{number}": "yes", "all": f"{number}"}}
            for number, each in enumerate(self._members)
        ]
        settings = {
            "electionTimeoutMillis": _FIRST_ELECTION,
            # Or a member might follow one that lags, and a write wait for a majority until it looks for another one.
            "chainingAllowed": False,
            "heartbeatIntervalMillis": _FIRST_HEARTBEAT,
            "getLastErrorModes": {HERE: {"all": 1}},
        }
        with self._client(self._members[0]) as client:
            client.admin.command("replSetInitiate", {"_id": _NAME, "members": members, "settings": settings})

    def _configure(self) -> None:
        """Only now: the first primary is chosen that late too."""
        with self._client(self.primary) as client:
            config = client.admin.command("replSetGetConfig")["config"]
            config["settings"].update(self._settings)
            client.admin.command("replSetReconfig", {**config, "version": config["version"] + 1})

    @property
    def running(self) -> bool:
        return all(each.running for each in self._members)

    def _asked(self) -> list[_Member]:
        return [each for each in self._members if each.running and each not in self._paused]

    # --- what happens to a set ----------------------------------------------------------------------------------

    def step_down(self) -> None:
        """The primary gives up, and another member is elected; returns when there is one."""
        before = self.primary
        with self._client(before) as client, contextlib.suppress(PyMongoError):
            client.admin.command({"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 5})
        self._wait("nobody else was elected", lambda: self.primary is not before)

    @contextmanager
    def lagging(self, *members: _Member) -> Iterator[None]:
        """These members (all secondaries, if none is named) apply nothing in the block."""
        chosen = members or tuple(self.secondaries())
        _on_all(chosen, "rsSyncApplyStop", "alwaysOn")
        try:
            yield
        finally:
            _on_all(chosen, "rsSyncApplyStop", "off")

    @contextmanager
    def apart(self) -> Iterator[None]:
        """The secondaries fetch nothing of the primary in the block: what it acknowledges alone is on it alone."""
        chosen = tuple(self.secondaries())
        _on_all(chosen, "stopReplProducer", "alwaysOn")
        try:
            yield
        finally:
            _on_all([each for each in chosen if each.running], "stopReplProducer", "off")

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """The primary hears nobody in the block, nor does anybody hear the others: it gives up after a while."""
        chosen = self.secondaries()
        for member in chosen:
            member.pause()
        try:
            yield
        finally:
            for member in chosen:
                member.resume()

    @contextmanager
    def rolling_back(self) -> Iterator[None]:
        """Whatever the primary does in the block, and no other member has by its end, is rolled back: it dies, another
        one is elected without it, and it comes back to find that its own writes never were."""
        old = self.primary
        with self.apart():
            yield
            with self._client(old) as client:
                # What is rolled back has to be on its disk, or it would come back without it, which is less.
                client.admin.get_collection("flushed", write_concern=WriteConcern(1, j=True)).insert_one({})
            old.kill()
        self._wait("nobody else was elected", lambda: self.primary is not old)
        with self._client(self.primary) as client:
            majority = client.admin.get_collection("elected", write_concern=WriteConcern("majority"))
            majority.insert_one({})
        old.restart()
        self.wait_until_whole()

    # --- as one server ------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """The primary dies; the others elect another one."""
        self._down.append(self.primary)
        self._down[-1].kill()

    def restart(self) -> None:
        while self._down:
            self._down.pop().restart()
        self.wait_until_whole()

    def pause(self) -> None:
        self._paused.append(self.primary)
        self._paused[-1].pause()

    def resume(self) -> None:
        while self._paused:
            self._paused.pop().resume()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class SecuredMongod(Mongod):
    """A server that lets nobody in without a password. `url` is that of the application's user, who may do nothing
    before `admit`; `root` that of one who may do everything."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._password = secrets.token_hex(8)
        self._user = ""

    @property
    def url(self) -> str:
        return self._user

    @property
    def root(self) -> str:
        return f"mongodb://root:{self._password}@127.0.0.1:{self.port}/?directConnection=true&authSource=admin"

    def command(self) -> list[str]:
        return [*super().command(), "--keyFile", str(self._key())]

    def _key(self) -> Path:
        path = self.folder / "key"
        if not path.exists():
            path.write_text(secrets.token_hex(32))
            path.chmod(0o400)
        return path

    def ready(self) -> bool:
        # Anybody may say hello, and while there is no user, who comes from this host may make a set and one.
        with Client(f"mongodb://127.0.0.1:{self.port}/?directConnection=true", serverSelectionTimeoutMS=1000) as client:
            try:
                hello = client.admin.command("hello")
                if not hello.get("setName"):
                    self._initiate(client)
                if not hello.get("isWritablePrimary"):
                    return False
                self._make_users(client)
            except PyMongoError:
                return False
        return True

    def _make_users(self, nobody: Client) -> None:
        if self._user:
            return
        with contextlib.suppress(OperationFailure):
            nobody.admin.command("createUser", "root", pwd=self._password, roles=["root"])
        self._user = new_user(self.root)


MAKERS: Final[Mapping[str, Callable[..., Any]]] = {"one": Mongod, "replicas": ReplicaSet, "auth": SecuredMongod}
"""Name of a deployment to what makes one that nobody shares (`extra`: further arguments of `mongod`)."""


def _hosts(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _address(member: _Member) -> str:
    return f"127.0.0.1:{member.port}"


def _writable(member: _Member) -> bool:
    with Client(member.url, serverSelectionTimeoutMS=500, socketTimeoutMS=2000) as client:
        return bool(client.admin.command("hello").get("isWritablePrimary"))


def _on_all(members: Any, failpoint: str, mode: str) -> None:
    for member in members:
        with Client(member.url, serverSelectionTimeoutMS=5000) as client:
            client.admin.command("configureFailPoint", failpoint, mode=mode)
