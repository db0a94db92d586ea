"""The streams of DynamoDB's tables: which of their records are out-of-band writes."""
