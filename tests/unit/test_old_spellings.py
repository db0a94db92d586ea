"""Renamed commands and settings still work under their old names, and a notice names the new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from shadow.cli import app, old_spellings
from shadow.config import parse
from shadow.errors import ConfigurationError, JournalError
from shadow.settings.renamed import RENAMED, RenamedSetting

HEAL = {"collection": "users", "apply": True, "limit": 7, "workers": 3, "show_keys": True, "as_json": True}
OPTIONS = ("--collection", "users", "--apply", "--limit", "7", "--workers", "3", "--show-keys", "--json")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """With what the journal's commands were called."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(old_spellings, "run_journal", lambda what, key, **options: found.append((what, key, options)))
    return found


def said(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "what", "key"),
    [
        (("--journal",), "list", None),
        (("--journal", "list"), "list", None),
        (("list", "--journal"), "list", None),
        (("heal", "--journal"), "heal", None),
        (("--journal", "heal", "k", "--collection", "users"), "heal", "k"),
        (("--collection", "users", "--journal", "explain", "k"), "explain", "k"),
        (("explain", "--collection", "users", "k", "--journal"), "explain", "k"),
        (("--collection", "list", "--journal", "heal"), "heal", None),
    ],
)
def test_repair_with_journal_is_what_it_was(
    asked: list[tuple[Any, ...]], arguments: tuple[str, ...], what: str, key: str | None
) -> None:
    ended = said("repair", *arguments)
    assert ended.exit_code == 0, ended.output
    ((done, of_key, options),) = asked
    assert (done, of_key) == (what, key)
    assert options["config"] == Path("config/shadow.yaml")
    assert "`shadow journal list | heal | explain`" in ended.stderr
    assert ended.stdout == ""


def test_every_option_is_taken(asked: list[tuple[Any, ...]]) -> None:
    assert said("repair", "--journal", "heal", *OPTIONS, "-c", "x.yaml").exit_code == 0
    assert asked == [("heal", None, {**HEAL, "config": Path("x.yaml")})]


@pytest.mark.parametrize("command", ["list", "heal", "explain"])
def test_without_journal_the_new_command_is_named(asked: list[tuple[Any, ...]], command: str) -> None:
    ended = said("repair", command)
    assert ended.exit_code == 2
    assert f"shadow journal {command}" in ended.stderr
    assert asked == []


@pytest.mark.parametrize(("old", "new"), [("make", "plan"), ("apply", "apply"), ("undo", "undo")])
def test_repair_plan_takes_what_repair_takes(old: str, new: str) -> None:
    before, now = said("repair-plan", old, "--help"), said("repair", new, "--help")
    assert before.exit_code == now.exit_code == 0
    assert before.stdout.replace(f"repair-plan {old}", "").split() == now.stdout.replace(f"repair {new}", "").split()


def test_repair_plan_names_the_new_spelling(tmp_path: Path) -> None:
    ended = said("repair-plan", "apply", str(tmp_path / "none"))
    assert ended.exit_code == 2
    assert "`shadow repair plan | apply | undo`" in ended.stderr


def test_old_spellings_are_in_no_help() -> None:
    assert "repair-plan" not in said("--help").stdout
    assert "journal" not in said("repair", "--help").stdout


def test_the_journal_of_the_new_command_is_that_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"journal: {{url: 'sqlite:///{tmp_path}/none.db'}}\ncollections: {{users: {{}}}}\n")
    for arguments in (("journal", "list"), ("repair", "--journal", "list")):
        ended = said(*arguments, "-c", str(file))
        assert isinstance(ended.exception, JournalError)
        assert "there is no journal at" in str(ended.exception)


# --- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new in RENAMED.items()], ids=str)
def test_a_renamed_setting_is_read_under_its_old_name_from_the_file_and_the_environment(
    old: tuple[str, str], new: str
) -> None:
    section, name = old
    variable = f"SHADOW_{section}_{name}".upper()
    for text, environment, notice in (
        (f"{section}: {{{name}: 0.25}}", {}, f"`{section}.{name}` is now `{section}.{new}`"),
        ("", {variable: "0.25"}, f"`{variable}` is now `SHADOW_{section.upper()}_{new.upper()}`"),
    ):
        with pytest.warns(RenamedSetting) as noted:
            settings = parse(text, environment)
        assert [notice in str(each.message) for each in noted] == [True]
        assert getattr(getattr(settings, section), new) == 0.25


def test_the_environment_overrides_the_file_whichever_names_they_use() -> None:
    for text, environment in (
        ("limits: {straggle: 1}", {"SHADOW_LIMITS_IN_FLIGHT_TIMEOUT": "2"}),
        ("limits: {in_flight_timeout: 1}", {"SHADOW_LIMITS_STRAGGLE": "2"}),
    ):
        with pytest.warns(RenamedSetting):
            assert parse(text, environment).limits.in_flight_timeout == 2


@pytest.mark.parametrize(
    ("text", "environment", "field"),
    [
        ("limits: {straggle: 1, in_flight_timeout: 2}", {}, "limits.straggle"),
        ("", {"SHADOW_OBSERVE_LEFT_OUT": "0", "SHADOW_OBSERVE_HOLDOUT": "0"}, "SHADOW_OBSERVE_LEFT_OUT"),
    ],
)
def test_a_setting_under_both_names_is_a_fault(text: str, environment: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text, environment)
    assert [fault.field for fault in refused.value.faults] == [field]


def test_a_bad_value_under_an_old_name_is_a_fault_of_the_new_one() -> None:
    with pytest.warns(RenamedSetting), pytest.raises(ConfigurationError) as refused:
        parse("limits: {straggle: -1}", {})
    assert [fault.field for fault in refused.value.faults] == ["limits.in_flight_timeout"]
