"""Replaces the driver's database, collection and cursor for the application."""
