"""Writes: one conditional request, a transaction, or batches of them."""
