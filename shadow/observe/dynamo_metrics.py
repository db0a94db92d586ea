"""The rows of the table of metrics about what DynamoDB consumes and scans."""

from __future__ import annotations

from typing import Final

from shadow.model.events import CapacityConsumed, RequestThrottled, TableScanned
from shadow.observe.metric_row import By, Configured, DynamoCall, MetricRow

__all__ = ["BY_DYNAMO", "BY_SCANS", "CAPACITY", "SCANNED", "SCANNED_OUT", "SCANS", "THROTTLED"]

CAPACITY: Final = MetricRow(
    "shadow_dynamo_capacity_units_total",
    "counter",
    "Capacity units consumed on DynamoDB; index is empty for the table itself.",
    ("table", "index", "verb"),
    (Configured.INDEX, DynamoCall),
    rest={"verb": (DynamoCall.GET_ITEM,)},
    moved_by=(By(CapacityConsumed, amount="units"),),
)
THROTTLED: Final = MetricRow(
    "shadow_dynamo_throttled_requests_total",
    "counter",
    "Requests to DynamoDB that were throttled, repeated ones too; by a client that shadow made.",
    moved_by=(By(RequestThrottled),),
)
SCANS: Final = MetricRow(
    "shadow_dynamo_scans_total",
    "counter",
    "Queries that had to scan a table, for no key or index serves them.",
    ("table",),
    (Configured.TABLE,),
    moved_by=(By(TableScanned, amount="scans"),),
)
SCANNED: Final = MetricRow(
    "shadow_dynamo_scan_items_read_total",
    "counter",
    "Items that scans have read.",
    ("table",),
    (Configured.TABLE,),
    moved_by=(By(TableScanned, amount="read"),),
)
SCANNED_OUT: Final = MetricRow(
    "shadow_dynamo_scan_items_returned_total",
    "counter",
    "Items that scans have returned, of those that they have read.",
    ("table",),
    (Configured.TABLE,),
    moved_by=(By(TableScanned, amount="returned"),),
)

BY_DYNAMO: Final = (CAPACITY, THROTTLED)
BY_SCANS: Final = (SCANS, SCANNED, SCANNED_OUT)
