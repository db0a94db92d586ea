"""The sample backend over shadow as its own server, with real stores behind it and a real Prometheus at its metrics."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pymongo
import pytest
import yaml

from tests.support import notesllm, promql, services
from tests.support.board_page import board_page
from tests.support.browser import open_page
from tests.support.observed import Backend, Prometheus

CONFIG: Final = Path(__file__).parents[2] / "config"
BOARDS: Final = CONFIG / "grafana" / "dashboards"
RULES: Final = CONFIG / "prometheus" / "rules" / "shadow.yml"

# These show only what goes wrong or is changed, which here is nothing.
MAY_BE_EMPTY: Final = {
    "Failures of the secondary",
    "Hooks",
    "Incomparable, by reason",
    "Internal failures",
    "Mismatches by kind",
    "Mismatches by path",
    "Mismatches by verb",
    "Out-of-band writes that are relayed",
    "Relay behind",
    "What to look at",
    "Writes past shadow",
    "Writes without an intent",
}


def until(condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = 90.0) -> Any:
    """Waits until a condition gives something true, and gives it back."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.1)
    return result


@pytest.fixture(scope="module")
def database() -> str:
    return f"observed{time.time_ns()}"


@pytest.fixture(scope="module")
def backend(mongo_url: str, dynamodb_local_url: str, database: str) -> Iterator[Backend]:
    settings = {
        "SHADOW_MONGO_URL": mongo_url,
        "SHADOW_MONGO_DATABASE": database,
        "SHADOW_DYNAMO_ENDPOINT_URL": dynamodb_local_url,
        "SHADOW_DYNAMO_TABLE_PREFIX": f"{database}-",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    with services.start(lambda: Backend(settings)) as server:
        yield server
        print(server.log_path.read_text("utf-8")[-5000:])  # shown where a test has failed
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        client.drop_database(database)


@pytest.fixture(scope="module")
def prometheus(backend: Backend) -> Iterator[Prometheus]:
    with services.start(lambda: Prometheus(f"127.0.0.1:{backend.port}")) as server:
        yield server


def panels() -> list[tuple[str, str]]:
    boards = [json.loads(path.read_text("utf-8")) for path in BOARDS.glob("*.json")]
    return [
        (panel["title"], target["expr"])
        for board in boards
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]


@pytest.mark.takes_turns
async def test_the_whole_api_works_over_shadow_and_no_comparison_finds_a_difference(backend: Backend) -> None:
    async with httpx.AsyncClient(base_url=backend.url, timeout=60) as client:
        await notesllm.walk(client)

    def settled() -> bool:
        journal = json.loads(backend.get("/status")[1])["journal"]
        return not journal["open"] and not journal["deferred"]

    until(settled, "writes are still under way")
    assert total(backend, "shadow_mismatches_total") == 0
    assert total(backend, "shadow_comparisons_total", 'verdict="match"') > 0
    status = json.loads(backend.get("/status")[1])
    timed = {each["shape"]: each for each in status["latency"]["documents"]}
    assert "insert_one" in timed
    assert any(shape.startswith("find {") and "ratio" in each for shape, each in timed.items()), timed
    gates = [each for each in status["verdict"]["gates"] if each["name"] == "fast enough"]
    assert gates
    assert all(each["ok"] and "not known" in each["said"] for each in gates)


def total(backend: Backend, name: str, label: str = "") -> float:
    """The sum of a metric's series that have `label`, from the backend's own exposition."""
    lines = backend.get("/metrics")[1].decode().splitlines()
    values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith(name + "{") and label in line]
    assert values, f"{name} is not exported"
    return sum(float(value) for value in values)


async def test_every_panel_gets_an_answer_from_a_real_prometheus(backend: Backend, prometheus: Prometheus) -> None:
    await until_every_panel_has_an_answer(backend, prometheus)


