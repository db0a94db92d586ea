"""The demo: the sample backend on shadow, over real servers, with all the faults that shadow should find.

Traffic runs all the time. Some documents of the secondary are damaged with the bare driver and must be found. The
secondary goes down and comes back. The primary of one collection is flipped by editing the configuration file. At the
end both stores are read with the bare drivers and must be equal.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import bson
import uvicorn
import yaml
from bson import ObjectId, json_util
from fastapi import FastAPI
from pymongo import MongoClient

from shadow.client import Shadow
from shadow.embedded.audit import Audit, dynamo_client
from shadow.embedded.notesllm import create_app, worker
from shadow.embedded.servers import DynamoDBLocal, FaultProxy, Ministack, Mongod, ServerProcess
from shadow.embedded.showing import RAMP, RAMPED, Showing
from shadow.embedded.traffic import Person, Traffic
from shadow.errors import ConfigurationError, Fault
from shadow.model.order import key_digest
from shadow.model.phase import StoreName
from shadow.model.version import Document, Key, fresh_id

__all__ = ["Demo", "DemoOptions", "DemoReport"]

Say = Callable[[float, str], None]
"""Called with the completed share (0 to 1) and the current step."""

_PATIENCE: Final = 120.0
"""Seconds to wait for each condition, even on a busy machine."""
_BACKENDS: Final = ("driver", "beanie")
_INDEXES: Final = {
    "users": [{"name": "email-index", "hash": "email"}],
    "documents": [{"name": "user_id-index", "hash": "user_id"}],
    "generated_content": [{"name": "document_id-index", "hash": "document_id"}],
}


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """`dynamo`: "ministack", "local" (DynamoDB Local) or an endpoint. `mongo_url`: a server to use instead of an
    embedded one. `data`: a folder with one extended-JSON file per collection. `backend`: "driver" (the sample backend
    calls the driver itself) or "beanie" (its twin on that ODM, which takes PyMongo's client and so needs `driver`
    "pymongo")."""

    seconds: float = 20.0
    dynamo: str = "ministack"
    mongo_url: str | None = None
    driver: str = "motor"
    data: Path | None = None
    people: int = 4
    backend: str = "driver"


@dataclasses.dataclass(frozen=True)
class DemoReport:
    """The result of the demo. `faults` describes everything that went wrong."""

    operations: int
    comparisons: int
    verdicts: dict[str, int]
    damaged: int
    found: int
    journal_open: int
    stores_equal: bool
    flips: int
    seconds: float
    requests: int
    documents_loaded: int
    unexplained: int
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.faults


class Demo:
    """`async with Demo(options, say) as demo: report = await demo.run()`. The servers stop with the block."""

    def __init__(self, options: DemoOptions, say: Say = lambda share, what: None) -> None:
        self.options = options
        self._say = say
        self._stack = AsyncExitStack()
        self._faults: list[str] = []
        self._damaged: list[tuple[str, Key]] = []
        self._flips = 0
        self._id = fresh_id()[-8:]

    async def __aenter__(self) -> Demo:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    # --- setup -----------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        _checked_backend(self.options)
        self._data = _read_data(self.options.data)
        self._say(0.0, "starting the servers")
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="shadow-demo-")))
        self.mongo_url = self.options.mongo_url or await self._server(Mongod())
        self.dynamo_url = await self._start_dynamo()
        self.proxy = await self._stack.enter_async_context(FaultProxy.before(self.dynamo_url))
        self.config = self._folder / "shadow.yaml"
        self._settings = self._describe()
        self._write_config()
        self.shadow = await self._stack.enter_async_context(Shadow.from_file(self.config))
        specs = self.shadow.admin.settings.specs()
        self.audit = Audit(self.mongo_url, self.shadow.name, self.dynamo_url, self._prefix, specs)
        self._stack.callback(self._clean_up, specs)
        self._say(0.02, "creating the tables")
        await self.shadow.prepare()
        self._notes = await _notes_of(self.options.backend, self.shadow)
        self.app_url = await self._stack.enter_async_context(_served(self._app()))

    async def _server(self, server: ServerProcess) -> str:
        await self._stack.enter_async_context(server)
        return server.url

    async def _start_dynamo(self) -> str:
        match self.options.dynamo:
            case "ministack":
                return await self._server(Ministack())
            case "local":
                return await self._server(DynamoDBLocal())
            case url if url.startswith("http://"):
                return url
            case other:
                raise ConfigurationError("shadow demo", [Fault("--dynamo", other, "ministack, local or http://...")])

    @property
    def _prefix(self) -> str:
        return f"demo-{self._id}-"

    def _describe(self) -> dict[str, Any]:
        """The comparison has generous limits: the traffic shares the application's event loop and delays it, and on a
        busy machine shadow reads would be shed all the time."""
        names = {**dict.fromkeys(self._data, ()), **_INDEXES}
        return {
            "mongo": {"url": self.mongo_url, "database": f"shadow_demo_{self._id}", "driver": self.options.driver},
            "dynamo": {
                "endpoint_url": self.proxy.url,
                "table_prefix": self._prefix,
                "access_key_id": "local",
                "secret_access_key": "local",
                "connect_timeout": 1.0,
                "read_timeout": 5.0,
            },
            "journal": {"url": f"sqlite:///{self._folder / 'shadow.db'}"},
            "defaults": {"primary": "mongo", "phase": "shadow"},
            "collections": {name: {"indexes": list(indexes)} for name, indexes in names.items()},
            "limits": {"in_flight_timeout": 2.0, "read_deadline": 5.0, "loop_lag": 5.0},
            "watch_every": 0.2,
        }

    def _write_config(self) -> None:
        """Atomically, so that the watch never reads half a file."""
        draft = self.config.with_suffix(".new")
        draft.write_text(yaml.safe_dump(self._settings, sort_keys=False), encoding="utf-8")
        draft.replace(self.config)

    def _app(self) -> FastAPI:
        app = create_app(self.shadow, password_cost=2**4, notes=self._notes)
        app.include_router(self.shadow.admin_router())
        return app

    def _clean_up(self, specs: Mapping[str, Any]) -> None:
        """Removes everything from servers that were not started here."""
        with MongoClient[Any](self.mongo_url, serverSelectionTimeoutMS=2000) as client, contextlib.suppress(Exception):
            client.drop_database(self.shadow.name)
        if self.options.dynamo.startswith("http://"):
            for name in specs:
                with contextlib.suppress(Exception):
                    dynamo_client(self.dynamo_url).delete_table(TableName=f"{self._prefix}{name}")

    # --- the run ------------------------------------------------------------------------------------------------

    async def run(self) -> DemoReport:
        """Runs the whole demo once."""
        self._began = time.monotonic()
        stop = asyncio.Event()
        traffic = Traffic(self.app_url, people=self.options.people)
        work = asyncio.create_task(worker(self.shadow, stop, poll_seconds=0.2, notes=self._notes))
        running = asyncio.create_task(traffic.run())
        try:
            await self._story(traffic)
        finally:
            traffic.stop.set()
            await asyncio.gather(running, return_exceptions=True)
            stop.set()
            await asyncio.gather(work, return_exceptions=True)
            await traffic.close()
        for name, task in (("traffic", running), ("worker", work)):
            if (error := task.exception()) is not None:
                self._faults.append(f"the {name} ended with {type(error).__name__}")
        self._faults += [f"{count} requests failed with {name}" for name, count in traffic.faults.items()]
        return await self._conclude(traffic)

    async def _story(self, traffic: Traffic) -> None:
        await self._load_data()
        quiet = traffic.person("quiet@example.org")
        await quiet.sign_up()
        await quiet.upload(8)
        await self._until(0.25, "traffic: users, documents, worker")
        await self._damage(quiet)
        await self._until(0.35, "traffic, with damage in the secondary")
        await self._search(quiet)
        await self._outage()
        await self._flip("documents")
        await self._until(1.0, "traffic, with DynamoDB as the primary of documents")

    async def _until(self, share: float, what: str) -> None:
        end = self._began + self.options.seconds * share
        while (left := end - time.monotonic()) > 0:
            self._say(1 - (self.options.seconds - (time.monotonic() - self._began)) / self.options.seconds, what)
            await asyncio.sleep(min(0.2, left))

    async def _load_data(self) -> None:
        """Writes real documents through shadow and reads them back through it."""
        for name, documents in self._data.items():
            self._say(0.05, f"loading {len(documents)} documents into {name}")
            collection = self.shadow[name]
            for start in range(0, len(documents), 100):
                await collection.insert_many([dict(each) for each in documents[start : start + 100]])
            wanted = {key_digest(each["_id"]): bson.encode(_first_key(each)) for each in documents}
            got = {key_digest(each["_id"]): bson.encode(each) async for each in collection.find({})}
            wrong = sum(got.get(digest) != raw for digest, raw in wanted.items())
            if wrong:
                self._faults.append(f"{wrong} documents of {name} were not read back as they were written")
        # The loading does not count as traffic time.
        self._began = time.monotonic() if self._data else self._began

    async def _damage(self, quiet: Person) -> None:
        """Damages documents that nobody writes, so that only reads can find the damage."""
        self._say(0.25, "damaging documents in the secondary with the bare driver")
        await self._wait("the quiet documents are ready", lambda: self._all_ready(quiet))
        keys = [ObjectId(each) for each in quiet.documents]
        summary = await self.shadow["generated_content"].find_one({"document_id": keys[5]})
        touched: list[tuple[str, Key]] = [*(("documents", key) for key in keys), ("generated_content", summary["_id"])]
        await self._wait("the quiet documents are in both stores", lambda: self._none_open(touched))
        owner = (await self.shadow["documents"].find_one({"_id": keys[0]}))["user_id"]
        extra = {"_id": ObjectId(), "user_id": owner, "title": "Never written", "created_at": _long_ago()}

        def work() -> None:
            self.audit.damage("documents", keys[0], "title", {"S": "Not what was written"})
            self.audit.damage("documents", keys[1], "text", {"S": ""})
            self.audit.damage("documents", keys[2], "pages", {"S": "1"})
            self.audit.remove("documents", keys[3])
            self.audit.damage("documents", keys[4], "smuggled", {"BOOL": True})
            self.audit.damage("generated_content", summary["_id"], "tokens", {"N": "-1"})
            self.audit.plant("documents", extra)

        await asyncio.to_thread(work)
        self._damaged = [("documents", key) for key in (*keys[:5], extra["_id"])]
        self._damaged.append(("generated_content", summary["_id"]))

    async def _all_ready(self, quiet: Person) -> bool:
        listed = (await quiet.ask("GET", "/documents", params={"limit": 100})).json()
        return len(listed) == len(quiet.documents) and all(each["status"] == "ready" for each in listed)

    async def _none_open(self, touched: list[tuple[str, Key]]) -> bool:
        return not any([await self.shadow.admin.lagging(name, key) for name, key in touched])

    async def _search(self, quiet: Person) -> None:
        """Reads until all the damage is found, then repairs it."""

        async def all_found() -> bool:
            await quiet.read_all()
            return self._found() == len(self._damaged)

        await self._wait("all damage is found", all_found)
        self._say(0.45, "repairing what was found")
        for name, key in self._damaged:
            await self.shadow.admin.heal(name, key)

    def _found(self) -> int:
        return sum(self.shadow.admin.findings.knows(name, key) for name, key in self._damaged)

    async def _outage(self) -> None:
        self._say(0.5, "the secondary refuses connections")
        self.proxy.mode = "refuse"
        await self._until(0.58, "traffic, with the secondary refusing connections")
        self.proxy.mode = "hang"
        await self._until(0.66, "traffic, with the secondary hanging")
        self.proxy.clear()
        await self._wait("the secondary is up again", self._secondary_up)
        await self._until(0.8, "traffic, with the secondary back")

    async def _secondary_up(self) -> bool:
        return bool((await self.shadow.admin.status())["stores"]["dynamo"]["up"])

    async def _flip(self, collection: str) -> None:
        """By editing the file, as an operator would."""
        self._say(0.8, f"flipping {collection} to DynamoDB by editing the file")
        self._settings["collections"][collection] |= {
            "primary": "dynamo",
            "forced": "the demo is too short for the gates",
        }
        self._write_config()

        async def flipped() -> bool:
            return self.shadow.admin.routes()[collection].primary is StoreName.DYNAMO

        await self._wait(f"{collection} is flipped", flipped)
        self._flips += await flipped()

    async def _wait(self, what: str, done: Callable[[], Any]) -> None:
        """Waits for a condition. Reports a fault if it never becomes true."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while not await done():  # noqa: ASYNC110 - the conditions are in servers and files
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self._faults.append(f"after {_PATIENCE:g} s it was still not true that {what}")

    # --- the end ------------------------------------------------------------------------------------------------

    async def _conclude(self, traffic: Traffic) -> DemoReport:
        self._say(1.0, "waiting for the journal, then reading both stores with the bare drivers")
        if not await self.shadow.settled(_PATIENCE):
            self._faults.append(f"the journal was not empty within {_PATIENCE:g} s")
        status = await self.shadow.admin.status()
        apart = await asyncio.to_thread(self.audit.disagreements)
        self._faults += [f"{each.collection}: {each.what}" for each in apart]
        found, unexplained = self._found(), self.shadow.admin.findings.summary()["kept"] - self._found()
        if found < len(self._damaged) or not self._damaged:
            self._faults.append(f"{found} of {len(self._damaged)} damaged documents were found")
        if unexplained:
            self._faults.append(f"{unexplained} mismatches that nobody planted")
        if not self._flips:
            self._faults.append("the primary was not flipped")
        totals, journal = status["totals"], status["journal"]
        return DemoReport(
            operations=totals["operations"],
            comparisons=totals["comparisons"],
            verdicts={name: count for name, count in totals["verdicts"].items() if count},
            damaged=len(self._damaged),
            found=found,
            journal_open=sum(journal["open"].values()) + sum(journal["deferred"].values()),
            stores_equal=not apart,
            flips=self._flips,
            seconds=round(time.monotonic() - self._began, 1),
            requests=traffic.requests,
            documents_loaded=sum(map(len, self._data.values())),
            unexplained=unexplained,
            faults=tuple(self._faults),
        )

    async def serve(self) -> None:
        """Light traffic until cancelled, with damage that is found and repaired, and a ramp of reads."""
        self._settings["collections"][RAMPED] |= {"reads": {"dynamo": dict(RAMP)}}
        self._write_config()
        traffic = Traffic(self.app_url, people=2, pause=0.3, seed=int(time.time()))
        showing = Showing(self.shadow, self.audit, traffic.person("watched@example.org"))
        stop = asyncio.Event()
        work = asyncio.create_task(worker(self.shadow, stop, poll_seconds=1.0, notes=self._notes))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(traffic.run())
                group.create_task(showing.run())
        finally:
            stop.set()
            await asyncio.gather(work, return_exceptions=True)
            await traffic.close()

    @property
    def addresses(self) -> dict[str, str]:
        """Where everything is, what a person looks at first."""
        return {
            "console": f"{self.app_url}/console",
            "backend": f"{self.app_url}/docs",
            "status": f"{self.app_url}/status",
            "findings": f"{self.app_url}/findings",
            "metrics": f"{self.app_url}/metrics",
            "ready": f"{self.app_url}/readyz",
            "mongodb": f"{self.mongo_url} (database {self.shadow.name})",
            "dynamodb": f"{self.dynamo_url} (tables {self._prefix}*)",
            "config": f"{self.config} (edit it: the file is watched)",
        }


