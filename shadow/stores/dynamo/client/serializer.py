"""What botocore makes of a request, without walking through every AttributeValue: the other way of `parser`.

An AttributeValue is, in the JSON protocol of DynamoDB, on the wire what the caller gave (all but binaries, which are
base64, as those still are that came from the server). botocore's serializer looks up the shape of each member of each
value of each item, which takes more of the processor than all else of a batch of writes together.
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
    """Gives a client the serializer, if it speaks the protocol that it is for."""
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
