"""Aggregation expressions, and the operators in them."""
