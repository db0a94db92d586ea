"""With which write concern writes go, by what the client asks for and how many members there are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pymongo import WriteConcern

from shadow.config import parse
from shadow.errors import ConfigurationError
from shadow.stores.mongo.durability import Durability, election, members, strengthened
from tests.support.cases import each_of

MAJORITY = WriteConcern("majority")

TABLE: list[tuple[WriteConcern, int, WriteConcern]] = [
    # A member that is alone has nobody to roll back to; but a write without an answer is no acknowledged one.
    (WriteConcern(), 1, WriteConcern()),
    (WriteConcern(w=1), 1, WriteConcern(w=1)),
    (WriteConcern(w=1, j=False), 1, WriteConcern(w=1, j=False)),
    (WriteConcern(w=0), 1, MAJORITY),
    # The server's own default may be less than a majority, whatever it is by default.
    (WriteConcern(), 3, MAJORITY),
    (WriteConcern(w=0), 3, MAJORITY),
    (WriteConcern(w=1), 3, MAJORITY),
    (WriteConcern(w=1), 2, MAJORITY),
    (WriteConcern(w=2), 3, MAJORITY),
    (WriteConcern(w=2), 5, MAJORITY),
    (WriteConcern(w=1, j=True, wtimeout=500), 3, WriteConcern("majority", j=True, wtimeout=500)),
    (WriteConcern("majority"), 3, MAJORITY),
    (WriteConcern("majority", j=False), 3, MAJORITY),
    # More than a majority is not made less, nor is what the set has a name for.
    (WriteConcern(w=3), 3, WriteConcern(w=3)),
    (WriteConcern(w=4), 5, WriteConcern(w=4)),
    (WriteConcern("two-places"), 3, WriteConcern("two-places")),
]


@each_of(("asked", "count", "wanted"), TABLE)
def test_what_could_be_rolled_back_is_raised_to_a_majority(
    asked: WriteConcern, count: int, wanted: WriteConcern
) -> None:
    assert strengthened(asked, count).document == wanted.document


def server(kind: str, hosts: int = 0, term: int | None = None) -> Any:
    return SimpleNamespace(
        server_type_name=kind,
        all_hosts={("h", n) for n in range(hosts)},
        election_id=term,
    )


def description(*servers: Any) -> Any:
    return SimpleNamespace(server_descriptions=lambda: dict(enumerate(servers)))


@each_of(
    ("servers", "count"),
    [
        ([], None),
        ([server("Unknown")], None),
        ([server("Standalone")], 1),
        ([server("RSPrimary", 1)], 1),
        ([server("RSPrimary", 3)], 3),
        ([server("Unknown"), server("RSSecondary", 3)], 3),
        # While members are added, they do not all know it yet.
        ([server("RSPrimary", 3), server("RSSecondary", 1)], 3),
        ([server("Mongos")], 3),
        ([server("LoadBalancer")], 3),
    ],
)
def test_members_are_counted_as_the_servers_tell_of_them(servers: list[Any], count: int | None) -> None:
    assert members(description(*servers)) == count


@pytest.mark.parametrize(
    ("hello", "replicated"),
    [
        ({"isWritablePrimary": True}, False),
        ({"setName": "rs", "hosts": ["a:1"]}, False),
        ({"setName": "rs", "hosts": ["a:1", "b:1"], "arbiters": ["c:1"]}, True),
        ({"msg": "isdbgrid"}, True),
    ],
)
async def test_a_client_that_tells_nothing_of_the_servers_has_them_asked_once(
    hello: dict[str, Any], replicated: bool
) -> None:
    asked: list[str] = []

    async def command(name: str) -> dict[str, Any]:
        asked.append(name)
        return hello

    database = SimpleNamespace(command=command)
    link: Any = SimpleNamespace(client=SimpleNamespace(write_concern=WriteConcern(w=1)), database=lambda name: database)
    durability = Durability(link)
    concerns = [await durability.for_application() for _ in range(3)]
    assert (durability.replicated, asked) == (replicated, ["hello"])
    assert concerns == [MAJORITY if replicated else WriteConcern(w=1)] * 3


def test_an_election_is_the_latest_that_a_primary_tells_of() -> None:
    assert election(description(server("RSSecondary", 3, 9), server("Unknown"))) is None
    assert election(description(server("RSPrimary", 3, 4), server("RSSecondary", 3))) == 4


def test_a_url_without_acknowledgement_is_a_fault_where_weak_writes_are_refused() -> None:
    url = "mongodb://host/?w=0"
    assert parse(f"mongo: {{url: '{url}'}}").mongo.url.get_secret_value() == url
    with pytest.raises(ConfigurationError, match="w=majority"):
        parse(f"mongo: {{url: '{url}', weak_writes: refuse}}")
