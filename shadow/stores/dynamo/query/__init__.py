"""Reads: how a filter becomes a query or a scan, and how its results are processed."""
