"""What lacks of a user's rights on MongoDB is said by action and collection, with the commands that grant it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import OperationFailure
from typer.testing import CliRunner

from shadow import Shadow
from shadow.cli import app
from shadow.config import CollectionSettings, ControlSettings, Defaults, JournalSettings, Settings
from shadow.errors import ShadowError
from shadow.model.phase import Phase, StoreName
from shadow.rights import LackedRights, ask, needs
from shadow.stores.mongo.rights import User, grants
from tests.support.pair import until
from tests.support.shadows import Site
from tests.support.shims import assert_level, settings_for
from tests.support.tool import Tool
from tests.support.topologies import root_url

NAME = "things"
Privileges = list[tuple[str, str, set[str]]]
"""Database, collection, actions."""


@pytest.fixture
def root(least_role_url: str) -> Any:
    with MongoClient[dict[str, Any]](root_url(least_role_url)) as client:
        yield client


@pytest.fixture
def user(root: Any, least_role_url: str, least_role_database: str) -> Callable[..., str]:
    """Makes a user with roles, or privileges, of one's own, and answers the url of it."""

    def make(roles: list[Any] = [], privileges: Privileges = [], *, of: str = "admin") -> str:  # noqa: B006
        name, password = f"u{secrets.token_hex(4)}", secrets.token_hex(8)
        if privileges:
            listed = [
                {"resource": {"db": database, "collection": collection}, "actions": sorted(actions)}
                for database, collection, actions in privileges
            ]
            root.admin.command("createRole", f"role_{name}", privileges=listed, roles=[])
            roles = [*roles, {"role": f"role_{name}", "db": "admin"}]
        root[of].command("createUser", name, pwd=password, roles=roles)
        address = least_role_url.rpartition("@")[2].partition("/")[0]
        return f"mongodb://{name}:{password}@{address}/?directConnection=true&authSource={of}"

    return make


@pytest.fixture
def settings(dynamodb_local_url: str, least_role_database: str, tmp_path: Path) -> Callable[..., Settings]:
    def make(
        url: str,
        *,
        primary: StoreName = StoreName.MONGO,
        phase: Phase = Phase.SHADOW,
        servers: bool = False,
        driver: str = "motor",
    ) -> Settings:
        made = settings_for(
            tmp_path, url, dynamodb_local_url, least_role_database, [NAME], primary=primary, phase=phase, driver=driver
        )
        more: dict[str, Any] = {"collections": {NAME: CollectionSettings(unique=("code",))}}
        if servers:
            more |= {
                "journal": JournalSettings(url="mongodb:///?journal=j"),
                "control": ControlSettings(url="mongodb:///?control=c"),
            }
        return made.model_copy(update=more)

    return make


async def lacking(settings: Settings) -> list[LackedRights]:
    async with AsyncMongoClient[dict[str, Any]](settings.mongo.url.get_secret_value()) as client:
        return await ask(settings, settings.routes(), client.get_database)


def named(found: list[LackedRights]) -> set[tuple[str, str]]:
    return {(lack.resource, action) for each in found for lack in each.lacks for action in lack.actions}


BOTH = pytest.mark.parametrize("primary", list(StoreName))


@BOTH
@pytest.mark.parametrize("phase", list(Phase))
async def test_the_role_of_the_readme_is_enough_for_everything(
    user: Any, settings: Any, least_role_database: str, primary: StoreName, phase: Phase
) -> None:
    read_write = {"role": "readWrite", "db": least_role_database}
    assert await lacking(settings(user([read_write]), primary=primary, phase=phase, servers=True)) == []


async def test_roles_are_counted_wherever_they_come_from(
    root: Any, user: Any, settings: Any, least_role_database: str
) -> None:
    database = least_role_database
    root[database].command("createRole", "team", privileges=[], roles=["readWrite"])
    root[database].command("createRole", "writers", privileges=[], roles=["team"])
    for url in (
        user([{"role": "writers", "db": database}]),
        user([{"role": "readWriteAnyDatabase", "db": "admin"}]),
        user(["readWrite"], of=database),
        user(["root"]),
    ):
        assert await lacking(settings(url, servers=True)) == []


async def test_a_server_without_authorization_asks_nobody(settings: Any, one_mongod_url: str) -> None:
    assert await lacking(settings(one_mongod_url, servers=True)) == []


