"""The cursors: over two stores, the driver's own, and the choice between them."""
