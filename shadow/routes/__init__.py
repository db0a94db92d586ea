"""Which store is the primary of a collection, and which phase it is in: now, and when a process starts."""
