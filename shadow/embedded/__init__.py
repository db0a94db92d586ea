"""Servers and a sample backend for the demo and the tests."""
