"""`with_options` on both primaries: what changes no answer is accepted, anything else is refused before it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from bson.codec_options import CodecOptions
from pymongo import ReadPreference, WriteConcern
from pymongo.read_concern import ReadConcern

from shadow import Shadow
from shadow.errors import UnsupportedOperation
from shadow.model.phase import StoreName
from tests.support.shims import assert_level, settings_for


@pytest.mark.plain_options(reason="what it asks for is measured by what a client keeps that was told nothing")
@pytest.mark.parametrize("primary", list(StoreName))
async def test_a_collection_with_options_is_the_same_collection(
    mongo_url: str, mongo_database: str, dynamodb_local_url: str, tmp_path: Path, primary: StoreName
) -> None:
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, mongo_database, ["things"], primary=primary)
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        things = shadow.get_collection(
            "things",
            codec_options=CodecOptions(tz_aware=True),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern(w=1),
            read_concern=ReadConcern("local"),
        )
        assert things == shadow["things"]
        assert (things.read_concern.level, things.write_concern.document) == ("local", {"w": 1})
        assert things.read_preference == ReadPreference.PRIMARY
        assert things.codec_options.tz_aware
        assert (await things.insert_one({"_id": 1})).acknowledged
        again = things.with_options(write_concern=WriteConcern())
        assert again.read_concern.level == "local"
        assert again.codec_options.tz_aware
        assert await again.find_one({"_id": 1}) == {"_id": 1}
        for refused in ({"write_concern": WriteConcern(w=0)}, {"read_concern": ReadConcern("linearizable")}):
            with pytest.raises(UnsupportedOperation, match=next(iter(refused))):
                things.with_options(**refused)
        with pytest.raises(TypeError):
            things.with_options(session=1)  # type: ignore[call-arg]
        await assert_level(shadow)


def test_without_a_word_the_options_are_the_clients(tmp_path: Path) -> None:
    url = "mongodb://127.0.0.1:1/?w=majority&readConcernLevel=majority"
    shadow = Shadow.from_settings(settings_for(tmp_path, url, "http://127.0.0.1:1", "n", ["things"]))
    assert shadow["things"].write_concern == WriteConcern(w="majority")
    asked = shadow["things"].with_options(read_concern=ReadConcern("majority"))
    assert asked.read_concern == ReadConcern("majority")
