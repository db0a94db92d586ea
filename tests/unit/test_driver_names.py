"""Every public name of the drivers' own objects: answered as the driver does, or refused by that name; none becomes a
collection that somebody calls. The names are those of the drivers that are installed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from motor.core import AgnosticClient, AgnosticCollection, AgnosticDatabase
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.collection import Collection as SyncCollection
from pymongo.database import Database as SyncDatabase
from pymongo.errors import InvalidName, ServerSelectionTimeoutError

from shadow import Shadow
from shadow.config import Settings
from shadow.errors import UnsupportedOperation
from shadow.stores.mongo.drivers import connect
from shadow.surface.collections.collection import Collection
from shadow.surface.collections.routed import RoutedCollection
from shadow.surface.database.driver_database import ForwardedClient
from shadow.surface.direct.forwarded import ForwardedCollection
from tests.support.cases import each_of

NOWHERE: Final = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50"
DATABASES: Final = (AsyncIOMotorDatabase, AgnosticDatabase, AsyncDatabase, SyncDatabase)
COLLECTIONS: Final = (AsyncIOMotorCollection, AgnosticCollection, AsyncCollection, SyncCollection)
CLIENTS: Final = (AsyncIOMotorClient, AgnosticClient, pymongo.AsyncMongoClient, pymongo.MongoClient)


def public(*kinds: type[Any]) -> list[str]:
    """Methods, properties, and what only instances have, as far as the class annotates it."""
    found = {name for kind in kinds for name in (*dir(kind), *inspect.get_annotations(kind))}
    return sorted(name for name in found if not name.startswith("_"))


@pytest.fixture(params=["motor", "pymongo"])
async def shadow(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its collection `both` is on two stores, `one` on MongoDB alone, and `other` is not configured."""
    monkeypatch.setattr(pymongo.common, "MIN_HEARTBEAT_INTERVAL", 0.01)  # how long it waits for its server at least
    client = connect(NOWHERE, request.param)
    settings = Settings(
        mongo={"url": NOWHERE, "driver": request.param},
        dynamo={"endpoint_url": "http://127.0.0.1:9", "access_key_id": "x", "secret_access_key": "x"},
        journal={"url": f"sqlite:///{tmp_path / 'journal.db'}"},
        collections={"both": {"phase": "shadow"}, "one": {"phase": "off"}},
    )
    yield Shadow.from_settings(settings, mongo_client=client)
    ending = client.close()
    if inspect.isawaitable(ending):
        await ending


def is_collection(found: Any) -> bool:
    return type(found) in (RoutedCollection, ForwardedCollection, Collection)


def answer(thing: Any, name: str) -> Any:
    """The attribute, or the refusal, which has to name it."""
    try:
        return getattr(thing, name)
    except UnsupportedOperation as error:
        return error if name in error.name else pytest.fail(f"{name} is refused as {error.name}")
    except (AttributeError, ServerSelectionTimeoutError) as error:
        return error  # Motor's client asks a server for some of what it answers


def test_the_drivers_have_names() -> None:
    """Else the tests below would try nothing."""
    assert {"command", "client", "name", "list_collection_names", "create_collection"} <= set(public(*DATABASES))
    assert {"find", "insert_one", "watch", "database", "full_name"} <= set(public(*COLLECTIONS))
    assert {"admin_command", "close", "start_session"} & set(public(*CLIENTS))


async def test_no_name_of_the_drivers_databases_is_a_collection(shadow: Shadow) -> None:
    taken = [name for name in public(*DATABASES) if is_collection(answer(shadow, name))]
    assert taken == []
    assert shadow.name == "notesllm"
    assert isinstance(shadow.client, ForwardedClient)


@each_of("name", ["both", "one", "other"])
async def test_no_name_of_the_drivers_collections_is_a_sub_collection(shadow: Shadow, name: str) -> None:
    # Where it is the driver's own, what that does not have itself is a sub-collection, as there.
    wanted = public(*COLLECTIONS) if name == "both" else public(type(shadow.admin.driver()[name]))
    taken = [each for each in wanted if is_collection(answer(shadow[name], each))]
    assert taken == []


async def test_no_name_of_the_drivers_clients_is_a_database(shadow: Shadow) -> None:
    of_database = type(shadow._engine.driver())
    for name in public(type(shadow._engine.driver().client)):
        found = answer(shadow.client, name)
        if inspect.iscoroutine(found):
            found.close()
        assert found is not shadow, name
        assert type(found) is not of_database, name


def objects(shadow: Shadow) -> Iterator[tuple[str, Any]]:
    yield "db", shadow
    yield "client", shadow.client
    for name in ("both", "one", "other"):
        yield name, shadow[name]


async def test_nothing_of_it_is_a_sequence(shadow: Shadow) -> None:
    """`for` and `in` would ask for `[0]`, `[1]`, ... and never end."""
    for _, thing in objects(shadow):
        for use in (iter, reversed, list, next, len, lambda each: "x" in each, lambda each: [*each]):
            with pytest.raises(TypeError):
                use(thing)
        with pytest.raises(TypeError, match="async for"):
            async for _ in thing:
                pass
        with pytest.raises(TypeError):
            await thing


