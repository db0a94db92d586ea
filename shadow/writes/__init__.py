"""The way of a write to both stores: the primary, the intent, the secondary, the heal."""
