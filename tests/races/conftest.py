"""Real stores for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shadows import Site


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    """Both stores, no proxy; MongoDB is primary."""
    return Site(mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"))
