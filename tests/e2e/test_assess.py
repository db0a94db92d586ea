"""`shadow assess` on a real mongod with real documents and odd ones: what it finds, what it leaves alone, what it says
to a user who may only read, and that no value leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import WriteError
from typer.testing import CliRunner

from shadow.assess import server as assess_server
from shadow.assess.server import Server
from shadow.cli import app, main
from shadow.config import load
from shadow.embedded.servers import Mongod
from shadow.errors import ConfigurationError, ShadowError, StoreUnavailable
from shadow.model.schema import IndexSpec, UniqueSpec
from shadow.stores.mongo.validators import mended
from tests.support import assessed, documents, services
from tests.support.assessed import SECRET, SECRET_KEY
from tests.support.browser import open_page

DATABASE = "shop"
SHORT = ("--watch", "0.2", "--rate", "1000000")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Mongod]:
    with services.start(Mongod) as made:
        assessed.fill(made.url, DATABASE, documents.load())
        assessed.record(made.url, DATABASE)
        yield made


def call(*arguments: str) -> Any:
    """The verb, in this process; an error that ends the program is raised."""
    result = CliRunner(env={"COLUMNS": "200", "SHADOW_CONFIG": ""}).invoke(app, ["assess", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def found(server: Mongod, *arguments: str) -> dict[str, Any]:
    result = call("--mongo-url", server.url, "--database", DATABASE, *SHORT, "--json", *arguments)
    said: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (1 if said["blockers"] else 0)
    return said


@pytest.fixture(scope="module")
def whole(server: Mongod) -> dict[str, Any]:
    return found(server, "--whole")


def collection(said: dict[str, Any], name: str) -> dict[str, Any]:
    one: dict[str, Any] = next(each for each in said["collections"] if each["name"] == name)
    return one


def remarks(said: dict[str, Any], name: str, kind: str) -> list[dict[str, Any]]:
    return [each for each in said["remarks"] if each["collection"] == name and each["kind"] == kind]


def test_every_document_is_looked_at_and_the_odd_ones_are_told(
    whole: dict[str, Any], real_documents: dict[str, list[dict[str, Any]]]
) -> None:
    for name, expected in real_documents.items():
        one = collection(whole, name)
        assert (one["documents"], one["looked_at"]) == (len(expected), len(expected)), name
    odd = collection(whole, "odd")
    assert (odd["looked_at"], odd["deepest"]) == (209, 40)
    sizes = odd["sizes"]
    assert (sizes["compressed"], sizes["unnamed"], sizes["split"], sizes["most_parts"], sizes["near"]) == (
        2,
        1,
        1,
        2,
        1,
    )
    assert sum(each["documents"] for each in sizes["histogram"]) == 209
    (keys,) = (each for each in odd["keys"] if each["path"] == "_id")
    assert keys["aside"] == {"double": 1, "decimal": 1, "object": 1}
    assert {each["path"] for each in odd["fields"] if each["path"].startswith("by")} == {"by", "by.*", "by.*.n"}


def test_indexes_become_what_the_table_can_have(whole: dict[str, Any]) -> None:
    become = {
        (one["name"], index["name"]): (index["becomes"], index["warning"])
        for one in whole["collections"]
        for index in one["indexes"]
    }
    assert become["users", "email_1"] == ("unique constraint email_1 and index email-index: hash email", "")
    assert become["customers", "by_user"] == ("index username-index: hash username", "")
    assert "text queries" in become["customers", "address_text"][1]
    assert "TTL deletes bypass shadow" in become["customers", "birthdate_1"][1]
    assert "geo queries" in become["theaters", "location.geo_2dsphere"][1]
    assert "at the top level" in become["theaters", "location.address.zipcode_1"][1]
    assert "mostly a list" in become["accounts", "products_1"][1]
    assert "one value of limit" in become["accounts", "limit_1_account_id_-1"][1]
    assert "no constraint on some" in become["accounts", "account_id_1"][1]
    assert "compares bytes" in become["books", "title_1"][1]
    assert become["books", "isbn_1"][0] == "index isbn-index: hash isbn"
    assert "one value of code" in become["odd", "code_1_at_1"][1]


def test_recorded_queries_are_told_by_how_they_will_be_answered(whole: dict[str, Any]) -> None:
    told = {(each["collection"], each["verb"], each["shape"]): each for each in whole["queries"]}
    assert told["users", "find", "{_id: $eq}"]["served"] == "key"
    assert told["users", "find", "{_id: $eq}"]["hottest"][0]["share"] == 1.0
    assert told["customers", "find", "{username: $eq}"]["detail"] == "username-index"
    wanted = told["customers", "find", "{email: $eq} sort -birthdate"]
    assert (wanted["count"], wanted["detail"], wanted["sorted_here"]) == (30, "email_birthdate-index", False)
    assert told["theaters", "find", "{location.address.city: $eq}"]["served"] == "scan"
    assert told["theaters", "find", "{location.geo: $near}"]["detail"] == "$near"
    assert told["books", "aggregate", "{status: $eq} | $addFields"]["detail"] == "$function"
    assert "one value of limit" in told["accounts", "delete", "{limit: $eq}"]["suggestion"]
    verbs = {each["verb"] for each in whole["queries"] if each["collection"] == "accounts"}
    assert verbs == {"update", "delete", "count", "distinct"}
    blockers = {each["collection"] for each in whole["remarks"] if each["severity"] == "blocker"}
    assert blockers == {"books", "theaters", "strict", "counted", "own", "x"}
    assert whole["left_out"].keys() == {"seen", "x"}


def test_validators_that_refuse_the_version_are_found_and_the_mend_mends(new_mongod: Callable[..., Mongod]) -> None:
    """Shown by the server itself: before, a version is refused; after the mend it is not, and nothing is said."""
    server = new_mongod()
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        strict = client[DATABASE]["strict"]
        for n in range(10):
            strict.insert_one({"name": f"{SECRET}{n}"})
        client[DATABASE].command("collMod", "strict", validator=assessed.closed())
        (remark, _note) = remarks(found(server), "strict", "validator")
        assert remark["severity"] == "blocker"
        assert "asked about 10 documents" in remark["text"]
        assert 'collMod: "strict"' in remark["mend"]
        stamped = {"$set": {"_shadow": {"b": "x", "r": 1}}}
        with pytest.raises(WriteError):
            strict.update_one({}, stamped)
        client[DATABASE].command("collMod", "strict", validator=mended(assessed.closed(), "_shadow"))
        assert strict.update_one({}, stamped).modified_count == 1
        said = found(server)
        assert [each["severity"] for each in remarks(said, "strict", "validator")] == ["note"]
        assert said["blockers"] == 0
        assert collection(said, "strict")["stamped"] == 1


def test_an_expression_that_counts_fields_is_found_by_asking_the_server(whole: dict[str, Any]) -> None:
    first = remarks(whole, "counted", "validator")[0]
    assert (first["severity"], "asked about 5 documents" in first["text"]) == ("blocker", True)


def test_the_written_configuration_loads_and_is_what_was_designed(server: Mongod, tmp_path: Path) -> None:
    """By `load`, by `shadow config check`, and by the stores that get it; a file that is there stays."""
    file, html = tmp_path / "new" / "shadow.yaml", tmp_path / "assess.html"
    arguments = ("--mongo-url", server.url, "--database", DATABASE, *SHORT, "--out", str(file), "--html", str(html))
    assert call(*arguments).exit_code == 1
    settings = load(file, {})
    specs = settings.specs()
    assert settings.mongo.database == DATABASE
    assert specs["users"].indexes == (IndexSpec("email-index", "email"),)
    assert specs["users"].unique == (UniqueSpec("email_1", ("email",)),)
    assert specs["own"].reserved == "_shadow_version"
    assert "x" not in specs
    assert {route.phase.value for route in settings.routes().values()} == {"off"}
    checked = CliRunner().invoke(app, ["config", "check", "--config", str(file)])
    assert (checked.exit_code, "no faults" in checked.stdout) == (0, True)
    before = file.read_text("utf-8")
    assert call(*arguments).exit_code == 2
    assert file.read_text("utf-8") == before
    assert call(*arguments, "--force").exit_code == 1
    again = found(server, "--config", str(file), "--collection", "own", "--collection", "users")
    assert (again["blockers"], len(again["collections"])) == (0, 2), "with the reserved field of its own"


@pytest.mark.takes_turns
async def test_the_page_stands_by_itself_light_and_dark(server: Mongod, tmp_path: Path) -> None:
    """Nothing is loaded, nothing runs, nothing is wider than the window."""
    html = tmp_path / "assess.html"
    arguments = ("--mongo-url", server.url, "--database", DATABASE, *SHORT, "--html", str(html))
    await asyncio.to_thread(call, *arguments)
    text = html.read_text("utf-8")
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text
    try:
        async with open_page() as page:
            for width, dark in ((1200, False), (1200, True), (420, False)):
                await page.go(html.as_uri(), width=width, dark=dark)
                assert await page.value("document.documentElement.scrollWidth <= window.innerWidth")
                assert await page.value("document.querySelectorAll('svg rect.bar').length") > 20
                ground = await page.value("getComputedStyle(document.body).backgroundColor")
                assert (ground == "rgb(255, 255, 255)") != dark
            assert await page.value("[...document.styleSheets].length") == 1
    except ShadowError as error:
        services.missing("a browser", error)


# --- what it leaves alone ---------------------------------------------------------------------------------------


def test_nothing_is_written_and_every_request_is_gentle(new_mongod: Callable[..., Mongod]) -> None:
    """By the hashes of all data, by the oplog, and by the profiler's own record of every request."""
    server = new_mongod()
    assessed.fill(server.url, DATABASE, {"users": documents.load()["users"]})
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        before = client[DATABASE].command("dbHash")["collections"]
        client[DATABASE].command("profile", 2)
        last = next(client["local"]["oplog.rs"].find(sort=[("$natural", -1)], limit=1))["ts"]
        found(server, "--whole")
        found(server, "--sample", "20")
        client[DATABASE].command("profile", 0)
        written = client["local"]["oplog.rs"].find(
            {"ts": {"$gt": last}, "op": {"$ne": "n"}, "ns": {"$not": {"$regex": "^config"}}}
        )
        assert list(written) == []
        assert client[DATABASE].command("dbHash")["collections"] == before
        entries = list(client[DATABASE]["system.profile"].find({"command.comment": "shadow assess"}))
        assert len(entries) > 30
        assert {entry["op"] for entry in entries} <= {"query", "command"}
        reads = [each["command"] for each in entries if {"find", "aggregate"} & set(each["command"])]
        assert all(each["maxTimeMS"] == 30_000 for each in reads)
        walks = [each for each in reads if "find" in each and each["find"] != "system.profile"]
        assert walks
        # A driver that was told to talk to one server alone asks it as the second.
        modes = {each["$readPreference"]["mode"] for each in walks}
        assert modes <= {"secondaryPreferred", "primaryPreferred"}
        assert client[DATABASE].command("profile", -1)["was"] == 0


