"""How requests get to DynamoDB: the client, the wire format, the pace, the errors."""
