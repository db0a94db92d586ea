"""What a process knows about its machine: its own identity, which other processes live, and time."""
