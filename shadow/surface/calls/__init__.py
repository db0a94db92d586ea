"""A call: its arguments and options, when it begins, and the session that it is made in."""
