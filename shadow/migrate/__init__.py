"""The migration's jobs: copy what was there before, verify both stores, repair, and the gates before a flip."""
