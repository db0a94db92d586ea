"""The sample backend over shadow, as a server: `uvicorn --factory shadow.embedded.notesllm.server:build`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from shadow.client import Shadow
from shadow.embedded.notesllm.app import create_app
from shadow.embedded.notesllm.worker import worker

__all__ = ["build"]


def build() -> FastAPI:
    """The application and its worker, with shadow's admin endpoints. Settings come from the environment and the file
    that SHADOW_CONFIG names; missing tables and indexes are made at the start."""
    shadow = Shadow.from_environment()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with shadow:
            await shadow.prepare()
            stop = asyncio.Event()
            working = asyncio.create_task(worker(shadow, stop))
            try:
                yield
            finally:
                stop.set()
                await working

    app = create_app(shadow, lifespan=lifespan)
    app.include_router(shadow.admin_router())
    return app
