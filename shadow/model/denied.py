"""Finds the right that an AWS identity lacks in AWS's refusal.

The sentence is AWS's: "User: ARN is not authorized to perform: ACTION on resource: ARN because ..." (IAM user guide,
"Troubleshoot access denied error messages"). Action and resource contain nothing of a document; the rest is dropped.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["denied"]

_SENTENCE: Final = re.compile(r"not authorized to perform: ([\w:*-]+)(?: on resource: (arn:[\w:./*-]+))?")


def denied(sentence: str, operation: str, table: str) -> str:
    """The action and the resource, in words. If the sentence has another form, they are derived from the request:
    `operation` as the client's method is named (`put_item`) or as AWS names it (`PutItem`), and the name of its
    `table`."""
    found = _SENTENCE.search(sentence)
    action = found[1] if found else f"dynamodb:{''.join(part[:1].upper() + part[1:] for part in operation.split('_'))}"
    resource = found[2] if found and found[2] else f"table {table}"
    return f"the identity lacks {action} on {resource}"
