"""Indexes that an application makes while it runs."""
