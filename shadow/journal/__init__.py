"""The journal of intents: one contract, in an SQLite file or on a server."""