def test_a_sample_is_taken_at_random_and_each_document_counts_once(new_mongod: Callable[..., Mongod]) -> None:
    server = new_mongod()
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        client[DATABASE]["many"].insert_many([{"n": n} for n in range(3000)])
        client[DATABASE]["keys"].insert_many([{"_id": key} for key in (None, 1, "a", True, *range(10, 250))])
    said = found(server, "--sample", "300")
    many, keys = collection(said, "many"), collection(said, "keys")
    assert (many["documents"], many["looked_at"], many["whole"]) == (3000, 300, False)
    assert (keys["documents"], keys["looked_at"], keys["whole"]) == (244, 244, True)
    assert many["units"]["scan"] == pytest.approx(3000 * 180 / 4096, rel=0.2), "of all, not of those looked at"


@pytest.mark.parametrize("why", ["time limit", "the same again and again", "slow"])
def test_where_documents_at_random_take_too_long_the_first_ones_by_key_do(
    new_mongod: Callable[..., Mongod], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    taken = []
    take = Server._take

    async def slowly(self: Server, collection: str, size: int) -> Any:
        taken.append(size)
        if len(taken) > 1 and why != "slow":
            raise pymongo.errors.OperationFailure(why, {"time limit": 50}.get(why, 28799))
        return await take(self, collection, size)

    monkeypatch.setattr(Server, "_take", slowly)
    if why == "slow":
        monkeypatch.setattr(assess_server, "_SLOW", 0.0)
    server = new_mongod()
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        client[DATABASE]["many"].insert_many([{"n": n} for n in range(3000)])
    said = found(server, "--sample", "900")
    many = collection(said, "many")
    assert (many["looked_at"], many["whole"]) == (900, False)
    assert len(taken) == (3 if why == "slow" else 2)
    (remark,) = remarks(said, "many", "sample")
    assert "the first ones by key" in remark["text"]


def test_rates_that_the_server_tells_become_money(new_mongod: Callable[..., Mongod]) -> None:
    """What happened since the server started counts where it is more than what happens now; what is stated is first."""
    server = new_mongod()
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        for n in range(200):
            client[DATABASE]["things"].insert_one({"_id": n})
        for n in range(100):
            client[DATABASE]["things"].find_one({"_id": n})
    one = collection(found(server), "things")
    assert one["rates"]["inserts"] > 0
    assert one["rates"]["reads"] > 0
    assert one["costs"]["full_month"] > one["costs"]["dual_write_month"] > one["costs"]["storage_month"] > 0
    stated = collection(found(server, "--reads", "things=1000", "--writes", "500"), "things")
    assert stated["costs"]["full_month"] > 800 > one["costs"]["full_month"]
    assert stated["rates"]["reads"] == 1000


# --- who may only read ------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(new_mongod: Callable[..., Mongod], tmp_path: Path) -> Mongod:
    """A server with users: `reader` may read the database and do nothing else."""
    key = tmp_path / "key"
    key.write_text("c2hhZG93" * 8)
    key.chmod(0o400)
    server = new_mongod(extra=("--auth", "--keyFile", str(key)))
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        client.admin.command("createUser", "root", pwd="root", roles=["root"])
    with pymongo.MongoClient[dict[str, Any]](with_user(server, "root", "root")) as client:
        client.admin.command("createUser", "reader", pwd=SECRET, roles=[{"role": "read", "db": DATABASE}])
        client.admin.command("createUser", "nobody", pwd="nobody", roles=[])
        client[DATABASE]["users"].insert_many([{"email": f"{SECRET}{n}"} for n in range(50)])
        client[DATABASE]["users"].create_index("email", unique=True)
        client[DATABASE].command("collMod", "users", validator=assessed.closed())
        client[DATABASE].command("profile", 2)
    return server


def with_user(server: Mongod, name: str, password: str) -> str:
    return server.url.replace("mongodb://", f"mongodb://{name}:{password}@").replace("/?", "/?authSource=admin&")


def test_a_user_who_may_only_read_is_told_what_is_missing(guarded: Mongod, tmp_path: Path) -> None:
    """Sizes, types, indexes and writes are known; what is not is said, with the role that would tell. The password is
    in no file."""
    url, file, html = with_user(guarded, "reader", SECRET), tmp_path / "shadow.yaml", tmp_path / "a.html"
    result = call("--mongo-url", url, "--database", DATABASE, *SHORT, "--out", str(file), "--html", str(html), "--json")
    said = json.loads(result.stdout)
    users = collection(said, "users")
    assert users["looked_at"] == 50
    assert users["indexes"][0]["becomes"].startswith("unique constraint email_1")
    assert users["rates"]["updates"] == 0
    assert users["rates"]["reads"] is users["costs"]["full_month"] is None
    missing = {each["text"].partition(":")[0]: each["mend"] for each in remarks(said, "", "rights")}
    assert missing.keys() >= {"top", "serverStatus", "system.profile"}
    assert "clusterMonitor" in missing["top"]
    assert "dbAdmin" in missing["system.profile"]
    (lacks, *more) = remarks(said, "users", "rights")
    assert f"lacks insert, remove, update on {DATABASE}.users (reads and writes of the application)" in lacks["text"]
    assert any("bypassDocumentValidation" in each["text"] for each in more)
    (commands,) = (each["mend"] for each in remarks(said, "", "rights") if "mongosh" in each["mend"])
    assert "readWrite" in commands
    assert "bypassDocumentValidation" in commands
    assert result.exit_code == (1 if said["blockers"] else 0)
    for text in (result.stdout, file.read_text("utf-8"), html.read_text("utf-8")):
        assert SECRET not in text
    assert "SHADOW_MONGO_URL" in file.read_text("utf-8")
    assert load(file, {"SHADOW_MONGO_URL": url}).mongo.url.get_secret_value() == url


def test_who_may_all_that_the_migration_needs_is_told_nothing_of_it(guarded: Mongod) -> None:
    said = json.loads(
        call("--mongo-url", with_user(guarded, "root", "root"), "--database", DATABASE, *SHORT, "--json").stdout
    )
    assert not [each for each in said["remarks"] if each["kind"] == "rights" and "lacks" in each["text"]]


def test_who_may_nothing_is_an_error_with_a_hint(guarded: Mongod) -> None:
    for name, password in (("nobody", "nobody"), ("reader", "wrong-password")):
        with pytest.raises(StoreUnavailable) as caught:
            call("--mongo-url", with_user(guarded, name, password), "--database", DATABASE, *SHORT)
        assert password not in str(caught.value) or name == password
        assert caught.value.hint


def test_a_server_that_is_not_there_ends_with_exit_code_3(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    url = "mongodb://ann:pw-hunter2@127.0.0.1:9/?serverSelectionTimeoutMS=200"
    monkeypatch.setattr("sys.argv", ["shadow", "assess", "--mongo-url", url])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert "mongo: ServerSelectionTimeoutError" in said
    assert "hunter2" not in said


def test_wrong_use_is_said_before_anything_is_asked(tmp_path: Path, server: Mongod) -> None:
    lines = tmp_path / "queries.jsonl"
    lines.write_text(f'{{"collection": "users"}}\n{SECRET}\n')
    for arguments in (
        ("--queries", str(lines)),
        ("--queries", "/nowhere"),
        ("--reads", SECRET),
        ("--writes", "users="),
    ):
        result = call("--mongo-url", "mongodb://127.0.0.1:9", *arguments)
        assert result.exit_code == 2, arguments
        assert SECRET not in result.output or arguments[1] == SECRET
    with pytest.raises(ConfigurationError):
        call("--config", str(lines))
    with pytest.raises(StoreUnavailable, match="no collection nothing"):
        call("--mongo-url", server.url, "--database", DATABASE, "--collection", "nothing")


def test_queries_of_a_file_are_told_beside_those_of_the_profiler(server: Mongod, tmp_path: Path) -> None:
    lines = tmp_path / "queries.jsonl"
    lines.write_text(
        f'{{"collection": "books", "filter": {{"authors": "{SECRET}"}}, "sort": {{"title": 1}}, "count": 9}}\n'
    )
    said = found(server, "--queries", str(lines), "--collection", "books")
    assert "1 recorded queries, the profiler" in said["queries_from"]
    told = next(each for each in said["queries"] if each["shape"] == "{authors: $eq} sort title")
    assert (told["count"], told["served"]) == (9, "scan")


# --- privacy ----------------------------------------------------------------------------------------------------


def test_no_value_of_a_document_query_or_validator_leaves(
    server: Mongod, tmp_path: Path, whole: dict[str, Any]
) -> None:
    """The secret stands in values, keys, names of map entries, filters, a view, a validator, a password hash field."""
    file, html, lines = tmp_path / "shadow.yaml", tmp_path / "assess.html", tmp_path / "queries.jsonl"
    lines.write_text(f'{{"collection": "odd", "filter": {{"by.{SECRET}@example.org": "{SECRET}"}}}}\n')
    arguments = ("--mongo-url", server.url, "--database", DATABASE, *SHORT, "--whole")
    result = call(*arguments, "--queries", str(lines), "--out", str(file), "--html", str(html))
    assert file.exists(), (result.output, result.exception)
    for text in (result.output, json.dumps(whole), file.read_text("utf-8"), html.read_text("utf-8")):
        assert SECRET not in text
        assert str(SECRET_KEY) not in text
        assert "$2b$" not in text
        assert "gameofthron" not in text
