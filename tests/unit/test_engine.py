"""What the engine builds anew for each event loop."""

from __future__ import annotations

import dataclasses

from shadow import Settings, Shadow
from shadow.model.phase import StoreName
from shadow.model.schema import UniqueSpec
from shadow.stores.dynamo.store import DynamoStore


async def test_the_stores_of_a_later_event_loop_know_the_constraints_that_were_added_since() -> None:
    """`create_index(unique=True)` adds them while the application runs; no reload of the file has them."""
    engine = Shadow.from_settings(Settings.model_validate({"collections": {"users": {}}}))._engine
    before = engine._made_stores()[StoreName.DYNAMO]
    engine.specs["users"] = dataclasses.replace(engine.specs["users"], unique=(UniqueSpec("by-email", ("email",)),))
    after = engine._made_stores()[StoreName.DYNAMO]
    assert isinstance(before, DynamoStore)
    assert isinstance(after, DynamoStore)
    assert before._table("users").spec.unique == ()
    assert after._table("users").spec.unique == engine.specs["users"].unique
    for store in (before, after):
        await store.close()
