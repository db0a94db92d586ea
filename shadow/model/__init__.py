"""Pure parts: no I/O, no clients, no event loop."""
