"""Checks of settings beyond their types: names, sources, YAML, contradictions."""
