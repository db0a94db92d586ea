"""Serializes a request as botocore does, without walking through every AttributeValue: the counterpart of `parser`.

In DynamoDB's JSON protocol, an AttributeValue on the wire is what the caller passed (except binaries, which are base64;
those that came from the server still are). botocore's serializer looks up the shape of each member of each value of
each item, which takes more processor time than the rest of a batch of writes.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from botocore.serialize import JSONSerializer

__all__ = ["Serializer", "patch_serializer"]


class Serializer(JSONSerializer):  # type: ignore[misc]
    def _serialize(self, serialized: Any, value: Any, shape: Any, key: Any = None) -> None:
        if shape.name == "AttributeValue":
            serialized[key] = _wire(value)
        else:
            super()._serialize(serialized, value, shape, key)

    def _serialize_type_map(self, serialized: Any, value: Any, shape: Any, key: Any) -> None:
        if shape.value.name == "AttributeValue":
            serialized[key] = {name: _wire(each) for name, each in value.items()}
        else:
            super()._serialize_type_map(serialized, value, shape, key)

    def _serialize_type_list(self, serialized: Any, value: Any, shape: Any, key: Any) -> None:
        if shape.member.name == "AttributeValue":
            serialized[key] = [_wire(each) for each in value]
        else:
            super()._serialize_type_list(serialized, value, shape, key)


def patch_serializer(client: Any) -> None:
    """Installs the serializer in a client that uses this protocol."""
    if type(client._serializer) is JSONSerializer:
        client._serializer = Serializer()


def _wire(value: dict[str, Any]) -> dict[str, Any]:
    ((tag, raw),) = value.items()
    if tag in _AS_THEY_ARE:
        return value
    match tag:
        case "M":
            return {"M": {name: _wire(each) for name, each in raw.items()}}
        case "L":
            return {"L": [_wire(each) for each in raw]}
        case "B":
            return {"B": _base64(raw)}
        case "BS":
            return {"BS": [_base64(each) for each in raw]}
        case _:
            return value


def _base64(raw: Any) -> str:
    return raw if isinstance(raw, str) else base64.b64encode(raw).decode("ascii")


_AS_THEY_ARE: Final = frozenset({"S", "N", "BOOL", "NULL", "SS", "NS"})
