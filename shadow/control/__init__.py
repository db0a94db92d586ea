"""The control store: the small records by which processes agree on routing, jobs and flips."""
