"""What botocore makes of an answer, without walking through every AttributeValue.

In the JSON protocol of DynamoDB an AttributeValue is, on the wire, already what botocore gives (all but binaries,
which are base64): botocore's parser nevertheless looks at each of its ten members, for each value of each item, which
takes more time than all else of a BatchGetItem together.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from aiobotocore.parsers import AioJSONParser, AioResponseParserFactory

__all__ = ["ParserFactory"]


class _Parser(AioJSONParser):  # type: ignore[misc]
    def _handle_structure(self, shape: Any, value: Any) -> Any:
        if shape.name == "AttributeValue":
            return _attribute(value)
        return super()._handle_structure(shape, value)

    def _handle_map(self, shape: Any, value: Any) -> Any:
        if shape.value.name == "AttributeValue":
            return {name: _attribute(each) for name, each in value.items()}
        return super()._handle_map(shape, value)


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    ((tag, raw),) = value.items()
    if tag in _AS_THEY_ARE:
        return value
    match tag:
        case "M":
            return {"M": {name: _attribute(each) for name, each in raw.items()}}
        case "L":
            return {"L": [_attribute(each) for each in raw]}
        case "B":
            return {"B": base64.b64decode(raw)}
        case "BS":
            return {"BS": [base64.b64decode(each) for each in raw]}
        case _:
            return value


_AS_THEY_ARE: Final = frozenset({"S", "N", "BOOL", "NULL", "SS", "NS"})


class ParserFactory(AioResponseParserFactory):  # type: ignore[misc]
    """Registered in a session as the component `response_parser_factory`."""

    def create_parser(self, protocol_name: str) -> Any:
        if protocol_name == "json":
            return _Parser(**self._defaults)
        return super().create_parser(protocol_name)
