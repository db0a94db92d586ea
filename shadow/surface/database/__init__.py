"""The driver's database object and client."""
