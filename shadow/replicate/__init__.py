"""What follows the primary: journal, lane, replay, copy, heal."""
