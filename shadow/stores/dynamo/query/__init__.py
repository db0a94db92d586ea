"""Reads: how a filter becomes a query or a scan, and what is done to what it brings."""