async def test_a_url_without_a_user_is_told_that_the_server_asks_for_one(settings: Any, least_role_url: str) -> None:
    address = least_role_url.rpartition("@")[2].partition("/")[0]
    (found,) = await lacking(settings(f"mongodb://{address}/?directConnection=true"))
    assert found.stops
    assert "names no user" in str(found)


@BOTH
async def test_where_mongodb_alone_is_written_or_not_used_nothing_is_asked(
    user: Any, settings: Any, least_role_database: str, primary: StoreName
) -> None:
    assert await lacking(settings(user(), primary=primary, phase=Phase.OFF)) == []


@BOTH
async def test_what_lacks_is_named_by_action_and_collection_and_the_commands_grant_it(
    root: Any, user: Any, settings: Any, least_role_database: str, primary: StoreName
) -> None:
    database = least_role_database
    url = user(privileges=[(database, NAME, {"find"}), (database, "j.intents", {"find", "insert"})])
    made = settings(url, primary=primary, servers=True)
    (found,) = await lacking(made)
    assert found.stops
    wanted = {(f"{need.database}.{need.collection}" if need.collection else need.database, action)
              for each in needs(made, made.routes()).values() for need in each for action in need.actions}  # fmt: skip
    had = {(f"{database}.{NAME}", "find"), (f"{database}.j.intents", "find"), (f"{database}.j.intents", "insert")}
    assert named([found]) == wanted - had
    for resource, action in named([found]):
        assert action in str(found)
        assert resource in str(found)
    for grant in grants(found.user, found.lacks):
        assert str(grant) in str(found)
        root[grant.database].command(dict(grant.command))
    assert await lacking(made) == []
    # Once more for what comes later: the role is there by then.
    more = made.model_copy(update={"collections": {**made.collections, "others": CollectionSettings()}})
    (found,) = await lacking(more)
    for grant in grants(found.user, found.lacks):
        root[grant.database].command(dict(grant.command))
    assert await lacking(more) == []


async def test_a_user_without_rights_is_given_the_readme_s_role(
    root: Any, user: Any, settings: Any, least_role_database: str
) -> None:
    made = settings(user(), servers=True)
    (found,) = await lacking(made)
    (grant,) = grants(found.user, found.lacks)
    assert grant.command["roles"] == [{"role": "readWrite", "db": least_role_database}]
    root[grant.database].command(dict(grant.command))
    assert await lacking(made) == []


async def test_a_validator_wants_a_right_more_where_mongodb_takes_copies(
    root: Any, user: Any, settings: Any, least_role_database: str
) -> None:
    database = least_role_database
    root[database].create_collection(NAME, validator={"n": {"$type": "int"}})
    url = user([{"role": "readWrite", "db": database}])
    assert await lacking(settings(url, primary=StoreName.MONGO)) == []
    (found,) = await lacking(settings(url, primary=StoreName.DYNAMO))
    assert named([found]) == {(f"{database}.{NAME}", "bypassDocumentValidation")}
    assert not found.stops
    for grant in grants(found.user, found.lacks):
        root[grant.database].command(dict(grant.command))
    assert await lacking(settings(url, primary=StoreName.DYNAMO)) == []


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@BOTH
async def test_exactly_what_is_needed_does_for_writes_heals_and_tables(
    root: Any, user: Any, settings: Any, least_role_database: str, driver: str, primary: StoreName
) -> None:
    plain = settings("mongodb://host", primary=primary, servers=True)
    wanted = [
        (need.database, need.collection, set(need.actions))
        for each in needs(plain, plain.routes()).values()
        for need in each
    ]
    made = settings(user(privileges=wanted), primary=primary, servers=True, driver=driver)
    async with Shadow.from_settings(made) as shadow:
        await shadow.prepare()
        things = shadow[NAME]
        await things.insert_many([{"_id": n, "code": n, "n": n} for n in range(4)])
        await things.update_one({"n": 1}, {"$set": {"n": 7}})
        await things.update_one({"_id": 9}, {"$set": {"code": 9}}, upsert=True)
        await things.replace_one({"_id": 2}, {"code": 12})
        await things.delete_one({"_id": 3})
        assert await things.count_documents({}) == 4
        assert sorted(await things.distinct("code")) == [0, 1, 9, 12]
        await assert_level(shadow)
        await shadow.prepare()
        assert (await shadow.admin.heal(NAME, 1)).value != "failed"
        assert not shadow.admin.rights.found
        refused = shadow.admin.metrics_registry.totals()
        assert not refused.get("internal_failures"), refused


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("actions", [{"find"}, {"insert"}])
async def test_in_phase_off_a_role_may_be_as_small_as_the_application_s_own_calls(
    user: Any, settings: Any, least_role_database: str, driver: str, actions: set[str]
) -> None:
    url = user(privileges=[(least_role_database, NAME, actions)])
    async with Shadow.from_settings(settings(url, phase=Phase.OFF, driver=driver)) as shadow:
        things = shadow[NAME]
        if "find" in actions:
            assert await things.find_one({"_id": 1}) is None
        else:
            await things.insert_one({"_id": 1})
        with pytest.raises(OperationFailure) as refused:
            await (things.insert_one({"_id": 2}) if "find" in actions else things.find_one({"_id": 1}))
        assert refused.value.code == 13


