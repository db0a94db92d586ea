"""What can be seen: metrics, log lines, findings, reports."""
