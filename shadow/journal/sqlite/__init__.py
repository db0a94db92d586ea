"""The journal as an SQLite file beside the application."""
