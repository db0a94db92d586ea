"""Comparison: first equality, then a description of the difference, with noise kept separate."""
