"""Projections, and the stages of a pipeline."""
