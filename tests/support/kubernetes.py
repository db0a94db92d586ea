"""The manifests for Kubernetes: the rules of Prometheus as its operator takes them, and the schemas to check with.

python -m tests.support.kubernetes    writes config/kubernetes/prometheus-rule.yaml
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

__all__ = ["FOLDER", "RULE", "faults", "prometheus_rule", "rendered"]

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "config" / "kubernetes"
RULE: Final = FOLDER / "prometheus-rule.yaml"
_RULES: Final = ROOT / "config" / "prometheus" / "rules" / "shadow.yml"
_SCHEMAS: Final = "kubernetes-validate==1.37.0"
"""The package with the JSON Schemas of Kubernetes' API: 17,000 files, so it is read as it is and not installed."""
_CACHE: Final = ROOT / ".cache" / "kubernetes-schemas"
_VERSION: Final = "v1.31.0-local-strict"
"""Strict: an unknown field is a fault."""


def prometheus_rule() -> str:
    """The alert rules as a resource of the operator."""
    groups = yaml.safe_load(_RULES.read_text("utf-8"))["groups"]
    made = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "shadow"},
        "spec": {"groups": groups},
    }
    head = "# Made of prometheus/rules/shadow.yml by `python -m tests.support.kubernetes`.\n"
    return head + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=1000)


def rendered() -> dict[str, dict[str, Any]]:
    """Every resource by "kind/name"."""
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        for each in yaml.safe_load_all(file.read_text("utf-8")):
            name = f"{each['kind']}/{each['metadata']['name']}"
            assert name not in found, f"{name} is there twice"
            found[name] = each
    return found


def faults(resource: dict[str, Any]) -> list[str]:
    """What is wrong with a resource of Kubernetes' own API, by its schema."""
    group, _, version = resource["apiVersion"].rpartition("/")
    name = "-".join(filter(None, (resource["kind"].lower(), group.partition(".")[0], version)))
    schema = _schema(f"{name}.json")
    registry: Registry[Any] = Registry(retrieve=_retrieved)  # type: ignore[call-arg]
    checked = jsonschema.Draft202012Validator(schema, registry=registry)
    return [f"{error.json_path}: {error.message}" for error in checked.iter_errors(resource)]


def _retrieved(uri: str) -> Resource[Any]:
    """References are to another file of the folder."""
    return Resource(_schema(uri.rpartition("/")[2]), DRAFT202012)


@cache
def _schema(name: str) -> Any:
    return json.loads(_wheel().read(f"kubernetes_validate/kubernetes-json-schema/{_VERSION}/{name}"))


@cache
def _wheel() -> zipfile.ZipFile:
    """Open to the end, since its list of files is long. Raises `CalledProcessError` where the registry has it not."""
    if not (there := sorted(_CACHE.glob("*.whl"))):
        get = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(_CACHE), _SCHEMAS]
        subprocess.run(get, check=True, timeout=240)
        there = sorted(_CACHE.glob("*.whl"))
    return zipfile.ZipFile(there[0])


if __name__ == "__main__":
    RULE.write_text(prometheus_rule(), encoding="utf-8")
