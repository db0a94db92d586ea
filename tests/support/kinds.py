"""Collections of MongoDB that are not plain, by the options that the command `create` makes them with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shadow.stores.mongo.kinds import Special

__all__ = ["PLAIN", "REFUSED"]

CLOSED: Final = {"$jsonSchema": {"properties": {"_id": {}, "n": {}}, "additionalProperties": False}}
REFUSED: Final[Mapping[Special, Mapping[str, Any]]] = {
    Special.VIEW: {"viewOn": "others", "pipeline": []},
    Special.TIME_SERIES: {"timeseries": {"timeField": "at"}},
    Special.CAPPED: {"capped": True, "size": 4096},
    Special.COLLATION: {"collation": {"locale": "en", "strength": 2}},
    Special.ENCRYPTED: {"encryptedFields": {"fields": []}},
    Special.VALIDATOR: {"validator": CLOSED},
}
"""By what it is, the options that `create` makes it with."""

PLAIN: Final[Mapping[str, Mapping[str, Any]]] = {
    "clustered": {"clusteredIndex": {"key": {"_id": 1}, "unique": True}},
    "clustered_and_expiring": {
        "clusteredIndex": {"key": {"_id": 1}, "unique": True},
        "expireAfterSeconds": 10**9,
    },
    "simple_collation": {"collation": {"locale": "simple"}},
    "strict": {"validator": {"n": {"$not": {"$type": "string"}}}},
    "moderate": {"validator": {"n": {"$not": {"$type": "string"}}}, "validationLevel": "moderate"},
    "warning": {"validator": CLOSED, "validationAction": "warn"},
    "not_in_force": {"validator": CLOSED, "validationLevel": "off"},
    "open_to_the_version": {
        "validator": {"$jsonSchema": {"properties": {"_id": {}, "n": {}, "_shadow": {}}, "additionalProperties": False}}
    },
    "keeps_its_images": {"changeStreamPreAndPostImages": {"enabled": True}},
}
"""What is supported."""
