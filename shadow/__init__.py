"""shadow: move a live backend from MongoDB to DynamoDB."""
