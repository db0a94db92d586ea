"""Traces: spans of OpenTelemetry for the application's calls and for the work that they cause."""
