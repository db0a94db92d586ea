"""The index adviser: scans by the shape of their query, as metrics, and on the command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from shadow.cli import app
from shadow.model.operation import Query
from shadow.observe.metrics import Metrics
from shadow.stores.dynamo.query.scans import ScanCounter

SCANNED = [
    {
        "collection": "users",
        "shape": "{tags: $in, [x]: $eq}",
        "suggested_index": "hash tags",
        "times": 3,
        "items_read": 1200,
        "items_returned": 7,
    },
    {
        "collection": "",
        "shape": "(other shapes)",
        "suggested_index": "",
        "times": 1,
        "items_read": 5,
        "items_returned": 5,
    },
]


def test_queries_that_differ_in_values_alone_are_one_line_with_its_index() -> None:
    scans = ScanCounter()
    for value in (1, 2, 3):
        scans.add(scans.begin("users", Query({"age": value}, sort=(("name", 1),))), read=10, returned=value)
    (line,) = scans.report()
    assert line == {
        "collection": "users",
        "shape": "{age: $eq} sort name",
        "suggested_index": "hash age, range name",
        "times": 3,
        "items_read": 30,
        "items_returned": 6,
    }


def test_what_reads_most_comes_first_and_shapes_are_bounded() -> None:
    scans = ScanCounter()
    for number in range(250):
        scans.add(scans.begin("users", Query({f"f{number}": 1})), read=number, returned=0)
    report = scans.report()
    assert len(report) == 201
    assert report[0]["shape"] == "(other shapes)"
    assert report[0]["times"] == 50
    assert report[1]["shape"] == "{f199: $eq}"


def test_each_scan_and_each_of_its_answers_is_told() -> None:
    told = list[tuple[str, int, int, int]]()
    scans = ScanCounter(lambda *counts: told.append(counts))
    counted = scans.begin("users", Query())
    scans.add(counted, read=10, returned=4)
    assert told == [("users", 1, 0, 0), ("users", 0, 10, 4)]


def test_the_metrics_have_one_series_a_table_and_one_for_the_rest() -> None:
    metrics = Metrics(["users"], tables={"p-users": []})
    metrics.scanned("p-users", 1, 0, 0)
    metrics.scanned("p-users", 0, 10, 4)
    for number in range(100):
        metrics.scanned(f"unknown-{number}", 1, 2, 0)
    lines = metrics.render()[0].decode().splitlines()
    found = [line for line in lines if line.startswith("shadow_dynamo_scan")]
    assert found == [
        'shadow_dynamo_scans_total{table="p-users"} 1.0',
        'shadow_dynamo_scans_total{table="other"} 100.0',
        'shadow_dynamo_scan_items_read_total{table="p-users"} 10.0',
        'shadow_dynamo_scan_items_read_total{table="other"} 200.0',
        'shadow_dynamo_scan_items_returned_total{table="p-users"} 4.0',
        'shadow_dynamo_scan_items_returned_total{table="other"} 0.0',
    ]


@pytest.fixture
def running() -> Iterator[dict[str, Any]]:
    """An application that answers /status; its answer can be changed."""
    answer: dict[str, Any] = {"indexes": SCANNED}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        answer["url"] = f"http://127.0.0.1:{server.server_port}"
        yield answer
        server.shutdown()
        thread.join()


def test_the_command_line_shows_a_table(running: dict[str, Any]) -> None:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["status", "--indexes", "--url", running["url"]])
    assert result.exit_code == 0
    row = next(line for line in result.output.splitlines() if "users" in line)
    for text in ("{tags: $in, [x]: $eq}", "3", "1200", "7", "hash tags"):
        assert text in row


def test_the_command_line_gives_one_json_object(running: dict[str, Any]) -> None:
    result = CliRunner().invoke(app, ["status", "--indexes", "--json", "--url", running["url"]])
    assert (result.exit_code, json.loads(result.output)) == (0, {"indexes": SCANNED})


def test_latency_is_asked_for_alone(running: dict[str, Any]) -> None:
    running["latency"] = {"users": [{"shape": "insert_one", "primary": {"count": 1}, "secondary": {}}]}
    result = CliRunner().invoke(app, ["status", "--latency", "--json", "--url", running["url"]])
    assert (result.exit_code, json.loads(result.output)) == (0, {"latency": running["latency"]})
    del running["latency"]
    result = CliRunner().invoke(app, ["status", "--latency", "--url", running["url"]])
    assert (result.exit_code, result.output) == (0, "latency: nothing was asked of both stores yet\n")


def test_the_command_line_says_that_nothing_has_scanned(running: dict[str, Any]) -> None:
    running["indexes"] = []
    result = CliRunner().invoke(app, ["status", "--indexes", "--url", running["url"]])
    assert "no query has scanned" in result.output
