"""The alert rules: each fires when it should, is silent when it should not, and has a section in the manual."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from shadow.errors import StoreUnavailable
from tests.support import manual, promql, services
from tests.support.cases import each_of
from tests.unit.test_dashboards import series  # noqa: F401 - a fixture

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "config" / "prometheus" / "rules" / "shadow.yml"
RULES: Final[dict[str, dict[str, Any]]] = {
    rule["alert"]: rule for group in yaml.safe_load(FILE.read_text("utf-8"))["groups"] for rule in group["rules"]
}

LINK: Final = (
    "{{ with $externalLabels.shadow_docs_url }}{{ . }}/alerts.md#ANCHOR{{ else }}shadow docs alerts ANCHOR{{ end }}"
)

USERS: Final = 'collection="users"'


@dataclass(frozen=True)
class Case:
    """`series`: what is scraped each half minute, in promtool's notation. `at`: when the alert is looked at."""

    alert: str
    what: str
    fires: bool
    series: dict[str, str]
    at: str = "60m"


def rising(by: float) -> str:
    """A counter that rises by so much with each scrape, for more than an hour."""
    return f"0+{by}x140"


def still(value: float) -> str:
    return f"{value}+0x140"


def compared(mismatch: float, match: float, **more: float) -> dict[str, str]:
    verdicts = {"mismatch": mismatch, "match": match, "excused": 0.0, "shed": 0.0, **more}
    return {
        f'shadow_comparisons_total{{{USERS},verb="find",verdict="{name}"}}': rising(by) for name, by in verdicts.items()
    }


def noise(mismatch: float, match: float) -> dict[str, str]:
    verdicts = {"mismatch": mismatch, "match": match}
    return {
        f'shadow_noise_comparisons_total{{{USERS},verb="find",verdict="{name}"}}': rising(by)
        for name, by in verdicts.items()
    }


def operations(role: str, store: str, **outcomes: float) -> dict[str, str]:
    labels = f'{USERS},verb="find",store="{store}",role="{role}"'
    return {f'shadow_operations_total{{{labels},outcome="{name}"}}': rising(by) for name, by in outcomes.items()}


def route(instance: str, primary: str, phase: str, *, on: int = 1) -> dict[str, str]:
    labels = f'{USERS},instance="{instance}",primary="{primary}",phase="{phase}"'
    return {f"shadow_route_info{{{labels}}}": still(on)}


def watches(**steps: str) -> dict[str, str]:
    every = dict.fromkeys(("opened", "broken", "taken_back", "not_taken_back", "ended"), still(0)) | steps
    return {f'shadow_flip_watches_total{{{USERS},step="{name}"}}': values for name, values in every.items()}


WATCHED: Final = f'shadow_flip_watch{{{USERS},instance="a"}}'
REFUSED: Final = 'shadow_refused_calls_total{collection="users",operator="$where"}'
NO_OTHER: Final = {'shadow_refused_calls_total{collection="users",operator="other"}': still(0)}
MISMATCHES: Final = f'shadow_mismatches_total{{{USERS},kind="value"}}'
OPEN: Final = f'shadow_journal_open_intents{{{USERS},instance="a"}}'
REJECTED: Final = 'shadow_config_reloads_total{instance="a",result="rejected"}'
DISAGREEMENTS: Final = 'shadow_fleet_disagreements{collection="users",instance="a"}'
CONTROL: Final = 'shadow_control_up{instance="a"}'
BYPASSING: Final = f'shadow_out_of_band_writes_total{{{USERS},kind="changed"}}'
RELAY: Final = 'shadow_relay_lag_seconds{store="mongo"}'
BACKGROUND: Final = 'shadow_background_up{task="recovery",instance="a"}'
BACKGROUND_FAILURES: Final = 'shadow_background_failures_total{task="recovery"}'
FAILURES: Final = 'shadow_internal_failures_total{part="lane"}'
SHADOWED: Final = route("a", "mongo", "shadow")

