"""Pure code: no I/O, no clients, no event loop."""
