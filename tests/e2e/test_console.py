"""The sample backend with two worker processes: their figures as one, the console in a browser, the command line."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import bson
import httpx
import psutil
import pymongo
import pytest
from click.testing import Result
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from shadow.cli import app
from shadow.config import Settings
from shadow.embedded.audit import Audit
from shadow.errors import StoreUnavailable
from tests.support import notesllm, services
from tests.support.browser import Page, open_page
from tests.support.observed import Backend

TOKEN: Final = "a-token-for-the-console"
AUTHORIZED: Final = {"Authorization": f"Bearer {TOKEN}"}
SECRET: Final = "hunter2 is what the document says"


def until(condition: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return result


class Site:
    """The backend, its admin routes, and the way to its documents past everything."""

    def __init__(self, backend: Backend, audit: Audit) -> None:
        self.backend = backend
        self.audit = audit

    @property
    def url(self) -> str:
        return self.backend.url

    def admin(self, path: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}{path}", headers=AUTHORIZED, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def workers(self) -> list[psutil.Process]:
        """The processes that serve, without those that only start and watch them."""
        _, body = self.backend.get("/metrics")
        assert b"shadow_build_info" in body
        folder = self.backend.folder / "metrics"
        pids = [int(json.loads(path.read_text())["owner"][1]) for path in folder.glob("shadow_gauges_*.json")]
        return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]

    def series(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = self.backend.get("/metrics")[1].decode()
        found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = (sample.name, frozenset(sample.labels.items()))
                assert name not in found, f"{name} is there twice"
                found[name] = sample.value
        return found

    def shadow(self, *arguments: str, token: str = TOKEN) -> Result:
        """The command line."""
        environment = {"SHADOW_STATUS_URL": self.url, "SHADOW_ADMIN_TOKEN": token, "COLUMNS": "200"}
        return CliRunner().invoke(app, arguments, env=environment)


@pytest.fixture(scope="module")
def site(mongo_url: str, dynamodb_local_url: str) -> Iterator[Site]:
    database = f"console{time.time_ns()}"
    settings = {
        "SHADOW_MONGO_URL": mongo_url,
        "SHADOW_MONGO_DATABASE": database,
        "SHADOW_DYNAMO_ENDPOINT_URL": dynamodb_local_url,
        "SHADOW_DYNAMO_TABLE_PREFIX": f"{database}-",
        "SHADOW_ADMIN_TOKEN": TOKEN,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    specs = Settings(collections={"documents": {}, "users": {}}).specs()
    with services.start(lambda: Backend(settings, workers=2)) as server:
        yield Site(server, Audit(mongo_url, database, dynamodb_local_url, f"{database}-", specs))
        print(server.log_path.read_text("utf-8")[-5000:])
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        client.drop_database(database)


@pytest.fixture(scope="module")
def finding(site: Site) -> dict[str, Any]:
    """A difference that was made in the secondary, and found."""
    with httpx.Client(base_url=site.url, timeout=60) as client:
        credentials = {"email": "ada@example.org", "password": "correct horse"}
        client.post("/users", json={**credentials, "name": "Ada"}).raise_for_status()
        headers = {"Authorization": f"Bearer {client.post('/login', json=credentials).json()['token']}"}
        made = client.post("/documents", headers=headers, json={"title": "Notes", "text": notesllm.TEXT}).json()
        path = f"/documents/{made['id']}"
        until(lambda: client.get(path, headers=headers).json()["status"] == "ready", "the document is not ready")
        until(lambda: not site.admin("/status")["journal"]["open"], "the document is not in the secondary")
        site.audit.damage("documents", bson.ObjectId(made["id"]), "title", {"S": SECRET})

        def found() -> Any:
            client.get(path, headers=headers)
            return site.admin("/findings?collection=documents&path=title")["findings"]

        (row,) = until(found, "the difference was not found")
    shown: dict[str, Any] = row
    return shown


@pytest.fixture
async def browser() -> AsyncIterator[Page]:
    try:
        opening = open_page()
        page = await opening.__aenter__()
    except StoreUnavailable as error:
        services.missing("chromium", error)
    yield page
    await opening.__aexit__(None, None, None)


@pytest.mark.takes_turns
def test_both_workers_serve_and_their_figures_are_one(site: Site, finding: dict[str, Any]) -> None:
    until(lambda: len(site.workers()) == 2, "there are not two workers")
    capacity = json.loads(json.dumps(site.admin("/status")["lanes"]))
    both = 2 * sum(lane["capacity"] for lane in capacity.values())
    until(lambda: site.series()["shadow_queue_capacity", frozenset()] == both, "the capacity is not that of both")
    series = site.series()
    route = frozenset({("collection", "documents"), ("primary", "mongo"), ("phase", "shadow")})
    assert series["shadow_route_info", route] == 2
    assert series["shadow_secondary_up", frozenset({("store", "dynamo")})] == 1
    mismatches = [value for (name, _), value in series.items() if name == "shadow_mismatches_total" and value]
    assert sum(mismatches) >= 1
    for _ in range(8):  # whichever worker answers knows the finding that one of them made
        assert site.admin(f"/findings/{finding['id']}")["key_hash"] == finding["key_hash"]


def test_no_value_of_a_document_is_in_what_anyone_may_read(site: Site, finding: dict[str, Any]) -> None:
    for path in ("/metrics", "/readyz", "/healthz", "/console"):
        assert SECRET not in httpx.get(f"{site.url}{path}").text
    for path in ("/status", "/findings", f"/findings/{finding['id']}", "/console/live"):
        assert SECRET not in httpx.get(f"{site.url}{path}", headers=AUTHORIZED).text
        assert httpx.get(f"{site.url}{path}").status_code == 401
    assert SECRET not in site.backend.log_path.read_text("utf-8")
    kept = [each for each in site.backend.folder.rglob("shadow.db*") if each.is_file()]
    assert kept
    for file in kept:
        assert SECRET.encode() not in file.read_bytes()


def test_the_command_line_lists_shows_and_says_what_a_heal_would_do(site: Site, finding: dict[str, Any]) -> None:
    listed = site.shadow("findings", "list", "--collection", "documents")
    assert (listed.exit_code, finding["id"] in listed.stdout, "title" in listed.stdout) == (1, True, True)
    shown = site.shadow("findings", "show", finding["id"], "--json")
    assert json.loads(shown.stdout)["id"] == finding["id"]
    dry = site.shadow("findings", "heal", "--path", "title", "--json")
    assert json.loads(dry.stdout) == {
        "dry_run": True,
        "results": [{"id": finding["id"], "collection": "documents", "result": "copied"}],
    }
    assert site.admin(f"/findings/{finding['id']}")["healed"] is False
    file = str(site.backend.folder / "shadow.db.findings")
    kept = json.loads(site.shadow("findings", "show", finding["id"], "--file", file, "--json").stdout)
    # Comparisons that were under way may have seen it again meanwhile.
    still = json.loads(shown.stdout).keys() - {"last_seen", "count", "verbs"}
    assert {name: kept[name] for name in still} == {name: json.loads(shown.stdout)[name] for name in still}
    refused = site.shadow("findings", "list", token="not-the-right-one")
    assert refused.exit_code == 2
    assert "token" in refused.stderr
    status = site.shadow("status", "--gates")
    assert "not safe to flip" in status.stdout


@pytest.mark.takes_turns
async def test_the_console_shows_the_finding_and_heals_it_by_keyboard(
    site: Site, finding: dict[str, Any], browser: Page
) -> None:
    """The token is typed, the finding opened, a dry run made, and the heal, without a mouse and without reloading."""
    await browser.go(f"{site.url}/console")
    assert await browser.value("document.getElementById('verdict')") is None, "shown without the token"
    await browser.value("document.getElementById('token').focus()")
    await browser.type(TOKEN)
    await browser.press("Enter", code=13, text="\r")
    details = f"document.getElementById('f-{finding['id']}')"
    await browser.until(f"{details} !== null")
    assert "Not safe to flip" in await browser.value("document.getElementById('verdict').innerText")
    assert SECRET not in await browser.value("document.documentElement.innerHTML")
    await browser.value(f"{details}.querySelector('summary').focus()")
    await browser.press("Enter", code=13, text="\r")
    assert await browser.value(f"{details}.open")
    assert "title" in await browser.value(f"{details}.querySelector('table').innerText")
    before = await browser.value("document.getElementById('freshness').textContent")
    await browser.until(f"document.getElementById('freshness').textContent !== {json.dumps(before)}")
    assert await browser.value(f"{details}.open"), "it closes when the page is made fresh"
    await browser.press("Tab", code=9)
    await browser.press("Tab", code=9)
    assert await browser.value("document.activeElement.dataset.action") == "dry-run"
    await browser.press("Enter", code=13, text="\r")
    outcome = "document.getElementById('outcome').innerText"
    await browser.until(f"{outcome}.includes('copied')")
    assert "nothing was changed" in await browser.value(outcome)
    browser.answers.append("")
    await browser.value(f"document.getElementById('heal-{finding['id']}').focus()")
    await browser.press("Enter", code=13, text="\r")
    await browser.until(f"{outcome}.startsWith('Repaired')")
    await browser.until(f"{details}.querySelector('summary').innerText.includes('healed')")
    assert site.audit.disagreements() == []
    assert browser.problems == []


@pytest.mark.takes_turns
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_the_console_fits_a_phone_and_can_be_read(
    site: Site, finding: dict[str, Any], browser: Page, dark: bool
) -> None:
    await browser.go(f"{site.url}/console", width=360, height=740, dark=dark)
    await browser.value("document.getElementById('token').focus()")
    await browser.type(TOKEN)
    await browser.press("Enter", code=13, text="\r")
    await browser.until("document.getElementById('verdict') !== null")
    assert await browser.value("document.documentElement.scrollWidth") <= 360, "it must be scrolled sideways"
    colours = "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()"
    assert _contrast(*await browser.value(colours)) >= 7
    verdict = "(() => { const e = document.getElementById('verdict'); const s = getComputedStyle(e);"
    assert _contrast(*await browser.value(f"{verdict} return [s.color, s.backgroundColor]; }})()")) >= 4.5


async def test_a_foreign_script_and_style_do_nothing_on_the_page(site: Site, browser: Page) -> None:
    """The policy holds in a real browser: what is put into the page is not run, and may not call out."""
    await browser.go(f"{site.url}/console")
    await browser.value(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = true\">');"
        "const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s);"
    )
    called = "fetch('http://127.0.0.1:9/').then(() => 'went', (error) => error.name)"
    assert await browser.value(called) == "TypeError"
    await browser.until("true")
    assert await browser.value("window.ran === undefined")
    assert any("Content Security Policy" in problem for problem in browser.problems)


def test_a_killed_worker_leaves_no_gauge_and_takes_no_counter_with_it(site: Site, finding: dict[str, Any]) -> None:
    before = site.series()
    victim = until(lambda: site.workers() if len(site.workers()) == 2 else None, "there are not two workers")[0]
    victim.kill()
    until(lambda: victim.pid not in [each.pid for each in site.workers()], "its gauges are still there")
    after = until(site.series, "no worker answers")
    for (name, labels), value in before.items():
        if name.endswith("_total"):
            assert after.get((name, labels), 0) >= value, name


def _contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21. Source: WCAG 2.2, "contrast ratio" and "relative luminance"."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
