"""The list of what only MongoDB does, of the whole fleet: in the gate, by the command, and in the assessment."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from shadow.assess.model import Severity
from shadow.cli import app
from shadow.cli import assess as command
from shadow.config import load
from shadow.control import portability
from shadow.control.sqlite import SqliteRecords
from shadow.fleet.health_gates import gates_of
from shadow.fleet.status import CollectionRoute, ProcessStatus, as_json, of_json
from shadow.model.phase import Phase, StoreName
from shadow.model.uses import Uses

DAY = 86_400.0


@pytest.fixture
def config(tmp_path: Path) -> Path:
    content = {
        "mongo": {"url": "mongodb://127.0.0.1:1", "database": "none"},
        "control": {"url": f"sqlite:///{tmp_path / 'control.db'}", "keep_not_portable": "7d"},
        "collections": {"things": {"accept_not_portable": ["collation"]}, "others": {}},
    }
    path = tmp_path / "shadow.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture
def records(tmp_path: Path) -> SqliteRecords:
    records, now = SqliteRecords(tmp_path / "control.db"), time.time()
    records.prepare()
    new, old = (
        Uses(now - 90 * DAY, now - DAY, {"find": 2, "count": 1}),
        Uses(now - 90 * DAY, now - 8 * DAY, {"find": 1}),
    )
    used = {"$where": new, "collation": new, "$text": old}
    portability.note(records, "things", used, now=now, keep=9 * DAY)
    return records


def test_the_command_lists_and_forgets(config: Path, records: SqliteRecords) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["fleet", "not-portable", "--config", str(config), *words])
        return done.exit_code, done.output

    code, text = run()
    assert code == 0
    assert "$where" in text
    assert "$text" not in text  # not used for a week
    found = json.loads(run("--json")[1])["things"]
    assert found["not_accepted"] == ["$where"]
    assert found["operators"]["$where"]["verbs"] == {"find": 2, "count": 1}
    assert run("--forget", "things", "--operator", "$where") == (0, "things: forgotten: $where\n")
    assert run("--forget", "things", "--operator", "$where") == (1, "things: forgotten: nothing\n")
    assert set(json.loads(run("--json")[1])["things"]["operators"]) == {"collation"}
    assert run("--forget", "things")[0] == 0
    assert json.loads(run("--json")[1]) == {}
    assert run("--operator", "$where")[0] == 2


def test_the_assessment_names_what_the_application_was_seen_to_use(config: Path, records: SqliteRecords) -> None:
    where, collation = sorted(command._uses(load(config), ["things", "more"]), key=lambda each: each.severity)[::-1]
    assert where.severity is Severity.WARNING
    assert where.text.startswith("$where was used 3 times by the application (count, find), last on 20")
    assert "accept_not_portable" in where.mend
    assert (collation.severity, collation.mend) == (Severity.NOTE, "it is named in accept_not_portable")
    assert command._uses(load(config), ["others"]) == []


def test_the_assessment_creates_no_control_store(config: Path, tmp_path: Path) -> None:
    assert command._uses(load(config), ["things"]) == []
    assert not (tmp_path / "control.db").exists()


def test_an_assessment_says_that_the_list_could_not_be_read(config: Path, tmp_path: Path) -> None:
    (tmp_path / "control.db").write_bytes(b"no database at all" * 100)
    (remark,) = command._uses(load(config), ["things"])
    assert "could not be read" in remark.text


@pytest.mark.parametrize(
    ("known", "used", "primary", "ok", "said"),
    [
        (True, [], StoreName.MONGO, True, "nothing was used that DynamoDB does not support"),
        (False, [], StoreName.MONGO, False, "not known of all of 1 process"),
        (False, ["$where"], StoreName.MONGO, False, "not portable yet: $where"),
        (False, [], StoreName.DYNAMO, True, "nothing was used that DynamoDB does not support"),
    ],
)
def test_the_gate_is_closed_until_the_list_of_the_fleet_was_read(
    known: bool, used: list[str], primary: StoreName, ok: bool, said: str
) -> None:
    status = ProcessStatus(
        {"things": CollectionRoute(primary, Phase.SHADOW, "background", 1.0)},
        not_portable={"things": {"operators": {}, "not_accepted": used}},
        not_portable_known=known,
    )
    for each in (status, of_json(json.loads(json.dumps(as_json(status))))):
        (gate,) = [gate for gate in gates_of([each.health()]) if gate.name == "portable"]
        assert (gate.ok, gate.said) == (ok, said)
