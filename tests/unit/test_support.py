"""The rules of the tests themselves: a service that is missing is seen, and real documents are all there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import bson
import pytest

from tests.support import documents, promql, services


@pytest.fixture(autouse=True)
def no_requirement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("SHADOW_REQUIRE_SERVICES", raising=False)


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("CI", "1"), ("SHADOW_REQUIRE_SERVICES", "1")])
def test_a_missing_service_fails_in_ci_and_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(pytest.fail.Exception, match="mongod cannot be had"):
        services.missing("mongod", "reason")


def test_a_missing_service_is_skipped_on_a_developers_machine_and_says_so() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"mongod cannot be had: reason[\s\S]*CI=true"):
        services.missing("mongod", "reason")


def test_every_real_document_parses_and_can_be_stored(real_documents: Mapping[str, Sequence[Any]]) -> None:
    counts = {"accounts": 1746, "books": 431, "customers": 500, "products": 11, "theaters": 1564, "users": 185}
    assert {name: len(found) for name, found in real_documents.items()} == counts
    lines = {file.stem: len(file.read_text("utf-8").splitlines()) for file in documents.FOLDER.glob("*.json")}
    assert lines == counts
    for found in real_documents.values():
        for document in found:
            assert bson.decode(bson.encode(document))["_id"] == document["_id"]


def test_an_unknown_variable_of_grafana_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown variable"):
        promql.expression("rate(x[$__interval_ms])")
