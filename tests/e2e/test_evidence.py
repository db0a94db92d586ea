"""The page for a change board: made from a running application, read in a browser, and without any value."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from shadow import Shadow
from shadow.fleet.history import SharedHistory
from tests.e2e.test_migration_commands import Operator
from tests.support.browser import open_page
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

SECRET = "nobody-may-see-this"
COUNT = 40
WRONG = 3
RULES = [{"name": "clock", "rule": "ignore", "path": "at"}]


@pytest.fixture
async def running(
    mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Shadow, Operator, Site]]:  # fmt: skip
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    site = Site(mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"))
    operator = Operator(site, tmp_path)
    content = yaml.safe_load(operator.config.read_text())
    content |= {"defaults": {"phase": "shadow"}, "collections": {COLLECTION: {"compare": RULES}}}
    content |= {"observe": {"holdout": 0.0, "noise_share": 1.0}, "control": {"heartbeat": 0.1}}
    operator.config.write_text(yaml.safe_dump(content))
    async with Shadow.from_file(operator.config) as shadow:
        await shadow.prepare()
        yield shadow, operator, site


async def compare(shadow: Shadow, operator: Operator, site: Site) -> None:
    """Every document is read once: most are equal, one differs where a rule excuses it, some differ."""
    things = shadow[COLLECTION]
    await things.insert_many({"_id": n, "text": f"{SECRET}-{n}", "at": n} for n in range(COUNT))
    assert await shadow.settled(60)
    await asyncio.to_thread(operator.run, "backfill", COLLECTION)
    for n in range(WRONG + 1):
        field, value = ("at", {"N": "-1"}) if n == 0 else ("text", {"S": f"{SECRET}-wrong"})
        await asyncio.to_thread(site.audit.damage, COLLECTION, n, field, value)
    for n in range(COUNT):
        found = await things.find_one({"_id": n})
        assert found is not None
    own = shadow.admin.report.history
    await until(lambda: own.of(COLLECTION).decided >= COUNT and own.of(COLLECTION).measured >= COUNT)


class Reader(HTMLParser):
    """What a person reads of a page, and what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.texts))


async def test_the_page_says_what_a_board_asks(running: tuple[Shadow, Operator, Site], tmp_path: Path) -> None:
    shadow, operator, site = running
    await compare(shadow, operator, site)
    await asyncio.to_thread(operator.run, "verify", COLLECTION, code=1)
    flip = ("flip", COLLECTION, "--to", "dynamo")
    await asyncio.to_thread(operator.run, *flip, "--rehearse")
    compared = shadow.admin.report.history.of(COLLECTION).decided
    await SharedHistory(shadow.admin.report.history, shadow.admin.fleet.records).exchange(ending=True)

    file = tmp_path / "evidence" / "things.html"
    told = await asyncio.to_thread(operator.json, "evidence", COLLECTION, "--out", str(file), code=1)
    assert (told["compared"], told["mismatches"]) == (compared, WRONG)
    assert (told["noise"]["mismatches"], told["excused"]) == (0, {"clock": 1})
    assert {"findings", "equal", "compared"} <= set(told["closed"])
    assert "way back" not in told["closed"]

    page = Reader()
    page.feed(file.read_text())
    assert (page.fetched, "script" in page.tags) == ([], False)
    assert SECRET not in file.read_text()
    for wanted in (
        "things: evidence for a flip to dynamo",
        f"{WRONG / compared:.3%}",
        "clock ignore at for good 1",
        "1 ms at most",
        "rehearsal",
        "full, 100%",
        "SHA-256",
        "shadow_reads: 1.0",
    ):
        assert like(wanted).search(page.text), (wanted, page.text)
    assert "already" in await asyncio.to_thread(operator.run, "evidence", COLLECTION, "--out", str(file), code=2)
    unknown = await asyncio.to_thread(operator.run, "evidence", "others", "--out", str(tmp_path / "x.html"), code=2)
    assert "others: not in the configuration" in unknown
    await look(file)


def like(wanted: str) -> re.Pattern[str]:
    """With any number of milliseconds."""
    return re.compile(re.sub(r"\d+(?= ms)", r"[0-9.]+", re.escape(wanted).replace(r"\ ", " ")))


async def look(file: Path) -> None:
    """In a browser, wide and narrow, light and dark; a picture with SHADOW_PICTURES=FOLDER."""
    folder = os.environ.get("SHADOW_PICTURES")
    async with open_page() as page:
        for width, dark in ((1200, False), (400, True)):
            await page.go(file.as_uri(), width=width, dark=dark)
            assert await page.value("document.documentElement.scrollWidth <= window.innerWidth")
            assert await page.value("document.querySelectorAll('svg rect').length > 1")
            if folder:
                await page.picture(Path(folder) / f"evidence-{width}.png")
        assert page.problems == []
