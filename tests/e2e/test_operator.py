"""What an operator does that the runbook does not say: again, with the wrong file, without a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from shadow.cli import progress
from shadow.control import flip_record as routing
from shadow.control.flip_record import RouteRecord
from shadow.model.phase import StoreName
from tests.e2e.test_migration_commands import Operator
from tests.support.migration import control_of, load
from tests.support.shadows import COLLECTION, Site


@pytest.fixture
def site(
    least_role_url: str, least_role_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> Site:
    return Site(least_role_url, least_role_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"))


def name_also(operator: Operator, *names: str) -> None:
    content = yaml.safe_load(operator.config.read_text())
    content["collections"] |= {name: {} for name in names}
    operator.config.write_text(yaml.safe_dump(content))


def test_a_job_over_several_goes_on_with_the_one_that_it_stopped_at(site: Site, tmp_path: Path) -> None:
    load(site, [{"_id": number} for number in range(20)])
    operator = Operator(site, tmp_path)
    operator.run("tables", "create")
    name_also(operator, "various")
    for verb in ("backfill", "verify"):
        code, _, said = operator.ended(verb, "--json")
        assert code == 3, said
        assert "shadow tables create" in said
        jobs = control_of(site)
        assert {job.parts for job in jobs.jobs(kind=verb)} == {0}, "a range that is held makes the next call wait"
        jobs.close()
    operator.run("tables", "create")
    for verb, outcome in (("backfill", "complete"), ("verify", "equal")):
        code, out, said = operator.ended(verb, "--json")
        assert code == 0, said
        assert [(each["collection"], each["outcome"]) for each in json.loads(out)] == [
            (COLLECTION, outcome),
            ("various", outcome),
        ]
        assert f"{COLLECTION}: {outcome} before this call was interrupted" in said
        jobs = control_of(site)
        assert len(jobs.jobs(kind=verb, collection=COLLECTION)) == 1, "it was not walked again"
        _, _, said = operator.ended(verb, "--json")
        assert "interrupted" not in said, "a call that came to its end begins from the first"
        assert len(jobs.jobs(kind=verb, collection=COLLECTION)) == 2
        jobs.close()


def test_what_did_not_end_well_is_done_again(site: Site, tmp_path: Path) -> None:
    load(site, [{"_id": number} for number in range(20)])
    operator = Operator(site, tmp_path)
    operator.run("tables", "create")
    name_also(operator, "various")
    assert operator.ended("verify")[0] == 3
    jobs = control_of(site)
    assert [job.parts for job in jobs.jobs(kind="verify")] == [0, 0], "a range that is held makes the next call wait"
    jobs.close()
    operator.run("backfill", COLLECTION)
    operator.run("tables", "create")
    (first, _) = operator.json("verify")
    assert first["outcome"] == "equal"
    jobs = control_of(site)
    assert [job.outcome for job in jobs.jobs(kind="verify", collection=COLLECTION)] == ["equal", "different"]
    jobs.close()


def test_the_primary_in_force_counts_and_not_the_one_of_a_file_that_is_behind(site: Site, tmp_path: Path) -> None:
    operator = Operator(site, tmp_path)
    operator.run("tables", "create")
    site.audit.plant(COLLECTION, {"_id": "of dynamo", "n": 1})
    jobs = control_of(site)
    routing.change(jobs.records, lambda seen: seen.with_placed({COLLECTION: RouteRecord(StoreName.DYNAMO, epoch=2)}))
    for _ in range(2):
        code, out, said = operator.ended("backfill", COLLECTION, "--json")
        assert code == 0, said
        assert "dynamo is the primary, although" in said
        assert "says mongo" in said
    assert json.loads(out)[0]["present"] == 1
    code, out, said = operator.ended("verify", COLLECTION, "--json")
    assert (code, json.loads(out)[0]["compared"]) == (0, 1)
    plan = str(tmp_path / "plan")
    operator.run("repair", "plan", COLLECTION, plan)
    operator.run("repair", "apply", plan, "--apply")
    jobs.close()


def test_commands_given_twice_or_wrong_say_what_to_do(site: Site, tmp_path: Path) -> None:
    operator = Operator(site, tmp_path)
    operator.run("tables", "create")
    operator.run("verify")
    plan = str(tmp_path / "plan")
    operator.run("repair", "plan", COLLECTION, plan)
    assert "exists, and is not overwritten" in operator.run("repair", "plan", COLLECTION, plan, code=2)
    assert "there is no folder" in operator.run("repair", "plan", COLLECTION, f"{tmp_path}/no/p", code=2)
    assert "is a plan and no undo log" in operator.run("repair", "undo", plan, code=2)
    assert "neither a plan" in operator.run("repair", "apply", str(operator.config), code=2)
    for words in (("backfill", COLLECTION, "nosuch"), ("flip", "nosuch", "--to", "dynamo"), ("complete", "nosuch"),
                  ("config", "phase", "off", "nosuch"), ("repair", "plan", "nosuch", plan)):  # fmt: skip
        said = operator.run(*words, code=2)
        assert "nosuch: not in the configuration" in said
        assert f"it has {COLLECTION}" in said
    jobs = control_of(site)
    assert jobs.jobs(kind="backfill") == [], "what is wrong is said before anything is done"
    jobs.close()
    operator.config.unlink()
    assert "No such file" in operator.run("verify", code=2)


def test_without_a_terminal_a_line_comes_now_and_then(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = progress.Lines
    monkeypatch.setattr(progress, "Lines", lambda title: usual(title, first=0.01, every=0.05))
    load(site, [{"_id": number} for number in range(200)])
    operator = Operator(site, tmp_path)
    code, out, said = operator.ended("tables", "create")
    assert code == 0
    assert "shadow tables create, 0:0" in said
    code, out, said = operator.ended("backfill", "--rate", "100")
    assert code == 0, said
    told = [line for line in said.splitlines() if line.startswith("shadow backfill, 0:0")]
    assert any("of about 200" in line for line in told), told
    assert "shadow backfill" not in out, "standard output has the report alone"
    _, out, said = operator.ended("verify", "--json")
    assert json.loads(out)[0]["outcome"] == "equal"
    assert "shadow verify," not in said, "whoever reads JSON is not disturbed"
