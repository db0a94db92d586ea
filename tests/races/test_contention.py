"""Callers that meet each other come to what they come to on bare MongoDB: every verb, in every phase, on either
primary, in one process and in several. To lose a race is never "none", no change is lost, nothing is done twice, and
both stores are level afterwards.

`SHADOW_LONG=1` has every scenario with every number of callers everywhere. An ordinary run has half of the places,
drawn, with every phase, either primary, one process and several among them; each scenario is in two of them on
average, and in four with `--all-drawn`. A hundred callers at once cost as much as all others together: a quarter of the
scenarios have them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pymongo
import pytest

from shadow.embedded.audit import dynamo_client
from shadow.model.version import Document
from tests.support.contention import SCENARIOS, Told
from tests.support.crew import Crew
from tests.support.shadows import COLLECTION, Site

LONG = os.environ.get("SHADOW_LONG") == "1"
CALLERS: Final = (1, 8, 40, 100)
PROCESSES: Final = (1, 4)
"""Of four processes with one caller together three would have nothing to do: there it is one in each."""
PLACES: Final = [
    (phase, primary, processes)
    for phase in ("off", "dual_write", "shadow")
    for primary in ("mongo", "dynamo")
    for processes in PROCESSES
]
_LIMITS: Final = {"write_deadline": 10.0, "operation": 180.0}
"""So long that a loaded machine changes no outcome."""
_DRAW: Final = (max(CALLERS), None, None, 8, None, None, 40, None, None, 1, None, None)
"""The numbers of callers that a scenario has in the places of an ordinary run; other scenarios begin elsewhere."""
_MOST: Final = 4
"""Of so many scenarios one has the largest number of callers, and the others half a dozen more than the documents that
all of them change."""
_FEW: Final = 12


def drawn(place: int) -> list[tuple[str, int]]:
    """The scenarios of a place, each with a number of callers."""
    if LONG:
        return [(name, callers) for name in SCENARIOS for callers in CALLERS]
    draws = [(number, name, _DRAW[(number * 5 + place) % len(PLACES)]) for number, name in enumerate(SCENARIOS)]
    return [
        (name, callers if callers < max(CALLERS) or number % _MOST == 0 else _FEW)
        for number, name, callers in draws
        if callers is not None
    ]


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    made = Crew(max(PROCESSES))
    yield made
    made.end()


class Stage:
    """One collection on its stores, past the library: empty before each scenario, looked at after it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._client = pymongo.MongoClient[dict[str, Any]](site.mongo_url)
        self._things = self._client[site.database][COLLECTION]

    def standing(self) -> list[Document]:
        return list(self._things.find())

    def fill(self, documents: Sequence[Document]) -> None:
        if documents:
            self._things.insert_many(documents)

    def empty(self, *, dynamo: bool) -> None:
        self._things.delete_many({})
        if not dynamo:
            return
        client, table = dynamo_client(self._site.dynamo_url), f"{self._site.prefix}{COLLECTION}"
        for page in client.get_paginator("scan").paginate(
            TableName=table, ProjectionExpression="#k", ExpressionAttributeNames={"#k": "_id"}
        ):
            keys = [{"DeleteRequest": {"Key": item}} for item in page["Items"]]
            for first in range(0, len(keys), 25):
                client.batch_write_item(RequestItems={table: keys[first : first + 25]})

    def close(self) -> None:
        self._client.close()


def judged(name: str, callers: int, answers: Sequence[Told], documents: Sequence[Document]) -> str:
    """What is wrong; "" if nothing is."""
    scenario = SCENARIOS[name]
    try:
        found, wanted = scenario.comes_to(answers, documents), scenario.wanted(callers)
    except Exception as error:
        return f"{name}, {callers} callers: {error!r} of {answers} and {documents}"
    return "" if found == wanted else f"{name}, {callers} callers: {found}, and not {wanted}"


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.timeout(600)
async def test_bare_mongodb_comes_to_it(site: Site, crew: Crew, processes: int) -> None:
    """What the scenarios ask of the library is what the driver gives."""
    stage, wrong = Stage(site), []
    await crew.open(processes, site, bare=True)
    places = [number for number, place in enumerate(PLACES) if place[2] == processes]
    for name, callers in sorted({each for place in places for each in drawn(place)}):
        callers = max(callers, processes)
        await asyncio.to_thread(stage.empty, dynamo=False)
        await asyncio.to_thread(stage.fill, SCENARIOS[name].fill(callers))
        answers = await crew.meet(processes, name, callers)
        wrong.append(judged(name, callers, answers, await asyncio.to_thread(stage.standing)))
    await crew.close(processes)
    stage.close()
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.timeout(3600 if LONG else 600)
@pytest.mark.drawn_over("phase", "primary", "processes", of=len(PLACES) // 2, reason="the same scenarios elsewhere")
@pytest.mark.parametrize(("phase", "primary", "processes"), PLACES)
async def test_callers_that_meet(site: Site, crew: Crew, phase: str, primary: str, processes: int) -> None:
    place = PLACES.index((phase, primary, processes))
    site = site.but(primary=primary, phase=phase, limits=_LIMITS, patience=60.0)
    stage, wrong = Stage(site), []
    async with site.shadow() as shadow:
        await shadow.prepare()
        await crew.open(processes, site, bare=False)
        for name, callers in drawn(place):
            callers = max(callers, processes)
            await asyncio.to_thread(stage.empty, dynamo=True)
            if documents := SCENARIOS[name].fill(callers):
                await shadow[COLLECTION].insert_many(documents)
            answers = await crew.meet(processes, name, callers)
            assert await shadow.settled(90), (name, callers, (await shadow.admin.status())["journal"])
            wrong.append(judged(name, callers, answers, list((await site.documents()).values())))
            if phase != "off" and (apart := await site.disagreements()):
                wrong.append(f"{name}, {callers} callers: not level, {apart}")
        await crew.close(processes)
    stage.close()
    assert not any(wrong), "\n".join(filter(None, wrong))


async def test_one_upsert_by_filter_inserts_where_dynamodb_answers(site: Site, crew: Crew) -> None:
    """Where MongoDB itself may insert several."""
    site = site.but(primary="dynamo", limits=_LIMITS, patience=60.0)
    async with site.shadow() as shadow:
        await shadow.prepare()
        await crew.open(4, site, bare=False)
        await crew.meet(4, "update_one, upsert by a filter", 40)
        await crew.close(4)
        (document,) = await shadow[COLLECTION].find({}).to_list(None)
        assert document["n"] == 40