@pytest.mark.parametrize(
    ("granted", "level"), [({"find"}, logging.ERROR), ({"find", "insert", "update", "remove"}, logging.WARNING)]
)
async def test_it_is_said_at_start_once_and_by_the_checks(
    user: Any, settings: Any, least_role_database: str, caplog: pytest.LogCaptureFixture,
    granted: set[str], level: int,
) -> None:  # fmt: skip
    url = user(privileges=[(least_role_database, NAME, granted)])
    async with Shadow.from_settings(settings(url)) as shadow:
        await until(lambda: bool(shadow.admin.rights.found))
        assert NAME in (await shadow.admin.ready())[1]["rights"]
        assert (await shadow.admin.status())["rights_lacking"] == [str(each) for each in shadow.admin.rights.found]
    told = [each for each in caplog.records if "rights.lacking" in each.getMessage()]
    assert [each.levelno for each in told] == [level]
    assert "createRole" in told[0].getMessage()
    assert url.partition("@")[0].rpartition(":")[2] not in told[0].getMessage()


async def test_config_check_says_it_on_request(root: Any, user: Any, least_role_database: str, tmp_path: Path) -> None:
    url = user([{"role": "read", "db": least_role_database}])
    file = tmp_path / "shadow.yaml"
    file.write_text(
        f"mongo: {{url: '{url}', database: {least_role_database}}}\n"
        f"journal: {{url: 'sqlite:///{tmp_path}/j.db'}}\ncollections: {{{NAME}: {{}}}}\n"
    )

    def check(*options: str) -> Any:
        return CliRunner().invoke(app, ["config", "check", "-c", str(file), *options])

    assert (await asyncio.to_thread(check)).exit_code == 0
    said = await asyncio.to_thread(check, "--connect")
    assert said.exit_code == 1
    assert f"insert, remove, update on {least_role_database}.{NAME}" in said.output
    as_json: Mapping[str, Any] = json.loads((await asyncio.to_thread(check, "--connect", "--json")).output)
    assert as_json["rights_lacking"]
    name = url.removeprefix("mongodb://").partition(":")[0]
    root.admin.command("grantRolesToUser", name, roles=[{"role": "readWrite", "db": least_role_database}])
    assert (await asyncio.to_thread(check, "--connect")).exit_code == 0


@pytest.fixture
def tool(dynamodb_local_url: str, least_role_url: str, least_role_database: str, tmp_path: Path) -> Any:
    """Makes a `Tool` for a user of one's own."""

    def make(url: str, **more: Any) -> Tool:
        site = Site(url, least_role_database, dynamodb_local_url, f"{least_role_database}-", str(tmp_path / "j.db"))
        site = dataclasses.replace(
            site, collection=NAME, limits={"settle": 0.05, "operation": 5.0}, patience=10.0, **more
        )
        return Tool(site, tmp_path)

    return make