CASES: Final = [
    Case("ShadowDivergence", "one mismatch", True, {MISMATCHES: "0+0x100 1+0x40"}, "52m"),
    Case("ShadowDivergence", "no mismatch", False, {MISMATCHES: still(0)}),
    Case("ShadowDivergence", "one long ago", False, {MISMATCHES: "0+0x10 1+0x130"}),
    Case("ShadowDivergenceOverNoise", "5 % differ, no noise", True, {**compared(5, 95), **noise(0, 10)}),
    Case("ShadowDivergenceOverNoise", "5 % differ, as much is noise", False, {**compared(5, 95), **noise(0.5, 9.5)}),
    Case(
        "ShadowDivergenceOverNoise", "a mismatch in a hundred thousand", False, {**compared(0.001, 99), **noise(0, 10)}
    ),
    Case("ShadowDivergenceOverNoise", "no comparisons at all", False, {**compared(0, 0), **noise(0, 0)}),
    Case("ShadowComparisonNotWorking", "not found", True, {f"shadow_comparison_working{{{USERS}}}": still(0)}),
    Case("ShadowComparisonNotWorking", "found", False, {f"shadow_comparison_working{{{USERS}}}": still(1)}),
    Case("ShadowComparisonNotWorking", "late once", False, {f"shadow_comparison_working{{{USERS}}}": "1+0x117 0+0x3"}),
    Case(
        "ShadowNoComparisons",
        "reads without comparisons",
        True,
        {**operations("primary", "mongo", acked=30), **SHADOWED, **compared(0, 0)},
    ),
    Case(
        "ShadowNoComparisons",
        "every comparison is shed",
        True,
        {**operations("primary", "mongo", acked=30), **SHADOWED, **compared(0, 0, shed=30)},
    ),
    Case(
        "ShadowNoComparisons",
        "reads with comparisons",
        False,
        {**operations("primary", "mongo", acked=30), **SHADOWED, **compared(0, 30)},
    ),
    Case(
        "ShadowNoComparisons",
        "a phase that compares nothing",
        False,
        {
            **operations("primary", "mongo", acked=30),
            **route("a", "mongo", "shadow", on=0),
            **route("a", "mongo", "dual_write"),
            **compared(0, 0),
        },
    ),
    Case("ShadowNoComparisons", "no traffic", False, {**operations("primary", "mongo", acked=0), **SHADOWED}),
    Case("ShadowShedding", "half is shed", True, compared(0, 30, shed=30)),
    Case("ShadowShedding", "a tenth is shed", False, compared(0, 90, shed=10)),
    Case("ShadowShedding", "nothing is asked", False, compared(0, 0)),
    Case("ShadowJournalOld", "it gets older", True, {'shadow_journal_oldest_intent_seconds{instance="a"}': rising(30)}),
    Case("ShadowJournalOld", "always young", False, {'shadow_journal_oldest_intent_seconds{instance="a"}': still(5)}),
    Case("ShadowJournalGrowing", "it grows", True, {OPEN: rising(100)}),
    Case("ShadowJournalGrowing", "large, and it shrinks", False, {OPEN: "100000-100x140"}),
    Case("ShadowJournalGrowing", "small", False, {OPEN: "0+1x140"}),
    Case("ShadowSecondaryDown", "down", True, {'shadow_secondary_up{store="dynamo"}': still(0)}),
    Case("ShadowSecondaryDown", "up", False, {'shadow_secondary_up{store="dynamo"}': still(1)}),
    Case("ShadowSecondaryDown", "down for a scrape", False, {'shadow_secondary_up{store="dynamo"}': "1+0x118 0+0x0"}),
    Case("ShadowSecondaryFailing", "one in five", True, operations("secondary", "dynamo", acked=8, unknown=2)),
    Case("ShadowSecondaryFailing", "one in a hundred", False, operations("secondary", "dynamo", acked=99, unknown=1)),
    Case("ShadowSecondaryFailing", "the primary's refusals", False, operations("primary", "mongo", acked=1, refused=9)),
    Case("ShadowThrottled", "throttled", True, {"shadow_dynamo_throttled_requests_total": rising(10)}),
    Case("ShadowThrottled", "once in a while", False, {"shadow_dynamo_throttled_requests_total": rising(0.1)}),
    Case("ShadowClientStuck", "once", True, {'shadow_clients_stuck_total{store="mongo"}': "0+0x110 1+0x30"}),
    Case("ShadowClientStuck", "never", False, {'shadow_clients_stuck_total{store="mongo"}': still(0)}),
    Case("ShadowReloadFailing", "refused", True, {REJECTED: "0+0x110 1+0x30"}),
    Case("ShadowReloadFailing", "never refused", False, {REJECTED: still(0)}),
    Case(
        "ShadowPrimariesDisagree",
        "two processes, two primaries",
        True,
        {**route("a", "mongo", "shadow"), **route("b", "dynamo", "shadow")},
    ),
    Case(
        "ShadowPrimariesDisagree",
        "two processes, one primary",
        False,
        {
            **route("a", "mongo", "shadow"),
            **route("b", "mongo", "shadow"),
            **route("b", "dynamo", "shadow", on=0),
        },
    ),
    Case("ShadowPrimariesDisagree", "a process that is not scraped here", True, {DISAGREEMENTS: still(1)}),
    Case("ShadowPrimariesDisagree", "the fleet stands alike", False, {DISAGREEMENTS: still(0)}),
    Case("ShadowControlDown", "out of reach", True, {CONTROL: still(0)}),
    Case("ShadowControlDown", "it answers", False, {CONTROL: still(1)}),
    Case("ShadowControlDown", "for a moment", False, {CONTROL: "1+0x100 0+0x2 1+0x60"}),
    Case("ShadowBypassed", "written past", True, {BYPASSING: "0+0x60 3+0x80"}),
    Case("ShadowBypassed", "never", False, {BYPASSING: still(0)}),
    Case("ShadowCallsRefused", "again and again", True, {**NO_OTHER, REFUSED: rising(1)}),
    Case("ShadowCallsRefused", "one, of an operator that is new", True, {**NO_OTHER, REFUSED: "_x115 1+0x25"}),
    Case(
        "ShadowCallsRefused",
        "one of an unlisted operator",
        True,
        {'shadow_refused_calls_total{collection="users",operator="other"}': "0+0x115 1+0x25"},
    ),
    Case("ShadowCallsRefused", "none", False, NO_OTHER),
    Case("ShadowCallsRefused", "some long ago", False, {**NO_OTHER, REFUSED: "_x10 1 2 3 4+0x130"}),
    Case("ShadowFlipTakenBack", "taken back", True, watches(broken="0+0x100 1+0x40", taken_back="0+0x101 1+0x39")),
    Case("ShadowFlipTakenBack", "held", False, watches(opened="0+0x50 1+0x90", ended="0+0x100 1+0x40")),
    Case("ShadowFlipNotTakenBack", "not yet", True, {WATCHED: "1+0x110 3+0x30"}),
    Case("ShadowFlipNotTakenBack", "at once", False, {WATCHED: "1+0x117 3 0+0x30"}),
    Case("ShadowFlipNotTakenBack", "only told", False, {WATCHED: "1+0x110 2+0x30"}),
    Case("ShadowRelayBehind", "behind", True, {RELAY: "0+30x140"}),
    Case("ShadowRelayBehind", "caught up", False, {RELAY: still(2)}),
    Case("ShadowRelayBehind", "for a moment", False, {RELAY: "0+0x100 90+0x4 0+0x60"}),
    Case("ShadowBackgroundDown", "down", True, {BACKGROUND: still(0)}),
    Case("ShadowBackgroundDown", "up", False, {BACKGROUND: still(1)}),
    Case("ShadowBackgroundDown", "down for a moment", False, {BACKGROUND: "1+0x60 0+0x2 1+0x80"}),
    Case("ShadowBackgroundDown", "up in between, and down again", True, {BACKGROUND_FAILURES: rising(0.5)}),
    Case("ShadowBackgroundDown", "failed a few times", False, {BACKGROUND_FAILURES: "0+0x60 5+0x80"}),
    Case("ShadowInternalFailures", "again and again", True, {FAILURES: rising(1)}),
    Case("ShadowInternalFailures", "once", False, {FAILURES: "0+0x100 1+0x40"}),
]


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool") or str(ROOT / ".cache/prometheus/usr/bin/promtool")
    if not Path(found).exists():
        services.missing("promtool", StoreUnavailable("there is no promtool here", hint="bash .ci/run fetches it"))
    return found


