"""Comparison: equality first, words for the difference after, noise told apart."""
