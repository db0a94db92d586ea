"""The regions that have DynamoDB, by botocore's list, in every partition (aws, aws-cn, aws-us-gov, ...)."""

from __future__ import annotations

import difflib
import functools

import botocore.session

__all__ = ["check_region", "regions"]


@functools.cache
def regions() -> frozenset[str]:
    """Read from botocore's data once, which takes a moment."""
    session = botocore.session.Session()
    partitions = session.get_available_partitions()
    return frozenset(name for each in partitions for name in session.get_available_regions("dynamodb", each))


def check_region(name: str) -> None:
    """Raises ValueError for a region that botocore does not know. With an `endpoint_url`, any name is valid."""
    known = regions()
    if name in known:
        return
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"must be a region that has DynamoDB: {hint}(botocore's list; a newer one needs a newer botocore, or "
        "endpoint_url: https://dynamodb.REGION.amazonaws.com)"
    )
