"""A small FastAPI application on shadow, for tests that start it under uvicorn: `SHADOW_TEST_SITE` says where."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from shadow import Shadow
from tests.support.shadows import COLLECTION, Site

__all__ = ["SITE", "create", "environment"]

SITE = "SHADOW_TEST_SITE"


def environment(site: Site) -> dict[str, str]:
    return {**os.environ, SITE: json.dumps(asdict(site))}


def create(shadow: Shadow) -> FastAPI:
    """`app.state.cancelled` counts the requests that were cancelled because their client had gone."""
    app = FastAPI(lifespan=shadow.lifespan)
    app.state.cancelled = 0
    things = shadow[COLLECTION]

    @app.post("/things/{key}")
    async def insert(key: str) -> dict[str, str]:
        result = await things.insert_one({"_id": key, "n": 0})
        return {"id": result.inserted_id}

    @app.post("/things/{key}/bump")
    async def bump(key: str) -> dict[str, int]:
        result = await things.update_one({"_id": key}, {"$inc": {"n": 1}})
        return {"matched": result.matched_count}

    @app.post("/stream/{key}")
    async def stream(key: str) -> StreamingResponse:
        """Starlette watches the client of a streamed answer, and cancels the stream when it goes."""

        async def lines() -> AsyncIterator[str]:
            try:
                await things.insert_one({"_id": key, "n": 0})
                await things.update_one({"_id": key}, {"$inc": {"n": 1}})
                yield "done\n"
            except BaseException:
                app.state.cancelled += 1
                raise

        return StreamingResponse(lines())

    return app


def app() -> FastAPI:
    """The factory that uvicorn is given."""
    return create(Site(**json.loads(os.environ[SITE])).shadow())
