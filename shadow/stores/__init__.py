"""The stores, one contract (`base.Store`)."""
