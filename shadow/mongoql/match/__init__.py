"""Filters: parsed to a tree, compiled to closures."""
