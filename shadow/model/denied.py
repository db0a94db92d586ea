"""Which right an AWS identity lacks, out of the sentence with which it is refused.

The sentence is AWS's: "User: ARN is not authorized to perform: ACTION on resource: ARN because ..." (IAM user guide,
"Troubleshoot access denied error messages"). Action and resource say nothing of a document; the rest stays where it is.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["denied"]

_SENTENCE: Final = re.compile(r"not authorized to perform: ([\w:*-]+)(?: on resource: (arn:[\w:./*-]+))?")


def denied(sentence: str, operation: str, table: str) -> str:
    """The action and the resource, in words; by what was asked for where the sentence is another one. `operation`: as
    the client's method is called (`put_item`), or AWS calls it (`PutItem`); `table`: its table's name."""
    found = _SENTENCE.search(sentence)
    action = found[1] if found else f"dynamodb:{''.join(part[:1].upper() + part[1:] for part in operation.split('_'))}"
    resource = found[2] if found and found[2] else f"table {table}"
    return f"the identity lacks {action} on {resource}"
