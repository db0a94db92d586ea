"""Every store in turn, each made once a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.backends import BACKENDS, Backend, open_backend


@pytest.fixture(scope="module", params=BACKENDS)
def unopened_backend(request: pytest.FixtureRequest) -> Backend:
    return open_backend(request.param, request.getfixturevalue)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(unopened_backend: Backend) -> AsyncIterator[Backend]:
    """One of the stores, with its collection `shared` ready."""
    await unopened_backend.open()
    yield unopened_backend
    await unopened_backend.close()