async def until_every_panel_has_an_answer(backend: Backend, prometheus: Prometheus) -> None:
    async with httpx.AsyncClient(base_url=backend.url, timeout=60) as client:
        headers = await notesllm.log_in(client, "grace@example.org")

        def traffic() -> bool:
            httpx.get(f"{backend.url}/documents", headers=headers, timeout=60)
            return len(prometheus.query("shadow_build_info")) == 1

        until(traffic, "Prometheus has not scraped the backend")
        waiting = [(title, promql.expression(text)) for title, text in panels()]

        def answered() -> bool:
            draft = {"title": "Notes", "text": notesllm.TEXT}
            httpx.post(f"{backend.url}/documents", headers=headers, json=draft, timeout=60)
            httpx.get(f"{backend.url}/documents", headers=headers, timeout=60)
            waiting[:] = [each for each in waiting if not prometheus.query(each[1]) and each[0] not in MAY_BE_EMPTY]
            return not waiting

        until(answered, lambda: f"panels are empty: {waiting}")


@pytest.mark.takes_turns
async def test_every_board_can_be_looked_at(backend: Backend, prometheus: Prometheus, tmp_path: Path) -> None:
    """Drawn where Grafana puts it, in a browser: nothing overlaps or is cut, and a chosen collection is shown alone. A
    picture of each with SHADOW_PICTURES=FOLDER."""
    await until_every_panel_has_an_answer(backend, prometheus)
    folder = Path(os.environ.get("SHADOW_PICTURES", tmp_path))
    async with open_page() as page:
        for path in sorted(BOARDS.glob("*.json")):
            board, file = json.loads(path.read_text("utf-8")), folder / f"board-{path.stem}.html"
            file.write_text(board_page(board, prometheus.lately))
            await page.go(file.as_uri(), width=1220, height=900)
            found = await page.value(LAID_OUT)
            assert len(found) == len(board["panels"])
            for first, second in itertools.combinations(found, 2):
                assert not overlap(first, second), (path.name, first["title"], second["title"])
            assert [each["title"] for each in found if each["cut"]] == [], path.name
            empty = {each["title"] for each in found if each["series"] == "0"}
            assert empty <= MAY_BE_EMPTY, path.name
            await page.picture(folder / f"board-{path.stem}.png")
        assert page.problems == []
    for _, text in panels():
        if "$collection" in text:
            shown = prometheus.lately(promql.expression(text.replace("$collection", "users")))
            assert {each["metric"].get("collection", "users") for each in shown} <= {"users"}, text


LAID_OUT: Final = """[...document.querySelectorAll('.panel')].map(each => {
    const title = each.querySelector('h2, h3'), {x, y, width, height} = each.getBoundingClientRect();
    return {x, y, width, height, title: title.innerText, cut: title.scrollWidth > title.clientWidth,
            series: each.dataset.series ?? null};
})"""


def overlap(first: dict[str, Any], second: dict[str, Any]) -> bool:
    apart = (
        first["x"] + first["width"] <= second["x"],
        second["x"] + second["width"] <= first["x"],
        first["y"] + first["height"] <= second["y"],
        second["y"] + second["height"] <= first["y"],
    )
    return not any(apart)


def test_every_alert_is_evaluated_and_none_fires_where_all_is_well(backend: Backend, prometheus: Prometheus) -> None:
    def rules() -> list[Any]:
        groups = json.loads(prometheus.get("/api/v1/rules")[1])["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wanted = [rule["alert"] for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]
    until(lambda: all(rule["health"] == "ok" for rule in rules()), "a rule could not be evaluated")
    assert [rule["name"] for rule in rules()] == wanted
    assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []


def test_promtool_finds_nothing_wrong_with_the_metrics(backend: Backend, prometheus: Prometheus) -> None:
    promtool = Path(prometheus.command()[0]).with_name("promtool")
    ended = subprocess.run([promtool, "check", "metrics"], input=backend.get("/metrics")[1], capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
