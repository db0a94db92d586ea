"""Real stores for a test, with a fault proxy before the one that follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shadows import Site


@pytest.fixture
def dynamo_url(request: pytest.FixtureRequest) -> str:
    """DynamoDB Local, or the server whose fixture a test names by indirect parametrization."""
    url: str = request.getfixturevalue(getattr(request, "param", "dynamodb_local_url"))
    return url


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamo_url: str, fresh_name: str, tmp_path: Path) -> Site:
    """Both stores, no proxy; MongoDB is primary."""
    return Site(mongo_url, mongo_database, dynamo_url, f"{fresh_name}-", str(tmp_path / "shadow.db"))