@pytest.mark.parametrize(
    ("words", "primary", "granted", "lacks"),
    [
        (["tables", "create"], "mongo", {"find", "listIndexes"}, "createIndex"),
        (["backfill"], "mongo", {"insert"}, "find"),
        (["backfill"], "dynamo", {"insert"}, "find"),
        (["verify"], "mongo", {"insert"}, "find"),
        (["verify"], "dynamo", {"insert"}, "find"),
        (["flip", NAME, "--to", "dynamo", "--rehearse", "--force", "--reason", "a test"], "mongo", {"find"}, "remove"),
    ],
    ids=lambda each: each if isinstance(each, str) else " ".join(each[:2] if isinstance(each, list) else sorted(each)),
)
async def test_a_command_that_a_lacking_right_stops_says_which_and_how_it_is_granted(
    root: Any, user: Any, tool: Any, least_role_url: str, least_role_database: str,
    words: list[str], primary: str, granted: set[str], lacks: str,
) -> None:  # fmt: skip
    database = least_role_database
    if words[0] != "tables":
        await tool(least_role_url, primary=primary)("tables", "create")
    if words[0] == "flip":
        async with Shadow.from_file(tool(least_role_url, primary=primary).config) as shadow:
            await shadow[NAME].insert_one({"_id": 2})
    root[database][NAME].insert_one({"_id": 1})
    url = user(privileges=[(database, NAME, granted), (database, "", {"listCollections"})])
    with pytest.raises(ShadowError) as caught:
        await tool(url, primary=primary)(*words)
    assert caught.value.hint.startswith("mongo.url: the user")
    assert lacks in caught.value.hint
    assert f"{database}.{'shadow_rehearsal' if '--rehearse' in words else NAME}" in caught.value.hint
    assert "createRole" in caught.value.hint
    assert url.partition("@")[0].rpartition(":")[2] not in str(caught.value)


async def test_a_job_whose_documents_are_refused_for_a_right_says_so_at_its_end(
    root: Any, user: Any, tool: Any, least_role_url: str, least_role_database: str
) -> None:
    """An update that the user may not make stops no job: each document is an issue of its own."""
    database = least_role_database
    able = tool(least_role_url, primary="dynamo", phase="dual_write")
    await able("tables", "create")
    async with Shadow.from_file(able.config) as shadow:
        await shadow[NAME].insert_many([{"_id": n} for n in range(3)])
        await shadow.settled(20)
    root[database][NAME].update_many({}, {"$set": {"n": 1, "_shadow": None}})
    granted = {"find", "insert", "listIndexes", "createIndex", "dropIndex"}
    url = user(privileges=[(database, NAME, granted), (database, "", {"listCollections"})])
    said = await tool(url, primary="dynamo")("backfill")
    assert said.code == 1, said
    assert "13" in said.out
    assert said.err.count("rights: mongo.url: the user") == 1
    assert f"update on {database}.{NAME}" in said.err
    assert "createRole" in said.err


async def test_a_heal_that_is_refused_for_a_right_says_so(
    root: Any, user: Any, tool: Any, least_role_url: str, least_role_database: str
) -> None:
    database = least_role_database
    able = tool(least_role_url, primary="dynamo")
    await able("tables", "create")
    url = user(privileges=[(database, NAME, {"find"}), (database, "", {"listCollections"})])
    poor = tool(url, primary="dynamo")
    async with Shadow.from_file(poor.config) as shadow:
        await shadow[NAME].insert_one({"_id": 1})
    said = await poor("journal", "heal", "--apply")
    assert said.code == 1
    assert "rights: mongo.url: the user" in said.err
    assert f"insert, update on {database}.{NAME}" in said.err
    assert "createRole" in said.err


def test_a_privilege_covers_what_its_resource_says() -> None:
    def may(resource: dict[str, Any], collection: str = "users", actions: list[str] | None = None) -> bool:
        user = User("u", "admin", (), ({"resource": resource, "actions": actions or ["find"]},))
        return user.may("find", "notes", collection)

    assert may({"db": "notes", "collection": "users"})
    assert may({"db": "notes", "collection": ""})
    assert may({"db": "", "collection": "users"})
    assert may({"db": "", "collection": ""})
    assert may({"anyResource": True})
    assert may({"db": "notes", "collection": ""}, "")
    assert may({"db": "notes", "collection": "users"}, actions=["anyAction"])
    assert not may({"db": "notes", "collection": "others"})
    assert not may({"db": "others", "collection": ""})
    assert not may({"db": "notes", "collection": "users"}, "")
    assert not may({"db": "notes", "collection": ""}, "system.profile")
    assert not may({"cluster": True})
    assert not may({"db": "notes", "collection": "users"}, actions=["insert"])


def test_defaults_are_those_of_the_settings() -> None:
    made = Settings(defaults=Defaults(phase=Phase.SHADOW), collections={"users": CollectionSettings()})
    assert [need.collection for need in needs(made, made.routes())["mongo.url"] if need.writes] == ["users"]
