"""The manifests: valid by Kubernetes' schemas, and everything that they name is there and fits together."""

from __future__ import annotations

import subprocess
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from shadow.config import load
from tests.support import kubernetes, services
from tests.support.kubernetes import FOLDER, ROOT

CONFIG: Final = ROOT / "config"
CUSTOM: Final[dict[str, Any]] = {
    # Of the operator's API v1, as far as the manifests use it; an unknown field is a misspelt one.
    "ServiceMonitor": {
        "type": "object", "additionalProperties": False, "required": ["selector", "endpoints"],
        "properties": {
            "selector": {
                "type": "object", "additionalProperties": False,
                "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
            },
            "endpoints": {"type": "array", "minItems": 1, "items": {
                "type": "object", "additionalProperties": False, "required": ["port"],
                "properties": {
                    "port": {"type": "string"},
                    "path": {"type": "string", "pattern": "^/"},
                    "interval": {"type": "string", "pattern": r"^\d+(ms|s|m)$"},
                },
            }},
        },
    },
    "PrometheusRule": {
        "type": "object", "additionalProperties": False, "required": ["groups"],
        "properties": {"groups": {"type": "array", "minItems": 1, "items": {
            "type": "object", "additionalProperties": False, "required": ["name", "rules"],
            "properties": {
                "name": {"type": "string"},
                "interval": {"type": "string"},
                "rules": {"type": "array", "minItems": 1, "items": {
                    "type": "object", "additionalProperties": False, "required": ["expr"],
                    "properties": {
                        "alert": {"type": "string"}, "record": {"type": "string"}, "expr": {"type": "string"},
                        "for": {"type": "string", "pattern": r"^\d+(s|m|h)$"},
                        "keep_firing_for": {"type": "string", "pattern": r"^\d+(s|m|h)$"},
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                }},
            },
        }}},
    },
}  # fmt: skip


def containers(resource: dict[str, Any]) -> list[dict[str, Any]]:
    spec = resource["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: list[dict[str, Any]] = spec["template"]["spec"]["containers"]
    return found


def programs() -> dict[str, dict[str, Any]]:
    return {
        name: each for name, each in kubernetes.rendered().items() if each["kind"] in ("Deployment", "Job", "CronJob")
    }


def test_every_resource_is_valid_by_its_schema() -> None:
    resources = kubernetes.rendered()
    assert {each["kind"] for each in resources.values()} == {
        "Deployment", "Service", "Job", "CronJob", "ServiceMonitor", "PrometheusRule",
    }  # fmt: skip
    for name, each in resources.items():
        if each["kind"] in CUSTOM:
            jsonschema.validate(each["spec"], CUSTOM[each["kind"]])
            continue
        try:
            assert kubernetes.faults(each) == [], name
            assert kubernetes.faults({**each, "spec": {**each["spec"], "misspelt": 1}}) != [], "the schema is loose"
        except subprocess.SubprocessError as error:
            services.missing("the schemas of Kubernetes", error)


def test_the_rules_of_the_operator_are_those_of_prometheus() -> None:
    assert kubernetes.RULE.read_text("utf-8") == kubernetes.prometheus_rule(), "python -m tests.support.kubernetes"


def test_what_kustomize_is_told_is_there_and_fits_a_config_map() -> None:
    told = yaml.safe_load((CONFIG / "kustomization.yaml").read_text("utf-8"))
    for file in told["resources"]:
        assert (CONFIG / file).is_file(), file
    maps = {each["name"]: each["files"] for each in told["configMapGenerator"]}
    for files in maps.values():
        # The API takes a megabyte in a ConfigMap.
        assert sum((CONFIG / file).stat().st_size for file in files) < 900_000
    boards = {f"grafana/dashboards/{each.name}" for each in (CONFIG / "grafana" / "dashboards").glob("*.json")}
    assert set(maps["shadow-dashboards"]) == boards
    volumes = {
        volume["configMap"]["name"]
        for each in programs().values()
        for volume in each["spec"].get("jobTemplate", each)["spec"]["template"]["spec"]["volumes"]
    }
    assert volumes <= set(maps)
    # A job begins when it is applied.
    applied = "".join((CONFIG / file).read_text("utf-8") for file in told["resources"])
    assert "kind: Job" not in applied
    assert "kind: CronJob" not in applied


def test_the_monitor_finds_the_service_and_its_port() -> None:
    resources = kubernetes.rendered()
    monitor, service = resources["ServiceMonitor/shadow"]["spec"], resources["Service/backend"]
    pods = resources["Deployment/backend"]["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= pods["metadata"]["labels"].items()
    assert {each["port"] for each in monitor["endpoints"]} <= {each["name"] for each in service["spec"]["ports"]}
    (container,) = pods["spec"]["containers"]
    ports = {each["name"] for each in container["ports"]}
    assert {each["targetPort"] for each in service["spec"]["ports"]} <= ports
    assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {
        "/healthz",
        "/readyz",
    }
    assert {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} <= ports


@pytest.mark.parametrize("name", list(programs()))
def test_a_program_has_settings_that_are_valid_and_time_to_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = programs()[name]
    (container,) = containers(resource)
    environment = {each["name"]: each["value"] for each in container["env"]}
    (mount,) = container["volumeMounts"]
    assert environment.pop("SHADOW_CONFIG") == f"{mount['mountPath']}/shadow.yaml"
    assert "subPath" not in mount
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = load(CONFIG / "shadow.yaml")
    assert (settings.journal.kind, settings.dynamo.region) == ("dynamodb", "us-east-1")
    spec = resource["spec"].get("jobTemplate", resource)["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] >= 2 * settings.limits.drain + 10


def test_the_manifests_are_in_the_folder_that_is_checked() -> None:
    assert {each.name for each in FOLDER.iterdir()} == {
        "backend.yaml", "backfill.yaml", "prometheus-rule.yaml", "service-monitor.yaml", "tables.yaml", "verify.yaml",
    }  # fmt: skip
