"""Texts that are equal by the supported collations are those that a real server takes for equal: every character, and
strings of characters of all kinds."""

from __future__ import annotations

import random
import unicodedata
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import pytest
from pymongo import MongoClient
from pymongo.collation import Collation
from pymongo.collection import Collection

from shadow.model.collations import AS_ENGLISH, of_query
from shadow.model.schema import CollationSpec
from shadow.mongoql.values.collation import collation_key
from tests.compat.amount import SEED
from tests.support.topologies import root_url

_EVERY: Final = [code for code in range(1, 0x30000) if not 0xD800 <= code < 0xE000]
_SCRIPTS: Final = (
    range(0x20, 0x7F), range(0xA0, 0x250), range(0x300, 0x370), range(0x370, 0x530), range(0x590, 0x700),
    range(0x900, 0x980), range(0xE00, 0xE80), range(0x1100, 0x1200), range(0x1E00, 0x2000), range(0x2000, 0x2C00),
    range(0x3040, 0x3100), range(0x4E00, 0x4E40), range(0xAC00, 0xAC80), range(0xFB00, 0xFB07), range(0xFF00, 0xFF60),
    range(0x1F100, 0x1F180),
)  # fmt: skip


@pytest.fixture(scope="module")
def texts_of(mongo_url: str) -> Iterator[Collection[dict[str, Any]]]:
    """An empty collection of a real server."""
    with MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        name = f"compat_{uuid.uuid4().hex[:12]}"
        yield client[name]["texts"]
        client.drop_database(name)


def decompositions() -> Iterator[str]:
    """Each character that is said to stand for others, and these."""
    for character in map(chr, _EVERY):
        if (others := unicodedata.normalize("NFKD", character)) != character:
            yield from (character, others)


def strings(count: int) -> Iterator[str]:
    """Of each kind several that may be equal: in another case, normal form, order of accents, or with ignored parts."""
    pick = random.Random(SEED)
    for _ in range(count):
        script, marks = pick.choice(_SCRIPTS), pick.choice((0, 0, 1, 3))
        text = "".join(chr(pick.choice(script)) for _ in range(pick.randint(1, 6)))
        text = "".join(each + "".join(chr(pick.randint(0x300, 0x36F)) for _ in range(marks)) for each in text)
        yield from (text, text.upper(), text.lower(), text.title())
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            yield unicodedata.normalize(form, text)
        yield text + "\N{ZERO WIDTH JOINER}"
        yield "\N{SOFT HYPHEN}".join(text)
        yield "".join(pick.sample(text, len(text)))


def stock(texts_of: Collection[dict[str, Any]], texts: list[str]) -> None:
    texts_of.drop()
    texts_of.insert_many([{"_id": place, "t": text} for place, text in enumerate(texts)])


def equal_by(texts_of: Collection[dict[str, Any]], collation: Collation) -> set[frozenset[int]]:
    """The places of texts that the server takes for equal."""
    by_text = {"$group": {"_id": "$t", "all": {"$push": "$_id"}}}
    return {frozenset(each["all"]) for each in texts_of.aggregate([by_text], collation=collation)}


@pytest.mark.parametrize("strength", [1, 2, 3])
@pytest.mark.parametrize("kind", ["characters", "decompositions", "strings"])
def test_the_server_takes_the_same_texts_for_equal(
    texts_of: Collection[dict[str, Any]], kind: str, strength: int
) -> None:
    made = {"characters": map(chr, _EVERY), "decompositions": decompositions(), "strings": strings(3000)}
    texts = list(dict.fromkeys(made[kind]))
    stock(texts_of, texts)
    collation = Collation(locale="en", strength=strength)
    theirs = equal_by(texts_of, collation)
    by = of_query(collation)
    assert by is not None
    groups: defaultdict[Any, set[int]] = defaultdict(set)
    for place, text in enumerate(texts):
        groups[collation_key(text, by.strength)].add(place)
    ours = {frozenset(each) for each in groups.values()}
    different = [[texts[place] for place in sorted(group)][:6] for group in sorted(ours - theirs, key=min)]
    assert different == [], (len(different), [list(map(ascii, each)) for each in different[:5]])


def test_the_other_locales_are_as_english_in_equality_and_in_order(texts_of: Collection[dict[str, Any]]) -> None:
    """Of the letters and marks for which locales have rules, alone and in strings; the order is for a sort, which
    MongoDB makes."""
    stock(texts_of, list(dict.fromkeys([*map(chr, (*range(1, 0x600), *range(0x1E00, 0x2000))), *strings(150)])))
    sort = [{"$sort": {"t": 1, "_id": 1}}, {"$project": {"_id": 1}}]
    for strength in (1, 2, 3):
        english = Collation(locale="en", strength=strength)
        equal = equal_by(texts_of, english)
        order = [each["_id"] for each in texts_of.aggregate(sort, collation=english)]
        for locale in AS_ENGLISH:
            other = Collation(locale=locale, strength=strength)
            assert equal_by(texts_of, other) == equal, (locale, strength)
            assert [each["_id"] for each in texts_of.aggregate(sort, collation=other)] == order, (locale, strength)


def test_locales_with_rules_of_their_own_are_not_supported() -> None:
    for locale in ("sv", "da", "es", "fr_CA", "de@collation=phonebook", "tr", "en_US_POSIX", "ja", "zh", "simple"):
        assert of_query({"locale": locale, "strength": 2}) is None, locale
    assert of_query({"locale": "de"}) == CollationSpec("de", 3), "the strength that the server takes then"
    for strength in (0, 4, 5, True, "2", None):
        assert of_query({"locale": "en", "strength": strength}) is None, strength
    for option in ({"caseLevel": True}, {"numericOrdering": True}, {"caseFirst": "upper"}, {"alternate": "shifted"}):
        assert of_query({"locale": "en", "strength": 2, **option}) is None, option