def _checked_backend(options: DemoOptions) -> None:
    """Raises `ConfigurationError` for a backend that there is not, or not with this driver."""
    if options.backend not in _BACKENDS:
        raise ConfigurationError("shadow demo", [Fault("--backend", options.backend, "driver or beanie")])
    if options.backend == "beanie" and options.driver != "pymongo":
        raise ConfigurationError("shadow demo", [Fault("--driver", options.driver, "pymongo, which Beanie takes")])


async def _notes_of(backend: str, database: Any) -> Any:
    """What the sample backend uses in place of its own calls of the driver; None for these."""
    if backend != "beanie":
        return None
    # Imported here: Beanie is an extra, which the demo does without.
    from shadow.embedded.notesllm.beanie_notes import BeanieNotes

    return await BeanieNotes.begin(database)


@asynccontextmanager
async def _served(app: FastAPI) -> AsyncIterator[str]:
    """Serves the application over HTTP on a free port of 127.0.0.1; yields its base address."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    # Signal handlers belong to the program, not to a server inside it.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    serving = asyncio.create_task(server.serve())
    while not server.started:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.02)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await serving


def _read_data(folder: Path | None) -> dict[str, list[Document]]:
    """Documents by collection, from one file per collection with one extended-JSON document per line."""
    if folder is None:
        return {}
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ConfigurationError("shadow demo", [Fault("--data", str(folder), "a folder with NAME.json files")])
    return {file.stem: list(_lines(file)) for file in files}


def _lines(file: Path) -> list[Document]:
    options = json_util.JSONOptions(tz_aware=False)
    documents = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            documents += [json_util.loads(line, json_options=options)] if line.strip() else []
        except ValueError:
            place = f"{file.name}, line {number}"
            raise ConfigurationError("shadow demo", [Fault(place, "not JSON", "one extended-JSON document")]) from None
    return documents


def _first_key(document: Document) -> Document:
    return {"_id": document["_id"], **document}


def _long_ago() -> dt.datetime:
    return dt.datetime(2020, 1, 1)