def run(promtool: str, *arguments: str) -> None:
    ended = subprocess.run([promtool, *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def as_told(promtool: str, folder: Path, *cases: Case) -> subprocess.CompletedProcess[str]:
    """Plays the cases, each by itself, to the rule of its alert: with the others it would take as often as long."""
    files = []
    for alert in dict.fromkeys(case.alert for case in cases):
        rules, file = folder / f"{alert}.rules.yml", folder / f"{alert}.yml"
        rules.write_text(yaml.safe_dump({"groups": [{"name": alert, "rules": [RULES[alert]]}]}), encoding="utf-8")
        tests = [played(case) for case in cases if case.alert == alert]
        test = {"rule_files": [str(rules)], "evaluation_interval": "30s", "tests": tests}
        file.write_text(yaml.safe_dump(test), encoding="utf-8")
        files.append(str(file))
    return subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True)


def played(case: Case) -> dict[str, Any]:
    samples = [{"labels": "{}", "value": 1}] if case.fires else []
    question = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    return {
        "interval": "30s",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [{"expr": question, "eval_time": case.at, "exp_samples": samples}],
    }


@pytest.fixture(scope="module")
def all_as_told(promtool: str, tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether every case comes out as it should, played in one go."""
    return as_told(promtool, tmp_path_factory.mktemp("rules"), *CASES).returncode == 0


@each_of("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_an_alert_fires_when_it_should_and_only_then(
    promtool: str, all_as_told: bool, case: Case, tmp_path: Path
) -> None:
    if not all_as_told:
        ended = as_told(promtool, tmp_path, case)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_promtool_finds_nothing_wrong_with_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", str(FILE))


@each_of("alert", RULES)
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    assert {case.fires for case in CASES if case.alert == alert} == {True, False}


@each_of("alert", RULES)
def test_an_alert_waits_is_graded_and_is_explained(alert: str) -> None:
    rule = RULES[alert]
    assert re.fullmatch(r"\d+[sm]", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(("}}", "."))
    section = manual.section("alerts", alert)
    for word in ("Means", "Look at", "Do"):
        assert f"**{word}:**" in section


@each_of("alert", RULES)
def test_the_link_of_an_alert_is_to_its_own_section(alert: str) -> None:
    url: str = RULES[alert]["annotations"]["runbook_url"]
    assert url == LINK.replace("ANCHOR", alert.lower())


@pytest.mark.parametrize(
    ("labels", "start"),
    [
        ({"shadow_docs_url": "https://git.example.com/docs"}, "https://git.example.com/docs/alerts.md#"),
        ({}, "shadow docs alerts "),
    ],
    ids=["an address", "none"],
)
def test_the_link_is_made_from_an_external_label(
    promtool: str, labels: dict[str, str], start: str, tmp_path: Path
) -> None:
    """Of one alert: the links of the others differ in the anchor alone."""
    case = next(case for case in CASES if case.alert == "ShadowThrottled" and case.fires)
    annotations = {"runbook_url": RULES[case.alert]["annotations"]["runbook_url"]}
    rules = {"groups": [{"name": "one", "rules": [{**RULES[case.alert], "annotations": annotations}]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    assert f'runbook_url="{start}shadowthrottled"' in fired(promtool, tmp_path, case, labels)


def fired(promtool: str, folder: Path, case: Case, labels: dict[str, str]) -> str:
    """What promtool says of the alert that fires: it is asked for none, and shows what it got."""
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "external_labels": labels,
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": []}],
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(test), encoding="utf-8")
    ended = subprocess.run([promtool, "test", "rules", str(folder / "test.yml")], capture_output=True, text=True)
    return ended.stdout + ended.stderr


@each_of("alert", RULES)
def test_an_alert_asks_for_what_is_exported(alert: str, series: promql.Series) -> None:  # noqa: F811
    assert promql.complaints(RULES[alert]["expr"], series) == []
    values = {(label, value) for _, labels in series for label, value in labels.items()}
    for label, pattern in re.findall(r'(\w+)[=!]~"([^"]+)"', RULES[alert]["expr"]):
        assert all((label, each) in values for each in pattern.split("|"))


def test_prometheus_reads_the_rules_where_they_are_mounted() -> None:
    folder = ROOT / "config" / "prometheus"
    (pattern,) = yaml.safe_load((folder / "prometheus.yml").read_text("utf-8"))["rule_files"]
    assert FILE in folder.glob(pattern)
