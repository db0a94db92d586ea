"""Shadow reads: the same question to the secondary, the comparison, and its confirmation."""
