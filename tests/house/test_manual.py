"""The manual: current, whole, short where it is to be short, and printed by `shadow docs` without a network."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import tomllib
from dataclasses import dataclass
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from typer.testing import CliRunner

import shadow
from shadow import Shadow, manual
from shadow.admin import Admin
from shadow.cli import app
from shadow.config import Settings, parse
from shadow.errors import ConfigurationError
from shadow.observe.log import Event
from shadow.observe.metric_table import metric_table
from shadow.settings.renamed import RENAMED
from shadow.traces.spans import ATTRIBUTES
from shadow.web.page import HELP
from tests.support import texts
from tests.support.manual import PAGES, README, ROOT, made, parts

DOCUMENTS: Final = {ROOT / each.name: each.text for each in texts.documents()}
TOPICS: Final = (
    "quickstart", "frameworks", "concepts", "configuration", "runbook", "command-line", "metrics", "alerts",
    "failure-modes", "compatibility", "design", "benchmarks", "changelog",
)  # fmt: skip
RULES: Final = ROOT / "config" / "prometheus" / "rules" / "shadow.yml"
URL: Final = "https://git.example.com/team/shadow/docs"


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str


def shadow_command(*arguments: str, cwd: Path = ROOT) -> Said:
    """In this process."""
    with contextlib.chdir(cwd), pytest.MonkeyPatch.context() as patch:
        patch.delenv("SHADOW_CONFIG", raising=False)
        ended = CliRunner().invoke(app, list(arguments))
    if isinstance(ended.exception, ConfigurationError):
        return Said(2, ended.stdout, str(ended.exception))
    return Said(ended.exit_code, ended.stdout, ended.stderr)


# --- what it says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", PAGES)
def test_the_generated_parts_are_as_the_code_says(topic: str) -> None:
    text = PAGES[topic].read_text("utf-8")
    assert made(text) == text, "run: python -m tests.support.manual"


def test_every_generated_part_has_its_place_once() -> None:
    places = [name for text in DOCUMENTS.values() for name in re.findall(r"<!-- generated: (.*?) -->", text)]
    assert sorted(places) == sorted(parts)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_its_python_compiles(path: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", DOCUMENTS[path], re.DOTALL):
        compile(block, path.name, "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_its_yaml_loads(path: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", DOCUMENTS[path], re.DOTALL):
        assert yaml.safe_load(block)


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 180
    assert set(re.findall(r"\]\(docs/([\w-]+)\.md\)", text)) >= set(TOPICS)


def test_the_index_names_every_page_and_the_topics_are_those_of_the_index() -> None:
    assert tuple(manual.topics()) == TOPICS
    assert set(TOPICS) | {"index"} == PAGES.keys()


def test_the_glossary_is_one() -> None:
    assert [path.name for path, text in DOCUMENTS.items() if re.search(r"^#+ Glossary", text, re.MULTILINE)] == [
        "concepts.md"
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target in re.findall(r"(?<!!)\]\(([^)\s]+)\)", DOCUMENTS[path]):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.is_file(), f"{path.name}: {target}"
        assert not anchor or anchor in manual.anchors(there.read_text("utf-8")), f"{path.name}: {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_page_has_two_headings_of_one_anchor(path: Path) -> None:
    found = manual.anchors(DOCUMENTS[path])
    assert sorted(found) == sorted(set(found))


def spans(text: str) -> list[str]:
    """The inline code of a page."""
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", rest)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_module_that_it_names_exists(path: Path) -> None:
    for span in spans(DOCUMENTS[path]):
        if re.fullmatch(r"(tests|config|shadow|docs)/[\w./-]+", span):
            assert (ROOT / span).exists(), span
        if span in ATTRIBUTES:
            continue
        if found := re.fullmatch(r"shadow\.([a-z_]\w*)(?:\.([\w.]+))?(\(.*\))?", span):
            assert is_name(found[1], found[2] or ""), span


def is_name(first: str, rest: str) -> bool:
    """Whether it is a module of the package, or a name of the package, of `Shadow` or of its `admin`."""
    if first == "admin" and rest:
        return hasattr(Admin, rest)
    if (ROOT / "shadow" / first).is_dir() or (ROOT / "shadow" / f"{first}.py").exists():
        path = ROOT.joinpath("shadow", first, *rest.split(".")) if rest else ROOT / "shadow" / first
        return path.is_dir() or path.with_suffix(".py").exists()
    return hasattr(shadow, first) or hasattr(Shadow, first) or first == "db"


SECTIONS: Final = [name for name, info in Settings.model_fields.items() if hasattr(info.annotation, "model_fields")]
NO_SETTINGS: Final = {"journal.refused"}
"""Of `/status`."""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_it_names_exists(path: Path) -> None:
    for span in spans(DOCUMENTS[path]):
        found = re.match(rf"({'|'.join(SECTIONS)})\.(\w+)", span)
        if found and found[0] not in {*map(str, Event), *NO_SETTINGS, *(".".join(old) for old in RENAMED)}:
            annotation: Any = Settings.model_fields[found[1]].annotation
            assert found[2] in annotation.model_fields, span


NO_METRICS: Final = {
    "shadow_read",  # a kind of work in traces
    "shadow_reads", "shadow_journal", "shadow_control", "shadow_witness", "shadow_rehearsal", "shadow_docs_url",
    # Of version 1 of the list.
    "shadow_canary_sought_total", "shadow_lane_depth", "shadow_lane_capacity", "shadow_bypassing_writes_total",
}  # fmt: skip


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_metric_that_it_names_exists(path: Path) -> None:
    rows = {row.name: row.type for row in metric_table()}
    for name in re.findall(r"\bshadow_[a-z_]+", " ".join(spans(DOCUMENTS[path]))):
        series = name.removesuffix("_sum").removesuffix("_count").removesuffix("_bucket")
        assert name in rows or rows.get(series) == "histogram" or name in NO_METRICS, name


# --- where the links of other parts lead ------------------------------------------------------------------------


def test_the_console_leads_to_headings_that_exist() -> None:
    for topic, anchor in HELP.values():
        assert anchor in manual.anchors(manual.page(topic)), (topic, anchor)


def test_no_text_of_the_package_sends_anyone_to_a_section_of_the_readme() -> None:
    assert [each.name for each in texts.strings() if "README" in each.text] == []


def test_every_page_and_section_that_a_text_names_exists() -> None:
    for each in texts.named():
        if each.plain[:1] == ("docs",) and len(each.plain) > 1:
            assert each.plain[1] in TOPICS, each
            if len(each.plain) > 2 and each.where.startswith("config"):
                assert manual.section(each.plain[1], each.plain[2]) is not None, each


# --- docs_url ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("docs_url", "found"),
    [
        ("", ""),
        (URL, f"{URL}/concepts.md#gates"),
        (f"{URL}/", f"{URL}/concepts.md#gates"),
        ("https://d.example.com/{topic}.html", "https://d.example.com/concepts.html#gates"),
        ("https://d.example.com/{topic}/", "https://d.example.com/concepts/#gates"),
    ],
)
def test_the_address_of_a_heading(docs_url: str, found: str) -> None:
    assert manual.address(docs_url, "concepts", "gates") == found
    assert manual.where(docs_url, "concepts", "gates") == found or "shadow docs concepts gates"


def test_without_an_address_a_link_names_the_command() -> None:
    assert manual.where("", "alerts", "shadowthrottled") == "shadow docs alerts shadowthrottled"
    assert manual.where("", "alerts") == "shadow docs alerts"


@pytest.mark.parametrize("url", ["docs", "ftp://x/docs", "https://", "https://x/{page}", 'https://x/"', "https://x/#a"])
def test_an_address_that_is_none_is_a_fault_of_the_settings(url: str) -> None:
    with pytest.raises(ConfigurationError, match="docs_url"):
        parse(f"docs_url: '{url}'", {})


def test_the_address_is_set_by_file_and_environment() -> None:
    assert parse("", {}).docs_url == manual.project_address()
    assert parse(f"docs_url: {URL}", {}).docs_url == URL
    assert parse(f"docs_url: {URL}", {"SHADOW_DOCS_URL": "https://e.example.com/"}).docs_url == "https://e.example.com/"


@pytest.mark.parametrize(
    ("urls", "found"),
    [
        (["Documentation, https://d.example.com/x", "Homepage, https://h.example.com"], "https://d.example.com/x"),
        (["documentation , https://d.example.com"], "https://d.example.com"),
        (["Homepage, https://h.example.com"], ""),
        ([], ""),
    ],
)
def test_the_default_is_the_documentation_of_the_projects_metadata(
    urls: list[str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Message()
    for each in urls:
        made["Project-URL"] = each
    monkeypatch.setattr(metadata, "metadata", lambda name: made)
    assert manual.project_address() == found


# --- the package and the command --------------------------------------------------------------------------------


def test_the_pages_and_the_rules_are_part_of_the_package() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["force-include"] == {
        "docs": "shadow/docs",
        "config/prometheus/rules/shadow.yml": "shadow/docs/alert-rules.yml",
    }
    assert {"docs", "config"} <= set(build["sdist"]["include"])
    copied = (ROOT / "Dockerfile").read_text("utf-8").partition("RUN pip install")[0]
    assert "COPY docs ./docs" in copied
    assert "COPY config ./config" in copied


def test_an_installed_package_has_its_own_pages_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index.md").write_text("| [own](own.md) | x |\n")
    (tmp_path / "own.md").write_text("# Its own\n")
    monkeypatch.setattr(manual, "_FOLDERS", (tmp_path, ROOT / "docs"))
    manual.page.cache_clear()
    assert manual.topics() == {"own": "Its own"}
    manual.page.cache_clear()


def test_the_topics_are_listed(tmp_path: Path) -> None:
    said = shadow_command("docs", cwd=tmp_path)
    assert said.code == 0
    for topic in TOPICS:
        assert re.search(rf"^{topic}  ", said.out, re.MULTILINE)


def test_a_page_is_printed_as_markdown_where_there_is_no_terminal(tmp_path: Path) -> None:
    said = shadow_command("docs", "concepts", cwd=tmp_path)
    assert said.code == 0
    assert said.out == manual.page("concepts")
    assert "<!--" not in said.out
    assert "\x1b" not in said.out


@pytest.mark.parametrize("named", ["Glossary", "glossary", "concepts#glossary"])
def test_a_section_is_printed_by_its_title_or_anchor(named: str) -> None:
    arguments = named.split("#") if "#" in named else ["concepts", named]
    said = shadow_command("docs", "#".join(arguments)) if "#" in named else shadow_command("docs", *arguments)
    assert said.out.startswith("## Glossary\n")
    assert "## Findings" not in said.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("docs", "nothing"), "no topic 'nothing'"),
        (("docs", "../README"), "no topic"),
        (("docs", "index"), "no topic"),
        (("docs", "concepts", "nothing"), "no section 'nothing'"),
        (("docs", "concepts", "--docs-url", URL), "it needs --alerts"),
        (("docs", "concepts", "--alerts"), "takes no topic"),
        (("docs", "--alerts", "--docs-url", "nowhere"), "docs_url"),
    ],
)
def test_wrong_use_is_answered_with_what_there_is(arguments: tuple[str, ...], reason: str) -> None:
    said = shadow_command(*arguments)
    assert said.code == 2
    assert reason in " ".join(said.err.replace("│", " ").split())
    assert "Traceback" not in said.err
    if reason.startswith("no topic"):
        assert "runbook" in said.err


def test_a_terminal_gets_the_page_formatted_and_paged(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from shadow.cli import docs

    shown: list[str] = []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(docs, "Console", lambda: Console(force_terminal=True, width=80))
    monkeypatch.setattr("rich.pager.SystemPager.show", lambda self, content: shown.append(content))
    docs.docs("concepts", "glossary")
    assert "Glossary" in shown[0]
    assert "## Glossary" not in shown[0]


def test_nothing_is_asked_over_a_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from shadow.cli import docs

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for topic in TOPICS:
        docs.docs(topic, None)
        assert capsys.readouterr().out.startswith("# ")


def test_the_version_is_that_of_the_package() -> None:
    said = shadow_command("--version")
    assert (said.code, said.out) == (0, f"shadow {metadata.version('shadow')}\n")


# --- the alert rules --------------------------------------------------------------------------------------------


def links(rules: str) -> dict[str, str]:
    return {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in yaml.safe_load(rules)["groups"]
        for rule in group["rules"]
    }


def test_without_an_address_the_rules_are_printed_as_they_are(tmp_path: Path) -> None:
    said = shadow_command("docs", "--alerts", cwd=tmp_path)
    assert said.out == RULES.read_text("utf-8")


@pytest.mark.parametrize(
    ("url", "start"),
    [(URL, f"{URL}/alerts.md#"), ("https://d.example.com/{topic}.html", "https://d.example.com/alerts.html#")],
)
def test_with_an_address_every_rule_has_it(url: str, start: str, tmp_path: Path) -> None:
    said = shadow_command("docs", "--alerts", "--docs-url", url, cwd=tmp_path)
    found = links(said.out)
    assert found == {alert: f"{start}{alert.lower()}" for alert in links(RULES.read_text("utf-8"))}
    without = [{**rule, "annotations": {}} for rule in yaml.safe_load(said.out)["groups"][0]["rules"]]
    assert without == [{**rule, "annotations": {}} for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]


def test_the_address_of_the_configuration_file_goes_for_the_rules_too(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"docs_url: {URL}\n")
    said = shadow_command("docs", "--alerts", "-c", str(tmp_path / "s.yaml"), cwd=tmp_path)
    assert set(links(said.out).values()) == {f"{URL}/alerts.md#{alert.lower()}" for alert in links(said.out)}
