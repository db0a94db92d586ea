"""Tables and indexes: what a collection needs, what exists, and how it is created."""
