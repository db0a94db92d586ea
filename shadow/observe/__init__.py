"""Observation: metrics, log lines, findings, reports."""
