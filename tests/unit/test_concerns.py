"""What `with_options` accepts: any options of reads; for writes what the client of MongoDB keeps anyway, or less."""

from __future__ import annotations

from typing import Any

import pymongo
import pytest
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Nearest, PrimaryPreferred, Secondary, SecondaryPreferred

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Query
from shadow.model.read_options import ReadOptions
from shadow.model.reads import Aggregate, Count, Distinct, Find, FindOne, Read
from shadow.surface.calls.options import ClientDefaults, RequestedConcerns, check_concern, kept_by_client, kept_by_url
from tests.support.cases import each_of

PLAIN = "mongodb://host/"
MAJORITY = "mongodb://host/?w=majority&journal=true&readConcernLevel=majority&readPreference=secondaryPreferred"

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    (PLAIN, {}),
    (PLAIN, {"read_preference": ReadPreference.PRIMARY}),
    (PLAIN, {"read_preference": PrimaryPreferred(max_staleness=120)}),
    (PLAIN, {"read_preference": Nearest()}),
    (PLAIN, {"read_concern": ReadConcern("local")}),
    (PLAIN, {"read_concern": ReadConcern("majority")}),
    (MAJORITY, {"read_preference": ReadPreference.PRIMARY}),
    (MAJORITY, {"read_concern": ReadConcern("snapshot")}),
    (PLAIN, {"write_concern": WriteConcern()}),
    (PLAIN, {"write_concern": WriteConcern(w=1, j=False)}),
    (PLAIN, {"write_concern": WriteConcern(w="majority")}),
    (MAJORITY, {"write_concern": WriteConcern(w="majority")}),
    (MAJORITY, {"write_concern": WriteConcern(w="majority", j=True)}),
    (MAJORITY, {"write_concern": WriteConcern(w=1)}),
    (PLAIN, {"write_concern": WriteConcern(w=0)}),
    ("mongodb://host/?w=0", {"write_concern": WriteConcern(w=0)}),
    ("mongodb://host/?w=2&wtimeoutMS=500", {"write_concern": WriteConcern(w=2, wtimeout=500)}),
]

REFUSED: list[tuple[str, str, Any]] = [
    ("mongodb://host/?w=1", "write_concern", WriteConcern(w="majority")),
    ("mongodb://host/?w=3", "write_concern", WriteConcern(w="majority")),
    (PLAIN, "write_concern", WriteConcern(w=2)),
    (PLAIN, "write_concern", WriteConcern(j=True)),
    (PLAIN, "write_concern", WriteConcern(w=1, wtimeout=100)),
]


@each_of(("url", "options"), ACCEPTED)
def test_what_makes_no_difference_is_accepted(url: str, options: dict[str, Any]) -> None:
    kept_by_url(url).check(RequestedConcerns(**options))


@pytest.mark.parametrize(("url", "name", "value"), REFUSED)
def test_what_the_client_does_not_keep_is_refused_by_name(url: str, name: str, value: Any) -> None:
    with pytest.raises(UnsupportedOperation) as refused:
        kept_by_url(url).check(RequestedConcerns(**{name: value}))
    assert refused.value.name == f"with_options({name}=...)"


LINEARIZABLE: ReadOptions = ReadOptions(concern=ReadConcern("linearizable"))
SNAPSHOT: ReadOptions = ReadOptions(concern=ReadConcern("snapshot"))
MAJORITY_READ: ReadOptions = ReadOptions(Nearest(), ReadConcern("majority"))
BY_KEY: list[Read] = [
    FindOne(Query({"_id": 1}, read_options=LINEARIZABLE)),
    Find(Query({"$and": [{"n": 1}, {"_id": {"$eq": 1}}]}, read_options=LINEARIZABLE)),
    Count({"_id": {"$in": [1]}}, read_options=LINEARIZABLE),
    Distinct("n", {"_id": 1}, read_options=LINEARIZABLE),
    Aggregate([{"$match": {"_id": 1}}, {"$set": {"n": 1}}], read_options=LINEARIZABLE),
]
JOIN: dict[str, Any] = {"$lookup": {"from": "others", "localField": "n", "foreignField": "n", "as": "found"}}


@each_of("read", [*BY_KEY, FindOne(Query({"n": 1}, read_options=MAJORITY_READ)), Count({})])
def test_a_concern_that_every_store_honours(read: Read) -> None:
    check_concern(read)


@each_of(
    "read",
    [
        FindOne(Query({"_id": 1}, read_options=SNAPSHOT)),
        Find(Query({"_id": {"$gt": 1}}, read_options=LINEARIZABLE)),
        Find(Query({"$or": [{"_id": 1}, {"n": 1}]}, read_options=LINEARIZABLE)),
        Count({}, estimated=True, read_options=LINEARIZABLE),
        Distinct("n", {}, read_options=SNAPSHOT),
        Aggregate([], read_options=LINEARIZABLE),
        Aggregate([{"$match": {"_id": 1}}, JOIN], read_options=LINEARIZABLE),
    ],
)
def test_a_concern_that_only_mongodb_honours(read: Read) -> None:
    with pytest.raises(UnsupportedOperation, match="read_concern"):
        check_concern(read)


def test_a_member_that_lags_may_answer_unless_the_primary_is_preferred() -> None:
    lagging = (Secondary(), SecondaryPreferred(), Nearest(tag_sets=[{"dc": "east"}]))
    assert all(ReadOptions(each).lags for each in lagging)
    newest = (None, ReadPreference.PRIMARY, PrimaryPreferred(max_staleness=120))
    assert not any(ReadOptions(each, ReadConcern("local")).lags for each in newest)


@pytest.mark.parametrize("option", ["read_preference", "read_concern", "write_concern"])
def test_what_is_no_such_option_is_a_type_error(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        RequestedConcerns(**{option: "majority"})  # type: ignore[arg-type]


@pytest.mark.parametrize("url", [PLAIN, MAJORITY])
async def test_a_client_that_was_handed_in_says_the_same_as_its_address(url: str) -> None:
    client: AsyncMongoClient[dict[str, Any]] = pymongo.AsyncMongoClient(url, connect=False)
    kept = kept_by_client(client)
    assert kept == kept_by_url(url)
    assert isinstance(kept, ClientDefaults)
    await client.close()


def test_an_address_that_wants_a_lookup_of_names_is_only_read() -> None:
    assert kept_by_url("mongodb+srv://cluster.example/db?w=majority").write_concern == WriteConcern(w="majority")


@each_of(
    "options",
    [
        "authMechanism=SCRAM-SHA-256&authSource=admin",
        "authMechanism=SCRAM-SHA-1",
        "authMechanism=PLAIN&authSource=$external&tls=true",
        "authMechanism=GSSAPI&authSource=$external&authMechanismProperties=SERVICE_NAME:other",
        "authMechanism=MONGODB-X509&tls=true",
        "authMechanism=MONGODB-AWS",
        "tls=true&tlsAllowInvalidHostnames=true",
    ],
)
def test_how_a_client_proves_who_it_is_takes_no_part(options: str) -> None:
    """Its user and its files are not looked at here."""
    kept = kept_by_url(f"mongodb://user:password@host/?{options}&w=majority&readPreference=nearest")
    assert kept.write_concern == WriteConcern(w="majority")
    assert kept.read_preference == Nearest()
