"""Parses a response as botocore does, without walking through every AttributeValue.

In DynamoDB's JSON protocol an AttributeValue already has, on the wire, the form that botocore returns, except binaries,
which are base64 there and stay so: `values.octets` decodes them when needed. botocore's parser nevertheless checks each
of its ten members, for each value of each item, which takes more time than the rest of a BatchGetItem.
"""

from __future__ import annotations

from typing import Any, Final

from aiobotocore.parsers import AioJSONParser, AioResponseParserFactory

__all__ = ["ParserFactory"]

_VALUE: Final = "AttributeValue"


class _Parser(AioJSONParser):  # type: ignore[misc]
    def _handle_structure(self, shape: Any, value: Any) -> Any:
        return value if shape.name == _VALUE else super()._handle_structure(shape, value)

    def _handle_map(self, shape: Any, value: Any) -> Any:
        return value if shape.value.name == _VALUE else super()._handle_map(shape, value)

    def _handle_list(self, shape: Any, value: Any) -> Any:
        of = shape.member
        if of.type_name == "map" and of.value.name == _VALUE:
            return value
        return super()._handle_list(shape, value)


class ParserFactory(AioResponseParserFactory):  # type: ignore[misc]
    """Registered in a session as the component `response_parser_factory`."""

    def create_parser(self, protocol_name: str) -> Any:
        if protocol_name == "json":
            return _Parser(**self._defaults)
        return super().create_parser(protocol_name)