async def test_truth_comparison_and_hash_are_the_drivers(shadow: Shadow) -> None:
    for name, thing in objects(shadow):
        assert thing == thing
        assert thing != 1
        assert thing is not None
        assert len({thing, thing}) == 1
        with pytest.raises(TypeError):
            _ = thing < thing
        if name != "client":
            with pytest.raises(NotImplementedError, match="compare with None"):
                bool(thing)
    assert shadow["both"] == shadow.both == shadow.get_collection("both")
    assert shadow["other"] == shadow["other"]
    assert shadow["both"] != shadow["one"]
    assert shadow.client == shadow.client
    assert hash(shadow.client) == hash(shadow.client)
    assert copy.copy(shadow.client) == shadow.client


@each_of("name", ["", "a..b", "$x", "a.$x", ".a", "a.", "a\x00b"])
async def test_names_that_the_drivers_refuse_are_refused_when_the_collection_is_made(shadow: Shadow, name: str) -> None:
    own = shadow._engine.driver()
    for make in (lambda: own[name], lambda: shadow[name], lambda: shadow.get_collection(name)):
        with pytest.raises(InvalidName):
            make()
    for parent in ("both", "one", "other"):
        with pytest.raises(InvalidName):
            shadow[parent][name]


@each_of("name", [0, None, b"x", ("a",), 1.5])
async def test_names_that_are_no_text_are_refused(shadow: Shadow, name: Any) -> None:
    for thing in (shadow, shadow["both"], shadow["one"], shadow["other"]):
        with pytest.raises(TypeError, match="must be an instance of str"):
            thing[name]


async def test_sub_collections_and_calls(shadow: Shadow) -> None:
    assert shadow["other"]["x"]["y"].name == shadow.other.x.y.name == "other.x.y"
    assert shadow["both"]["x"].name == "both.x"
    assert shadow["both"]["x"].database is shadow
    assert shadow.both.x.y.name == "both.x.y"
    for name in ("both", "one", "other"):
        with pytest.raises(TypeError, match="find_on"):
            shadow[name].find_on({})
    with pytest.raises(TypeError, match="listcollections"):
        shadow.listcollections()
    for name in ("_private", "__dunder__"):
        for thing in (shadow, shadow["both"], shadow["one"], shadow["other"]):
            with pytest.raises(AttributeError):
                getattr(thing, name)


EMBEDDING: Final = {
    "admin", "admin_router", "close", "database_name", "from_environment", "from_file", "from_settings", "lifespan",
    "prepare", "settled",
}  # fmt: skip
"""The names of a Shadow that are neither the driver's nor collections."""

SENSIBLE: Final = """
accounts activities activity addresses ads alerts albums answers api_keys applications appointments approvals archive
articles artists assets attachments attempts audio audit audits authors backups badges balances banners batches bids
billing blobs blocks blogs boards bookings bookmarks books brands budgets builds bundles cache calendars campaigns
cards carts catalogs categories channels charges chats checkouts checks cities claims classes clicks clients comments
companies configs configuration connections consents contacts content contracts conversations counters countries
coupons courses credits currencies current customers dashboards deals deliveries departments devices discounts
documents domains downloads drafts drivers emails embeddings employees entries enrollments errors events exams
exceptions exclusions excuses expected expenses experiments explain exports favorites features feedback feeds fields
files filters findings fleet flip flights folders follows forms forums forwarder friends galleries games
generated_content goals grades grants groups guests health heal history holidays hotels images imports inbox indexes
ingredients insights inspector installs instances integrations inventory invites invoices issues items jobs journal
journal_entries journal_stats keys keywords kept labels lagging languages leads learn leases lessons levels licenses
likes links listings lists loads locations locks logs logins media meetings members memberships mentions menus
merchants messages meta metrics migrations milestones models modules needs_mongo networks news newsletters nodes notes
notifications objects offers opportunities options orders organizations owners packages pages parts partners
passengers passwords patients payments payouts people permissions phones photos pipelines places plans players
playlists points policies polls portfolios positions posts predictions prices products profiles projects promotions
prompts properties providers pulse purchases queries questions queues quizzes quotes ratings reactions ready receipts
recipes records refunds regions releases reload reminders rentals report reports requests reservations reserved_of
responses results reviews rewards rights roles rooms routes rules runs sales samples schedules schemas scores searches
secrets sections segments sensors series services sessions settings shared_findings shipments sides sites skills slots
snapshots songs sources spaces start stations stats status steps stocks stores stories streams students subjects
subscribers subscriptions suggestions supervisor suppliers surveys tables tags targets tasks taxes teams templates
tenants tests themes threads tickets tiers tokens tools topics tracks transactions transcripts transfers translations
trips trust types uploads urls usage users variants vectors vehicles vendors venues versions videos views visitors
visits votes vouchers wallets warehouses webhooks widgets wishlists words workers workflows workspaces zones
""".split()  # noqa: SIM905


async def test_every_other_name_of_the_database_is_a_collection(shadow: Shadow) -> None:
    """Whatever an operator needs is under `admin`: no collection of an application is hidden by it."""
    drivers = set(public(*DATABASES))
    names = set(SENSIBLE) - drivers
    assert len(names) >= 200
    for name in names:
        found = getattr(shadow, name)
        assert is_collection(found)
        assert (found.name, found.database) == (name, shadow)
        assert found == shadow[name] == shadow.get_collection(name)
    assert set(public(Shadow)) - drivers - {"delegate", "io_loop"} == EMBEDDING  # those are of Motor's instances


async def test_a_collection_by_the_name_of_what_an_operator_needs(shadow: Shadow) -> None:
    for name in EMBEDDING:
        assert is_collection(shadow[name])
        assert shadow[name].name == name
