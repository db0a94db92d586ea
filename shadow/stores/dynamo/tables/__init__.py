"""Tables and indexes: what a collection needs, what is there, and how it gets there."""
