"""docker-compose.yml: valid by the compose specification, and everything that it names is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from shadow.config import load

ROOT: Final = Path(__file__).parents[2]

_STRINGS: Final = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_PORT: Final = {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}

# The part of the compose specification that the file uses; a key that is not here is a misspelt or an unknown one.
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "oneOf": [{"required": ["image"]}, {"required": ["build"]}],
                "properties": {
                    "image": {"type": "string", "pattern": r"^[a-z0-9/_-]+:[\w.-]+$"},
                    "build": {"type": "string"},
                    "command": _STRINGS,
                    "user": {"type": "string"},
                    "working_dir": {"type": "string", "pattern": "^/"},
                    "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                    "environment": {"type": "object", "additionalProperties": {"type": "string"}},
                    "ports": {"type": "array", "items": _PORT},
                    "volumes": _STRINGS,
                    "depends_on": {
                        "oneOf": [
                            _STRINGS,
                            {
                                "type": "object",
                                "additionalProperties": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["condition"],
                                    "properties": {"condition": {"enum": ["service_started", "service_healthy"]}},
                                },
                            },
                        ]
                    },
                    "healthcheck": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["test"],
                        "properties": {
                            "test": {**_STRINGS, "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}]},
                            "interval": {"type": "string", "pattern": r"^\d+s$"},
                            "timeout": {"type": "string", "pattern": r"^\d+s$"},
                            "retries": {"type": "integer", "minimum": 1},
                        },
                    },
                },
            },
        },
    },
}


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


@pytest.fixture
def compose() -> dict[str, Any]:
    document: dict[str, Any] = read("docker-compose.yml")
    return document


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    """(source, target) of each volume."""
    pairs = [volume.split(":") for volume in service.get("volumes", [])]
    return [(pair[0], pair[1]) for pair in pairs]


def target_of(service: dict[str, Any], inside: str) -> Path:
    """The file of the tree that a path inside the container is."""
    for source, target in mounts(service):
        if source.startswith("./") and Path(inside).is_relative_to(target):
            return ROOT / source / Path(inside).relative_to(target)
    raise AssertionError(f"{inside} is not mounted")


def test_it_is_valid(compose: dict[str, Any]) -> None:
    jsonschema.validate(compose, SCHEMA)


@pytest.mark.parametrize(
    ("key", "value"), [("imagee", "x:1"), ("ports", ["8080:80"]), ("restart", "sometimes"), ("image", "mongo")]
)
def test_the_check_sees_faults(compose: dict[str, Any], key: str, value: Any) -> None:
    compose["services"]["mongo"][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, SCHEMA)


def test_every_mounted_path_and_volume_and_service_that_it_names_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", [])) <= set(compose["services"])
        for source, _ in mounts(service):
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]
    healthy = {"mongo"}
    assert {name for name, service in compose["services"].items() if "healthcheck" in service} == healthy


def test_no_two_services_want_the_same_port(compose: dict[str, Any]) -> None:
    ports = [port.split(":")[1] for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports))


def test_the_settings_of_the_backend_are_accepted_and_point_at_the_services(compose: dict[str, Any]) -> None:
    backend = compose["services"]["backend"]
    environment = backend["environment"]
    settings = load(target_of(backend, environment["SHADOW_CONFIG"]), environment)
    assert str(settings.dynamo.endpoint_url).rstrip("/") == "http://dynamodb:8000"
    assert "//mongo:27017" in settings.mongo.url.get_secret_value()


def test_the_dockerfile_copies_what_exists_and_starts_what_exists() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    found = re.search(r'"([\w.]+):(\w+)"', text)
    assert found is not None
    assert callable(getattr(importlib.import_module(found[1]), found[2]))


def test_prometheus_scrapes_the_backend_where_it_listens(compose: dict[str, Any]) -> None:
    (job,) = read("config/prometheus/prometheus.yml")["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert compose["services"][name]["ports"][0].endswith(f":{port}")
    assert f'"--port", "{port}"' in (ROOT / "Dockerfile").read_text("utf-8")
    assert job["metrics_path"] == "/metrics"


def test_grafana_finds_prometheus_and_the_boards(compose: dict[str, Any]) -> None:
    grafana = compose["services"]["grafana"]
    (source,) = read("config/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose["services"]
    (provider,) = read("config/grafana/provisioning/dashboards/shadow.yml")["providers"]
    assert list(target_of(grafana, provider["options"]["path"]).glob("*.json"))
    assert target_of(grafana, grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).exists()
