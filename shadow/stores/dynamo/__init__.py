"""DynamoDB as a document store."""
